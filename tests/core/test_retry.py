"""`Retry` with a marker or stopped keys; `Idempotency` with a handler that settles."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from anymq import (
    App,
    ConfigurationError,
    Delivery,
    Handler,
    Idempotency,
    Message,
    Retry,
    RetryAfter,
    StopLane,
    connect,
)
from anymq.driver import ClaimState, Store
from anymq.middleware.store_call import key_of
from anymq.testing import TestBroker
from anymq.testing.tools import eventually
from anymq_memory import MemoryStore


class Marks(MemoryStore):
    """A marker store in which another process left `died` starts without an end."""

    def __init__(self, died: int = 0) -> None:
        super().__init__()
        self.died = died
        self.starts: dict[str, int] = {}

    async def mark(self, key: str, keep: float) -> int:
        self.starts.setdefault(key, self.died)
        self.starts[key] += 1
        return self.starts[key]

    async def unmark(self, key: str) -> None:
        self.starts.pop(key, None)


async def attempts_seen(store: Store, *errors: Exception | None) -> tuple[list[int], list[str]]:
    """Run a handler of at most three attempts that raises `errors`; return attempts and letters."""
    app = App()
    seen: list[int] = []
    outcomes = iter(errors)

    @app.subscriber(
        "t", group="g", retry=Retry(attempts=3, marker=store, initial=100, jitter=False)
    )
    async def handle(delivery: Delivery) -> None:
        seen.append(delivery.attempt)
        if error := next(outcomes, None):
            raise error

    async with TestBroker(app) as broker:
        broker.expect_errors(ValueError)
        await broker.publish("t", "x")
        for _ in range(2):
            await broker.advance(500)
        letters = broker.dead_letters("t", group="g")
        return seen, [str(letter.reason) for letter in letters]


@pytest.mark.parametrize(
    ("errors", "seen"),
    [
        ((), [1]),
        ((ValueError(), ValueError()), [1, 2, 3]),
        ((RetryAfter(1, counted=False), RetryAfter(1)), [1, 1, 2]),
    ],
)
async def test_every_ended_attempt_removes_its_mark(
    errors: tuple[Exception], seen: list[int]
) -> None:
    store = Marks()
    assert await attempts_seen(store, *errors) == (seen, [])
    assert store.starts == {}


async def test_starts_without_an_end_are_attempts() -> None:
    store = Marks(died=2)
    seen, letters = await attempts_seen(store, ValueError("the third"))
    assert seen == [3]
    assert letters == ["retries exhausted after 3 attempts: ValueError: the third"]


async def test_too_many_starts_without_an_end_are_not_retried() -> None:
    store = Marks(died=3)
    seen, letters = await attempts_seen(store)
    assert seen == []
    assert letters == ["retries exhausted: attempt 4 of 3, because earlier attempts crashed"]
    assert store.starts == {}


async def test_an_unavailable_marker_postpones_the_delivery() -> None:
    class Broken(Marks):
        async def mark(self, key: str, keep: float) -> int:
            self.died += 1
            if self.died < 5:
                raise OSError("no store")
            return 1

    assert await attempts_seen(Broken()) == ([1], [])


async def test_a_stopped_key_lane_writes_no_dead_letter() -> None:
    app = App()
    seen: list[str] = []

    @app.subscriber(
        "t",
        group="g",
        ordered=True,
        retry=Retry(attempts=2, initial=10, jitter=False, exhausted="stop"),
    )
    async def handle(body: str, delivery: Delivery) -> None:
        seen.append(f"{body} {delivery.attempt}")
        if body == "bad":
            raise ValueError("no")
        if body == "stop":
            raise StopLane("by hand")

    async with TestBroker(app) as broker:
        broker.expect_errors()
        for body, key in (("bad", "a"), ("behind", "a"), ("stop", "b"), ("free", "c")):
            await broker.publish("t", body, key=key)
        await broker.broker.ping()
        (subscription,) = app.subscriptions
        clock = broker._clock
        assert clock is not None
        while len(subscription.stopped) < 2:
            await clock.advance(1)
        assert subscription.stopped == {
            "a": "retries exhausted after 2 attempts: ValueError: no",
            "b": "by hand",
        }
        assert sorted(seen) == ["bad 1", "bad 2", "free 1", "stop 1"]
        assert broker.dead_letters("t", group="g") == []


def test_only_ordered_subscriptions_can_stop_key_lanes() -> None:
    async def handle(body: str) -> None: ...

    with pytest.raises(ConfigurationError, match="ordered"):
        App().subscriber("t", group="g", retry=Retry(exhausted="stop"))(handle)
    with pytest.raises(ConfigurationError, match="exhausted"):
        Retry(exhausted="never")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verb", "state"),
    [
        ("ack", ClaimState.DONE),
        ("nack", ClaimState.NEW),
        ("reject", ClaimState.NEW),
        ("release", ClaimState.NEW),
    ],
)
async def test_the_claim_follows_a_settlement_by_hand(verb: str, state: ClaimState) -> None:
    store = MemoryStore()
    seen: list[str] = []
    states: list[ClaimState] = []

    async def handle(message: Message, delivery: Delivery) -> None:
        seen.append(message.id)
        if len(seen) == 1:
            await getattr(delivery, verb)()
        else:
            await delivery.ack()

    def look(handler: Handler) -> Handler:
        async def looking(delivery: Delivery) -> None:
            await handler(delivery)
            key = key_of(delivery, *delivery.identity)
            claim = await store.begin(key, "another", 10)
            await store.abandon(key, "another")
            states.append(claim.state)

        return looking

    class Looked(Idempotency):
        def __call__(self, handler: Handler) -> Handler:
            return look(super().__call__(handler))

    app = App()
    app.subscriber("t", group="g", idempotency=Looked(store))(handle)
    async with TestBroker(app) as broker:
        await broker.publish("t", "x")
        await broker.advance(10)
    assert states[0] is state
    assert len(seen) == (2 if verb in ("nack", "release") else 1)


async def test_an_outage_of_a_minute_fills_no_dead_letters() -> None:
    app, handled = App(), list[int]()
    down = True

    @app.subscriber("t", group="g")
    async def store(number: int) -> None:
        if down:
            raise ConnectionError("the database restarts")
        handled.append(number)

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.broker.publish_many("t", range(5))
        await broker.advance(60)
        assert not broker.dead_letters("t", group="g")
        down = False
        await broker.advance(900)
        assert sorted(handled) == list(range(5))


@pytest.mark.parametrize("jitter", [True, False])
@pytest.mark.parametrize("initial", [0, 0.5, 1000])
@pytest.mark.parametrize("seconds", [0.01, 1, 60, 3600, 86400 * 30])
def test_a_schedule_spans_the_time_it_is_given(
    seconds: float, initial: float, jitter: bool
) -> None:
    retry = Retry.within(timedelta(seconds=seconds), initial=initial, jitter=jitter)
    longest = sum(retry.waits)
    assert (longest / 2 if jitter else longest) == pytest.approx(seconds)
    assert max(retry.waits) <= seconds / 5 + 1e-9
    assert 10 < retry.attempts < 40
    assert list(retry.waits) == sorted(retry.waits)
    assert len(retry.waits) == retry.attempts - 1


def test_a_schedule_takes_the_other_settings() -> None:
    retry = Retry.within(600, give_up_on=KeyError, exhausted="stop")
    assert (retry.give_up_on, retry.exhausted) == (KeyError, "stop")
    for wrong in (0, -1, float("nan"), timedelta(days=400)):
        with pytest.raises(ConfigurationError, match=r"Retry\.within"):
            Retry.within(wrong)


async def test_without_a_retry_the_first_failure_is_the_last() -> None:
    app, seen = App(), list[int]()

    @app.subscriber("t", group="g", retry=None)
    async def fail(delivery: Delivery) -> None:
        seen.append(delivery.attempt)
        if delivery.attempt == 1:
            raise RetryAfter(5)
        raise RuntimeError("no")

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("t", {})
        await broker.advance(300)
        (letter,) = broker.dead_letters("t", group="g")
    assert seen == [1, 2]  # `RetryAfter` still gets another attempt
    assert letter.reason == "failed without a retry: RuntimeError: no"
    assert letter.error_type == "builtins.RuntimeError"


async def test_asking_for_another_attempt_at_the_last_one_gives_up() -> None:
    app, seen = App(), list[int]()

    @app.subscriber("t", group="g", retry=Retry(attempts=2))
    async def later(delivery: Delivery) -> None:
        seen.append(delivery.attempt)
        raise RetryAfter(5, "the bank is closed")

    async with TestBroker(app) as broker:
        broker.expect_errors()
        await broker.publish("t", {})
        await broker.advance(300)
        (letter,) = broker.dead_letters("t", group="g")
    assert seen == [1, 2]
    assert letter.reason == "retries exhausted after 2 attempts: the bank is closed"


async def test_a_handler_of_a_broker_is_retried_like_one_of_an_app() -> None:
    attempts = itertools.count(1)

    async def fail(delivery: Delivery) -> None:
        assert delivery.attempt == next(attempts)
        if delivery.attempt == 3:
            delivery.set_attempt(15)  # the last of the default schedule
        raise RuntimeError("no")

    async with (
        connect("memory://") as broker,
        broker.subscribe("t", group="g", handler=fail),
    ):
        await broker.publish("t", {})
        letters = broker.admin.dead_letters("t", "g")
        (letter,) = await eventually(letters.list, bool)
    assert letter.reason == "retries exhausted after 15 attempts: RuntimeError: no"
