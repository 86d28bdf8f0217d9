"""`App` and `TestBroker`: virtual time, lifespan, middleware, signals."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import BaseModel

from anymq import (
    App,
    ConfigurationError,
    Delivery,
    Handler,
    Idempotency,
    Message,
    NotFound,
    Publish,
    Receipt,
    Reject,
    Retry,
    StateError,
    Topic,
)
from anymq.testing import TestBroker


class Order(BaseModel):
    number: int


async def test_advance_moves_the_time_of_the_app() -> None:
    app = App()
    attempts: list[int] = []

    @app.subscriber("orders", group="billing", retry=Retry(attempts=4, initial=600, cap=3600))
    async def bill(order: Order, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise ValueError("no")

    started = time.monotonic()
    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("orders", Order(number=1), key="o-1")
        await broker.drain()
        assert attempts == [1]
        await broker.advance(3 * 3600)
        assert attempts == [1, 2, 3, 4]
        (letter,) = broker.dead_letters("orders", group="billing")
        assert letter.attempts == 4
        assert broker.published("orders")[0].key == "o-1"
        assert broker.published(Topic("nothing")) == []
        for wrong in ("nothing", "orders.biling.dlq"):
            with pytest.raises(NotFound, match="there is no topic"):
                broker.published(wrong)
        with pytest.raises(NotFound, match="for the group 'biling'"):
            broker.dead_letters("orders", group="biling")
        for wrong_type in (5, None, Order):
            with pytest.raises(ConfigurationError):
                broker.published(wrong_type)  # type: ignore[arg-type]  # pyright: ignore
    assert time.monotonic() - started < 10


async def test_draining_leaves_a_handler_in_its_backoff() -> None:
    app = App()
    attempts: list[int] = []

    @app.subscriber("t", group="g", retry=Retry(initial=0.2, jitter=False, in_place=1))
    async def handle(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt == 1:
            raise ValueError

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("t", "x")
        await broker.drain(timeout=5)
        assert attempts == [1]
        await broker.advance(1)
        assert attempts == [1, 2]


async def test_the_lifespan_encloses_all_deliveries() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        events.append("open")
        app.state["greeting"] = "hello"
        yield
        events.append("close")

    app = App(lifespan=lifespan)

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None:
        events.append(f"{app.state['greeting']} {body}")

    async with TestBroker(app) as broker:
        await broker.publish("t", "x")
        await broker.drain()
    assert events == ["open", "hello x", "close"]


async def test_middleware_runs_in_the_order_it_is_written() -> None:
    order: list[str] = []

    def named(name: str):  # type: ignore[no-untyped-def]
        def wrap(handler: Handler) -> Handler:
            async def wrapped(delivery: Delivery) -> None:
                order.append(f"{name} in")
                await handler(delivery)
                order.append(f"{name} out")

            return wrapped

        return wrap

    def stamp(publish: Publish) -> Publish:
        async def stamping(message: Message) -> Receipt:
            order.append(f"publish {message.topic}")
            return await publish(message)

        return stamping

    app = App(middleware=[named("app")], publish_middleware=[stamp])

    @app.subscriber("t", group="g", middleware=[named("own")])
    async def handle(body: str) -> None:
        order.append("handler")

    async with TestBroker(app) as broker:
        await broker.publish("t", "x")
        await broker.drain()
    assert order == ["publish t", "app in", "own in", "handler", "own out", "app out"]


async def test_idempotency_skips_completed_messages_and_retries_failed_ones() -> None:
    app = App()
    calls: list[str] = []
    duplicates: list[str] = []

    @app.subscriber(
        "t",
        group="g",
        retry=Retry(attempts=3, initial=5),
        idempotency=Idempotency(
            "memory://", on_duplicate=lambda d: duplicates.append(d.message.id)
        ),
    )
    async def handle(body: str, delivery: Delivery) -> None:
        calls.append(body)
        if body == "bad" and delivery.attempt == 1:
            raise ValueError

    @app.subscriber("u", group="g")
    async def again(body: str) -> None:
        raise Reject("no")

    async with TestBroker(app) as broker:
        broker.expect_errors()
        for body in ("good", "bad"):
            await broker.publish("t", body, id=body)
        await broker.drain()
        await broker.advance(60)
        assert sorted(calls) == ["bad", "bad", "good"]


async def test_the_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANYMQ_URL", raising=False)
    with pytest.raises(ConfigurationError, match="ANYMQ_URL"):
        await App().start()
    monkeypatch.setenv("ANYMQ_URL", "memory://from-the-environment")
    async with App() as app:
        assert str(app.broker.url) == "memory://from-the-environment"
        with pytest.raises(StateError):
            await app.start()
    with pytest.raises(StateError):
        _ = app.broker


async def test_a_start_that_fails_leaves_nothing_open() -> None:
    closed: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        try:
            yield
        finally:
            closed.append(True)

    app = App("memory://", lifespan=lifespan, names={"t": "not-there"})

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    with pytest.raises(NotFound, match="does not exist"):
        await app.start()
    assert closed == [True]
    before = asyncio.all_tasks()
    assert before == {asyncio.current_task()}


PROGRAM = """
import asyncio, sys
import anymq

app = anymq.App("sqlite:///app.db", drain_timeout=float(sys.argv[1]))

@app.subscriber("t", group="g")
async def handle(body: str) -> None:
    print("started", flush=True)
    await asyncio.sleep(float(body))
    print("finished", flush=True)

@app.subscriber("ready", group="g")
async def ready(body: str) -> None:
    print("ready", flush=True)
    await app.publish("t", body)

async def seed():
    async with anymq.connect("sqlite:///app.db") as broker:
        await broker.publish("ready", sys.argv[2])

asyncio.run(seed())
app.run()
print("bye", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    process = run(tmp_path, "20", "0.7")
    assert until_line(process, "started")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert out.split() == ["finished", "bye"], err
    assert process.returncode == 0


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    process = run(tmp_path, "60", "60")
    assert until_line(process, "started")
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < 50:
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 50
    assert "finished" not in out, err
    assert "Traceback" not in err


def run(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
    return subprocess.Popen(
        [sys.executable, "program.py", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )


def until_line(process: subprocess.Popen[str], wanted: str) -> bool:
    assert process.stdout is not None
    return any(line.strip() == wanted for line in process.stdout)
