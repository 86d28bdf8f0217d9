"""A password that is rotated in server and secret file, under load and without a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import anymq
from anymq import AccessDenied, Delivery
from anymq.testing.harness import random_name
from anymq.testing.tools import until
from benchmarks.chaos.proxy import Proxy
from brokers.errors import NotInstallable
from tests.adapters.guarded import Guarded, guarded

SECONDS = 120.0
"""The longest wait for a condition, in seconds."""
SOME = 30
"""Messages before and after a rotation."""


def _one(backend: str) -> Any:
    marks = [getattr(pytest.mark, backend), pytest.mark.xdist_group(f"{backend}-rotation")]
    return pytest.param(backend, marks=marks)


@pytest.fixture(
    scope="module", params=[_one(name) for name in ("kafka", "rabbitmq", "nats", "redis")]
)
def guard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guarded]:
    backend: str = request.param
    try:
        context = guarded(backend, tmp_path_factory.mktemp(backend))
        with context as made:
            yield made
    except NotInstallable as error:
        pytest.skip(str(error))


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with the URL."""
    monkeypatch.setenv("ANYMQ_URL_FILE", str(tmp_path / "url"))
    return tmp_path / "url"


class Load:
    """Messages that are published one after another, and what each subscription got of them."""

    def __init__(self, broker: anymq.Broker, refusal: type[anymq.BrokerError]) -> None:
        self.broker = broker
        self.refusal = refusal
        self.topic = random_name()
        self.confirmed = 0
        self.refused = 0
        self.got: dict[str, set[int]] = {}

    async def publish(self) -> None:
        while True:
            try:
                await self.broker.publish(self.topic, str(self.confirmed), key="k", timeout=2)
            except (AccessDenied, anymq.TransientError) as error:  # The latter when it is cut.
                self.refused += isinstance(error, self.refusal)
            else:
                self.confirmed += 1
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Publish, and read in a group, in an ordered group and in broadcast."""
        async with (
            self._reading("group", group="g", concurrency=4),
            self._reading("ordered", group="o", ordered=True),
            self._reading("broadcast", group=None, start="earliest"),
        ):
            publishing = asyncio.create_task(self.publish())
            try:
                yield
            finally:
                publishing.cancel()
                await asyncio.wait([publishing])

    def _reading(self, name: str, **options: Any) -> anymq.Subscription:
        got = self.got[name] = set()

        async def handle(body: str, delivery: Delivery) -> None:
            got.add(int(body))

        return self.broker.subscribe(
            self.topic, handler=handle, middleware=[anymq.Acknowledge()], **options
        )

    async def all_read(self, count: int) -> None:
        """Return when `count` messages were published and every subscription got all of them."""
        await until(lambda: self.confirmed >= count, within=SECONDS, what="published")
        wanted = set(range(self.confirmed))
        for name, got in self.got.items():
            await until(partial(wanted.issubset, got), within=SECONDS, what=f"all read by {name}")


def rewrite(secret: Path, text: str) -> None:
    """Replace the file at once."""
    whole = secret.with_suffix(".next")
    whole.write_text(text)
    whole.replace(secret)


@pytest.mark.parametrize("first", ["file", "server"])
async def test_a_rotated_password_is_picked_up(guard: Guarded, secret: Path, first: str) -> None:
    async with Proxy(guard.port, guard.listen) as proxy:
        rewrite(secret, guard.url(proxy.port))
        async with anymq.connect() as broker:
            load = Load(broker, guard.refusal)
            async with load.running():
                await load.all_read(SOME)
                for _ in range(2):
                    await _rotated(guard, secret, proxy, load, first)
                    await load.all_read(load.confirmed + SOME)
            assert (await broker.admin.describe(load.topic)).name == load.topic
            await broker.ping()
        old = guard.password
        await asyncio.to_thread(guard.rotate)
        with pytest.raises(AccessDenied) as refused:
            await anymq.connect()
        assert old not in str(refused.value)


async def _rotated(guard: Guarded, secret: Path, proxy: Proxy, load: Load, first: str) -> None:
    """Rotate the password and cut the connections, if the server does not do so itself."""
    await asyncio.to_thread(guard.rotate)
    if first == "file":
        rewrite(secret, guard.url(proxy.port))
    proxy.cut()
    if first == "server":
        refused = load.refused
        await until(lambda: load.refused > refused, within=SECONDS, what="refused")
        rewrite(secret, "")  # Half written: the connections go on with what they have.
        again = load.refused
        await until(lambda: load.refused > again, within=SECONDS, what="refused again")
        rewrite(secret, guard.url(proxy.port))
