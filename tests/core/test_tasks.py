"""Tasks of the core: none ends unnoticed."""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import anymq
from anymq import App, Idempotency
from anymq.driver import Claim
from anymq.tasks import supervise
from anymq.testing.tools import until
from anymq_memory import MemoryStore

ROOT = Path(anymq.__file__).parents[2]
STARTERS = ("create_task", "ensure_future", "start_soon", "TaskGroup")
AWAITED = {
    "core/anymq/tasks.py": {"supervise", "uninterrupted"},
    "core/anymq/cli/process.py": {"_interruptible"},
    "core/anymq/cli/findings.py": {"run_check"},
    "core/anymq/cli/following.py": {"drained"},
    "core/anymq/cli/streams.py": {"while_read"},
    "core/anymq/supervision/supervisor.py": {"_run"},
    "core/anymq/cli/sending.py": {"run", "_send"},
    "core/anymq/cli/survey.py": {"concurrently"},
    "core/anymq/driver/clock.py": {"wait"},
    "core/anymq/consuming/batch.py": {"_begin"},
    "core/anymq/publishing/sender.py": {"_send_each"},
    "core/anymq/publishing/declarations.py": {"declare"},
    "core/anymq/middleware/claims.py": {"_claim"},
    "core/anymq/driver/ordered/leases.py": {"flush"},
    "adapters/anymq_kafka/connection.py": {"_bounded"},
    "adapters/anymq_nats/client/internals.py": {"_written"},
    "adapters/anymq_nats/connection.py": {"open_client", "close_client", "_unless_denied"},
    "adapters/anymq_rabbitmq/client/internals.py": {"bounded", "open"},
    "adapters/anymq_rabbitmq/groups/backfill.py": {"started"},
    "adapters/anymq_redis/connection.py": {"connect"},
}
"""The functions that start a task themselves, by file. Each awaits its task, or has a callback for
its outcome."""


def starts() -> Iterator[tuple[str, str]]:
    """Yield each file, and function in it, that starts a task without `supervise`."""
    for folder in ("core", "adapters"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if "/testing/" in name:
                continue
            for function in ast.walk(ast.parse(path.read_text())):
                if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and node.func.attr in STARTERS
                    for node in ast.walk(function)
                ):
                    yield name, function.name


def test_every_task_is_supervised_or_awaited() -> None:
    unknown = [(name, where) for name, where in starts() if where not in AWAITED.get(name, ())]
    assert unknown == []


def test_the_list_of_awaited_tasks_is_current() -> None:
    listed = {(name, where) for name, functions in AWAITED.items() for where in functions}
    assert listed <= set(starts())


@pytest.mark.parametrize("how", ["error", "stray cancellation", "cancelled", "done"])
async def test_an_unexpected_end_of_a_task_is_logged_once(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def work() -> None:
        if how == "error":
            raise ValueError("broken")
        if how == "stray cancellation":
            raise asyncio.CancelledError
        if how == "cancelled":
            await asyncio.Event().wait()

    with caplog.at_level(logging.ERROR, "anymq"):
        task = supervise(work(), name="a task", ended=lambda: ended.append(how))
        await asyncio.sleep(0)
        if how == "cancelled":
            task.cancel()
        await asyncio.wait((task,))
        await asyncio.sleep(0)
    unexpected = how in ("error", "stray cancellation")
    assert len(caplog.records) == len(ended) == unexpected


class Stray(MemoryStore):
    """A store whose client cancels each call once."""

    def __init__(self) -> None:
        super().__init__()
        self.strayed: set[str] = set()

    def stray(self, call: str) -> None:
        if call not in self.strayed:
            self.strayed.add(call)
            raise asyncio.CancelledError

    async def begin_many(self, keys: Sequence[str], owner: str, lease: float) -> dict[str, Claim]:
        self.stray("begin")
        return await super().begin_many(keys, owner, lease)

    async def complete_many(self, keys: Sequence[str], owner: str, keep: float) -> None:
        self.stray("complete")
        await super().complete_many(keys, owner, keep)

    async def complete(self, key: str, owner: str, keep: float) -> bool:
        self.stray("complete one")
        return await super().complete(key, owner, keep)

    async def abandon_many(self, keys: Sequence[str], owner: str) -> None:
        self.stray("abandon")
        await super().abandon_many(keys, owner)

    async def renew(self, key: str, owner: str, lease: float) -> None:
        self.stray("renew")
        await super().renew(key, owner, lease)


@pytest.mark.parametrize("in_bulk", [True, False])
async def test_a_store_whose_client_cancels_itself_stops_nothing(
    in_bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type("Kind", (Stray,), {})
    monkeypatch.setattr(kind, "in_bulk", in_bulk)
    store, app, handled = kind(), App("memory://"), list[int]()
    failed: set[int] = set()

    @app.subscriber("t", group="g", idempotency=Idempotency(store, lease=0.5))
    async def handle(number: int) -> None:
        if number == 3:
            await until(lambda: "renew" in store.strayed)
        if number == 5 and number not in failed:
            failed.add(number)
            raise ConnectionError("once")
        handled.append(number)

    async with asyncio.timeout(60):
        async with app:
            await app.broker.publish_many("t", list(range(20)))
            await until(lambda: set(handled) == set(range(20)))
    calls = {"begin", "renew", "abandon", "complete" if in_bulk else "complete one"}
    assert calls <= store.strayed
    assert sorted(handled) == list(range(20))
