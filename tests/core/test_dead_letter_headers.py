"""Letters and copies that the broker refuses: no loss, no busy loop, and the reason is kept."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from anymq import Broker, Delivery, MessageTooLarge, Reject
from anymq.driver import Received, Record
from anymq.middleware import Acknowledge, DeadLetter, Retry
from anymq.testing.tools import take, until
from anymq.wire.dead_letter_headers import TRACEBACK, history_of, number_of, traceback_in

from .scripted import Missing, Refused, ScriptedDriver, ScriptedSource, scripted

Both = tuple[Broker, ScriptedDriver]
BODY = b"x" * 100_000


@pytest_asyncio.fixture
async def both() -> AsyncIterator[Both]:
    broker, driver = await scripted()
    yield broker, driver
    await broker.aclose()


def put(source: ScriptedSource, body: bytes, headers: dict[str, str], place: str = "17") -> None:
    source.inbox.put_nowait(Received(body, headers, position=place, token=place))


def too_large(limit: int) -> Any:
    def refuse(record: Record) -> Exception | None:
        size = len(record.body) + sum(len(k) + len(v) for k, v in record.headers.items())
        return MessageTooLarge(f"{size} bytes") if size > limit else None

    return refuse


def unwritable(record: Record) -> Exception | None:
    bad = any(not f"{name}{value}".isprintable() for name, value in record.headers.items())
    return Refused("a line break in a header") if bad else None


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_letter_that_is_too_large_is_stored_without_its_body(
    both: Both, *, ordered: bool
) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g", ordered=ordered) as deliveries:
        source = driver.sources[0]
        source.refuses = too_large(50_000)
        put(source, BODY, {"ce-id": "m1", "tenant": "a"})
        put(source, b"small", {}, "18")
        for delivery in await take(deliveries, 2):
            await delivery.reject("the first reason")
        await until(lambda: len(source.letters) == 2)
        letters = {letter.id: letter for letter in source.letters}
        headers = letters["m1"].headers
        assert letters["m1"].body == b""
        assert headers["anymq-dlq-reduced"] == "body"
        assert headers["anymq-dlq-reason"] == "the first reason"
        assert headers["anymq-dlq-body-size"] == str(len(BODY))
        assert headers["anymq-dlq-body-sha256"] == hashlib.sha256(BODY).hexdigest()
        assert headers["anymq-dlq-position"] == "17"
        assert "bytes" in headers["anymq-dlq-refused"]
        assert headers["tenant"] == "a"
        assert letters["t@18"].body == b"small"
        assert "anymq-dlq-reduced" not in letters["t@18"].headers
        await until(lambda: deliveries.in_flight == 0)
    assert len(driver.sources) == 1


async def test_a_letter_whose_headers_are_refused_keeps_those_that_can_be_published(
    both: Both,
) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.refuses = unwritable
        bad = {"ce-id": "a\nb", "ce-type": "c\rd", "x": "1\n2", "tenant": "a", "b c": "d"}
        put(source, b"body", bad)
        (delivery,) = await take(deliveries, 1)
        await delivery.reject("bad")
        await until(lambda: source.letters)
        (letter,) = source.letters
        assert letter.body == b"body"
        assert letter.headers["tenant"] == "a"
        assert "x" not in letter.headers
        assert letter.headers["anymq-dlq-reduced"] == "headers"
        assert len(letter.headers["anymq-dlq-headers-sha256"]) == 64


async def test_a_letter_without_any_acceptable_part_is_still_stored(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.refuses = too_large(4_000)
        many = {f"anymq-dlq-{number}": "v" * 100 for number in range(4_200)}
        put(source, BODY, many | {"ce-id": "i" * 9_000})
        (delivery,) = await take(deliveries, 1)
        await delivery.reject("bad")
        await until(lambda: source.letters)
        (letter,) = source.letters
        assert letter.headers["anymq-dlq-reduced"] == "body headers"
        assert letter.headers["anymq-dlq-reason"] == "bad"
        assert letter.id.startswith("iii")


async def test_a_letter_keeps_its_body_despite_a_defect_of_the_adapter(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.refuses = lambda record: AttributeError("a defect")
        source.put("a")
        (delivery,) = await take(deliveries, 1)
        await delivery.reject("no")
        await until(lambda: source.asked)
        source.refuses = lambda record: None
        await until(lambda: source.letters)
        assert source.letters[0].body == b"a"


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_letter_that_cannot_be_stored_waits_and_its_message_is_not_handled_again(
    both: Both, *, ordered: bool
) -> None:
    broker, driver = both
    handled: list[str] = []

    async def handle(body: str) -> None:
        handled.append(body)
        if body == "bad":
            raise Reject("the first reason")

    async with broker.subscribe("t", group="g", handler=handle, ordered=ordered) as subscription:
        source = driver.sources[0]
        source.refuses = lambda record: Missing("no topic")
        source.put("bad", "good")
        await until(lambda: handled == ["bad", "good"] and subscription.in_flight == 0)
        await until(lambda: len(source.asked) == 2)
        assert source.settled("reject") == []
        source.refuses = lambda record: None
        await until(lambda: source.letters)
        assert source.letters[0].headers["anymq-dlq-reason"] == "the first reason"
        assert source.settled("reject") == ["bad"]
        assert len(source.asked) <= 4
    assert handled == ["bad", "good"]
    assert len(driver.sources) == 1


async def test_a_refused_letter_does_not_block_others(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.refuses = lambda record: Refused("x") if record.body == b"3" else None
        source.put(*map(str, range(6)))
        for delivery in await take(deliveries, 6):
            await delivery.reject("no")
        await until(lambda: len(source.letters) >= 6)
        stored = {letter.headers["ce-id"]: letter for letter in source.letters}
        reduced = {name for name, letter in stored.items() if letter.body == b""}
        assert reduced == {"t@3"}


async def test_broadcast_letters_wait_as_well(both: Both) -> None:
    broker, driver = both
    asked: list[Record] = []

    async def refuse(records: Any) -> Any:
        asked.extend(records)
        return [Missing("no topic") for _ in records]

    async with broker.subscribe("t", group=None) as deliveries:
        driver.script = refuse
        driver.sources[0].put("a")
        (delivery,) = await take(deliveries, 1)
        await delivery.reject("no")
        await until(lambda: asked)
        stored: list[Record] = []

        async def confirm(records: Any) -> Any:
            stored.extend(records)
            return ["1" for _ in records]

        driver.script = confirm
        await until(lambda: stored)
        assert stored[0].topic == "t.broadcast.dlq"


async def test_a_message_whose_copy_is_refused_is_retried_from_memory(both: Both) -> None:
    broker, driver = both
    attempts: list[int] = []

    async def handle(body: str, delivery: Delivery) -> None:
        if body == "bad":
            attempts.append(delivery.attempt)
            raise RuntimeError("no good")

    chain = (Acknowledge(), DeadLetter(), Retry(attempts=3, initial=0.05, in_place=0, jitter=False))
    async with broker.subscribe("t", group="g", handler=handle, middleware=chain) as subscription:
        source = driver.sources[0]
        source.refuses = lambda record: MessageTooLarge("x") if record.body == b"bad" else None
        source.put("bad", "good")
        await until(lambda: source.letters)
        assert attempts == [1, 2, 3]
        assert source.settled("ack") == ["good"]
        assert source.letters[0].headers["anymq-dlq-attempts"] == "3"
        assert "RuntimeError: no good" in source.letters[0].headers["anymq-dlq-reason"]
        await until(lambda: subscription.in_flight == 0)
    assert len(driver.sources) == 1


async def test_a_refused_copy_does_not_block_others(both: Both) -> None:
    broker, driver = both
    async with broker.subscribe("t", group="g") as deliveries:
        source = driver.sources[0]
        source.refuses = lambda record: Refused("x") if record.body == b"bad" else None
        source.put("a", "bad", "c")
        for delivery in await take(deliveries, 3):
            await delivery.nack()
        (again,) = await take(deliveries, 1)
        assert (again.message.body, again.attempt) == (b"bad", 2)
        assert source.settled("nack") == ["a", "c"]
        await again.ack()
        await until(lambda: source.settled("ack") == ["bad"])


async def test_the_traceback_is_omitted_before_any_other_part(both: Both) -> None:
    broker, driver = both

    async def handle(body: str) -> None:
        raise RuntimeError("no good")

    def refuses(record: Record) -> Exception | None:
        return MessageTooLarge("x") if TRACEBACK in record.headers else None

    chain = (Acknowledge(), DeadLetter(), Retry(attempts=1))
    async with broker.subscribe("t", group="g", handler=handle, middleware=chain):
        source = driver.sources[0]
        source.refuses = refuses
        source.put("bad")
        await until(lambda: source.letters)
    (letter,) = source.letters
    assert len(source.asked) == 2
    assert TRACEBACK in source.asked[0].headers
    assert TRACEBACK not in letter.headers
    assert letter.body == b"bad"
    assert "anymq-dlq-reduced" not in letter.headers


@pytest.mark.parametrize("traceback", [True, False])
async def test_the_traceback_can_be_disabled(both: Both, traceback: bool) -> None:
    broker, driver = both

    async def handle(number: int) -> None:
        raise RuntimeError("no good")

    chain = (Acknowledge(), DeadLetter(traceback=traceback), Retry(attempts=1))
    async with broker.subscribe("t", group="g", handler=handle, middleware=chain):
        source = driver.sources[0]
        put(source, b"5", {}, "1")
        put(source, b'"hunter2"', {}, "2")  # An invalid body has no traceback in any case.
        await until(lambda: len(source.letters) == 2)
    assert [TRACEBACK in letter.headers for letter in source.letters] == [traceback, False]


def test_damaged_tracebacks_are_omitted() -> None:
    for damaged in ("x", "[1]", "[" * 20_000, "9" * 5_000):
        assert traceback_in({TRACEBACK: damaged}) is None


def test_damaged_histories_are_omitted() -> None:
    for damaged in ("[1]", "[" * 20_000, "{}", "null", "x", '[{"reason": 1}]', "9" * 5_000):
        assert history_of({"anymq-dlq-history": damaged}) == []
    found = history_of({"anymq-dlq-history": '[1, {"reason": "no\\n", "x": []}]'})
    assert found == [{"reason": "no "}]


def test_large_forged_counts_are_still_read() -> None:
    assert number_of(str(2 * 999_999_999)) == 1_999_999_998


def test_numbers_beyond_their_bounds_are_omitted() -> None:
    assert [number_of(text) for text in ("3", "9" * 5_000, "-1", "", "٣", None)] == [3] + [None] * 5
