"""`App.health`: what makes an app live and ready, and what it reports."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import pytest

from anymq import App, Deadline, Delivery, Retry, StopLane
from anymq.health import Health, SubscriptionHealth, connection
from anymq.health.report import STALLED_FOR
from anymq.testing import VirtualClock
from tests.core.scripted import Lost, ScriptedDriver, ScriptedSource

WITHIN = 60.0


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ping the broker for every report."""
    monkeypatch.setattr(connection, "PING_AGE", 0.0)


async def until(app: App, holds: Callable[[Health], bool]) -> Health:
    """Return the first report that `holds`."""
    async with asyncio.timeout(WITHIN):
        while True:
            if holds(report := await app.health()):
                return report
            await asyncio.sleep(0.01)


@asynccontextmanager
async def on_clock(app: App) -> AsyncIterator[VirtualClock]:
    """Run `app` on the memory backend and a virtual clock, also while handlers hang."""
    clock = VirtualClock()
    clock.poll = 1.0
    await app.start(url="memory://", clock=clock, isolated=True)
    try:
        yield clock
    finally:
        closing = asyncio.create_task(app.aclose())
        while not closing.done():
            await clock.advance(1)
        await closing


def only(report: Health) -> SubscriptionHealth:
    (subscription,) = report.subscriptions
    return subscription


async def test_readiness_follows_the_life_of_the_app() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()
    states: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        states.append((await app.health()).state)
        yield
        states.append((await app.health()).state)

    app = App("memory://", name="shop", version="1.4", lifespan=lifespan)

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None:
        begun.set()
        await ended.wait()

    report = await app.health()
    assert (report.live, report.ready, report.state) == (True, False, "stopped")
    async with app:
        report = await app.health()
        assert (report.live, report.ready, report.problems) == (True, True, ())
        assert (report.name, report.version) == ("shop", "1.4")
        assert report.broker is not None
        assert report.broker.connected
        await app.publish("t", "x")
        await begun.wait()
        closing = asyncio.create_task(app.aclose())
        report = await until(app, lambda report: report.draining)
        assert (report.live, report.ready) == (True, False)
        assert report.problems == ("the app is draining",)
        assert only(report).handlers.count == 1
        ended.set()
        await closing
    report = await app.health()
    assert (report.live, report.ready, report.state) == (True, False, "stopped")
    assert states == ["starting", "draining"]


async def test_stop_turns_readiness_off_at_once() -> None:
    app = App("memory://")
    started = asyncio.Event()
    serving = asyncio.create_task(app.serve(started=started.set))
    await started.wait()
    assert (await app.health()).ready
    app.stop()
    report = await app.health()
    assert report.draining
    assert not report.ready
    await serving
    async with app:
        assert (await app.health()).ready


async def test_a_failed_start_is_stopped() -> None:
    app = App("scripted://")
    ScriptedDriver.opening.append(RuntimeError("no"))
    with pytest.raises(RuntimeError):
        await app.start()
    assert (await app.health()).state == "stopped"


@pytest.mark.usefixtures("fresh")
async def test_a_broker_that_does_not_answer_is_not_a_reason_to_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def lost(self: ScriptedDriver) -> None:
        raise Lost("the link is cut")

    async with App("scripted://user:hidden@host?allow_insecure_auth=true") as app:
        assert (await app.health()).ready
        with monkeypatch.context() as patched:
            patched.setattr(ScriptedDriver, "ping", lost)
            report = await app.health()
            assert report.broker is not None
            assert not report.broker.connected
            assert report.live
            assert not report.ready
            assert "the link is cut" in report.problems[0]
            first = report.broker.error_seconds
            later = (await app.health()).broker
            assert first is not None
            assert later is not None
            assert later.error_seconds is not None
            assert later.error_seconds >= first
            assert "hidden" not in json.dumps(report.as_dict())
        assert (await app.health()).ready


@pytest.mark.usefixtures("fresh")
async def test_a_ping_that_hangs_holds_up_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: ScriptedDriver) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(ScriptedDriver, "ping", hang)
    monkeypatch.setattr(connection, "PING_WAIT", 0.01)
    monkeypatch.setattr(connection, "PING_LATE", 0.2)
    async with App("scripted://") as app:
        assert (await app.health()).ready
        report = await until(app, lambda report: not report.ready)
        assert "no answer to a ping" in report.problems[0]


async def test_a_subscription_that_cannot_read_is_not_ready() -> None:
    app = App("scripted://")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    async with app:
        source = driver_of(app).sources[0]
        for _ in range(50):
            source.inbox.put_nowait(Lost("no route"))
        report = await until(app, lambda report: not report.ready)
        assert report.live
        assert "t (group g) cannot read" in report.problems[0]
        assert "no route" in report.problems[0]
        assert only(report).error_seconds is not None
        report = await until(app, lambda report: report.ready)
        assert only(report).error is None
        assert only(report).error_seconds is None


def driver_of(app: App) -> ScriptedDriver:
    return cast(ScriptedDriver, app.broker.driver)


async def test_a_subscription_whose_task_has_ended_needs_a_restart() -> None:
    app = App("scripted://")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    async with app:
        (fetching,) = [t for t in asyncio.all_tasks() if t.get_name() == "anymq-fetch-t"]
        fetching.cancel()
        report = await until(app, lambda report: not report.live)
        assert not report.ready
        assert "stopped reading for good" in report.faults[0]


async def test_a_closed_subscription_is_not_ready() -> None:
    app = App("memory://")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    async with app:
        await app.subscriptions[0].aclose()
        report = await app.health()
        assert report.problems == ("the subscription to t (group g) is closed",)
        assert report.live


async def test_a_source_that_delivers_nothing_for_long_needs_a_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = VirtualClock()
    clock.poll = 0.0

    async def undelivered(self: ScriptedSource) -> object:
        return "always the same"

    monkeypatch.setattr(ScriptedSource, "undelivered", undelivered)
    app = App("scripted://")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    async def advance(report_holds: Callable[[Health], bool]) -> Health:
        async with asyncio.timeout(WITHIN):
            while not report_holds(report := await app.health()):
                await clock.advance(10)
                await asyncio.sleep(0)
        return report

    await app.start(clock=clock)
    try:
        report = await advance(lambda report: only(report).stalled_seconds is not None)
        assert report.live
        report = await advance(lambda report: not report.live)
        assert (only(report).stalled_seconds or 0) > STALLED_FOR
        assert len(driver_of(app).sources) > 2, "it was reopened meanwhile"
        driver_of(app).sources[-1].put("x")
        report = await advance(lambda report: only(report).stalled_seconds is None)
        assert report.live
    finally:
        closing = asyncio.create_task(app.aclose())
        while not closing.done():
            await clock.advance(1)


@pytest.mark.parametrize("seconds", [900.0, 0.05], ids=["coarse", "exact"])
async def test_a_handler_that_ignores_its_deadline_needs_a_restart(seconds: float) -> None:
    app = App()
    begun, ended = asyncio.Event(), asyncio.Event()

    @app.subscriber("t", group="g", deadline=Deadline(seconds))
    async def handle(body: str) -> None:
        begun.set()
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError:
                continue

    async with on_clock(app) as clock, AsyncExitStack() as stack:
        stack.callback(ended.set)
        await app.publish("t", "x")
        await clock.advance(1)
        assert begun.is_set()
        await clock.advance(20)
        report = await app.health()
        handlers = only(report).handlers
        assert only(report).deadline == seconds
        assert handlers.count == 1
        assert 10 < handlers.oldest <= 25
        assert handlers.overdue == (seconds < 20)
        assert report.live
        await clock.advance(seconds + 10)
        report = await app.health()
        assert only(report).handlers.overdue == 1
        assert report.live
        await clock.advance(100)
        report = await app.health()
        assert only(report).handlers.stuck == 1
        assert only(report).handlers.oldest > seconds + 60
        assert not report.live
        assert "t (group g)" in report.faults[0]
        ended.set()
        await clock.advance(20)
        report = await app.health()
        assert report.live
        assert only(report).handlers.count == 0


async def test_attempts_in_one_slot_are_measured_each_by_itself() -> None:
    app = App()
    attempts: list[int] = []

    @app.subscriber(
        "t",
        group="g",
        deadline=Deadline(30),
        retry=Retry(attempts=100, initial=20, factor=1, cap=20, in_place=20, jitter=False),
    )
    async def handle(body: str, delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise ValueError("no")

    async with on_clock(app) as clock:
        await app.publish("t", "x")
        for _ in range(20):
            await clock.advance(10)
            report = await app.health()
            assert report.live
            assert only(report).handlers.overdue == 0
        assert len(attempts) > 5


async def test_counts_of_deliveries() -> None:
    app = App()

    @app.subscriber("t", group="g", retry=Retry(initial=5, jitter=False))
    async def handle(body: str, delivery: Delivery) -> None:
        if body == "bad" and delivery.attempt == 1:
            raise ValueError("no")

    @app.subscriber(
        "t", group="lanes", ordered=True, retry=Retry(attempts=3, initial=5, jitter=False)
    )
    async def ordered(body: str, delivery: Delivery) -> None:
        if body == "bad" and delivery.attempt == 1:
            raise ValueError("no")
        if body == "stop":
            raise StopLane("broken")

    async with on_clock(app) as clock:
        for body in ("good", "bad", "stop"):
            await app.publish("t", body, key=body)
        await clock.advance(60)
        one, lanes = (await app.health()).subscriptions
        assert (one.consumed, one.settled) == (4, 4)
        assert (lanes.consumed, lanes.settled, lanes.stopped_keys) == (4, 2, 1), "a retry keeps it"
        assert (one.in_flight, lanes.in_flight, one.buffered) == (0, 1, 0)
        app.subscriptions[0].pause()
        for _ in range(3):
            await app.publish("t", "more", key="stop")
        await clock.advance(5)
        one, lanes = (await app.health()).subscriptions
        assert one.paused
        assert one.consumed == 4
        assert lanes.consumed == 4
        app.subscriptions[1].restart("stop")
        await clock.advance(5)
        _, lanes = (await app.health()).subscriptions
        assert lanes.consumed == 5
        assert (await app.health()).ready, "a pause is intended"


async def test_metrics_are_valid_and_complete() -> None:
    app = App(name='a "shop"')  # as a label it is escaped
    ended = asyncio.Event()

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None:
        await ended.wait()

    @app.subscriber("news", group=None)
    async def news(body: str) -> None: ...

    async with on_clock(app) as clock:
        for _ in range(3):
            await app.publish("t", "x")
        await clock.advance(1)
        values = samples(await app.metrics())
        labels = (
            'messaging_system="anymq_memory",messaging_destination_name="t",'
            'messaging_consumer_group_name="g"'
        )
        assert values[f"messaging_client_consumed_messages_total{{{labels}}}"] == 1
        assert values[f"anymq_handlers_running{{{labels}}}"] == 1
        assert values[f"anymq_consumer_lag{{{labels}}}"] == 3
        assert values["anymq_live"] == values["anymq_ready"] == values["anymq_connected"] == 1
        ended.set()
        await clock.advance(5)
        values = samples(await app.metrics())
        assert values[f"anymq_deliveries_settled_total{{{labels}}}"] == 3
    assert samples(await app.metrics())["anymq_ready"] == 0


def samples(text: str) -> dict[str, float]:
    """Return the samples of a text in the format of Prometheus, checked."""
    values: dict[str, float] = {}
    names: set[str] = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if found := re.fullmatch(r"# TYPE (\w+) (counter|gauge)", line):
            assert found[1] not in names
            assert found[1].endswith("_total") is (found[2] == "counter")
            names.add(found[1])
        elif not line.startswith("# HELP "):
            found = re.fullmatch(r'((\w+)(?:\{(?:\w+="(?:[^"\\\n]|\\.)*",?)+\})?) (\S+)', line)
            assert found, line
            assert found[2] in names
            assert found[1] not in values
            values[found[1]] = float(found[3])
    return values


def as_json(report: Health) -> Any:
    return json.loads(json.dumps(report.as_dict()))


async def test_the_report_is_json() -> None:
    app = App("memory://")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    async with app:
        data = as_json(await app.health())
    assert data["live"] is data["ready"] is True
    assert data["broker"]["backend"] == "memory"
    (subscription,) = data["subscriptions"]
    assert subscription["topic"] == "t"
    assert subscription["handlers"] == {"count": 0, "oldest": 0.0, "overdue": 0, "stuck": 0}
