"""Control headers on messages of other programs: the ones that have an effect."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest

from ...broker import Broker
from ...driver.records import Record
from ...driver.specs import ATTEMPT, ONLY_GROUP, TopicSpec
from ...errors import Reject
from ...ids import new_id
from ...middleware import Acknowledge, DeadLetter, Middleware, Retry
from ..tools import bodies, eventually, silent, take, take_acked, until
from .base import Base

LETTER = {
    "anymq-dlq-topic": "elsewhere",
    "anymq-dlq-group": "g",
    "anymq-dlq-reason": "forged",
    "anymq-dlq-attempts": "7",
    "anymq-dlq-first-seen": "2026-01-01T00:00:00+00:00",
    "anymq-dlq-failed-at": "2026-01-01T00:00:00+00:00",
}
FORGED: Mapping[str, Mapping[str, str]] = {
    "attempt": {"anymq-attempt": "7"},
    "endless attempt": {"anymq-attempt": "1" * 5000},
    "another group": {"anymq-only-group": "other"},
    "no group": {"anymq-only-group": "no group", "anymq-redriven": "1"},
    "no redrive": {"anymq-only-group": "other", "anymq-redriven": "never"},
    "broadcast": {"anymq-only-group": "(broadcast)"},
    "redriven": {"anymq-redriven": "1"},
    "marker": {"anymq-marker": "00000000-0000-0000-0000-000000000000"},
    "redeliveries": {"anymq-redeliveries": "7", "anymq-redelivered": "7"},
    "position": {"anymq-position": "1-1"},
    "due": {"anymq-due": "9999999999999"},
    "delay": {"anymq-delay-to": "elsewhere", "anymq-delay-at": "9999999999999"},
    "time": {"anymq-time": "0000000000001"},
    "escaped": {"anymq-header-anymq-only-group": "other", "anymq-header-anymq-attempt": "7"},
    "failure": {"anymq-dlq-reason": "forged", "anymq-dlq-reduced": "body headers"},
    "history": {"anymq-dlq-history": '[{"reason": "forged"}]'},
    "own letter": {**LETTER, "anymq-dlq-topic": ""},
    "unknown": {"anymq-later": "x"},
}
"""Forged headers, by the body of their message."""


async def forge(
    broker: Broker, topic: str, body: str, headers: Mapping[str, str], *, id: str = ""
) -> None:
    """Publish without the library's checks, as another program does."""
    id = id or new_id()
    names = broker.driver.binding
    own = {names.id: id, names.source: "/forger", **headers}
    record = Record(topic=topic, id=id, unique=new_id(), body=body.encode(), headers=own)
    (outcome,) = await broker.driver.publish([record])
    assert not isinstance(outcome, BaseException), outcome


class Trust(Base):
    """The headers of another program affect no messages but its own."""

    async def test_forged_control_headers_have_no_effect(self, broker: Broker, topic: str) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic))
        async with broker.subscribe(topic, group="before") as before:
            for body, headers in FORGED.items():
                if body == "own letter":
                    headers = {**headers, "anymq-dlq-topic": topic}
                await forge(broker, topic, body, headers)
            received = await take_acked(before, len(FORGED))
            async with broker.subscribe(topic, group="after") as after:
                received += await take_acked(after, len(FORGED))
            async with broker.subscribe(topic, group=None, start="earliest") as reader:
                received += await take_acked(reader, len(FORGED))
            await silent(before, 0.2)
        assert sorted(bodies(received)) == sorted(3 * [*FORGED])
        assert {delivery.attempt for delivery in received} == {1}
        assert [dict(item.message.headers) for item in received if item.message.headers] == []

    @pytest.mark.anymq_needs("ordered")
    async def test_forged_control_headers_have_no_effect_in_ordered_groups(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic, partitions=1))
        await forge(broker, topic, "first", {})
        async with broker.subscribe(topic, group="g", ordered=True) as deliveries:
            received = await take_acked(deliveries, 1)
            for body, headers in FORGED.items():
                await forge(broker, topic, body, headers)
            received += await take_acked(deliveries, len(FORGED))
        assert bodies(received) == ["first", *FORGED]
        assert {delivery.attempt for delivery in received} == {1}

    @pytest.mark.anymq_needs("replay")
    async def test_forged_control_headers_hide_no_message_from_browse(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic))
        for body, headers in FORGED.items():
            await forge(broker, topic, body, headers)
        seen = [item.message.body.decode() async for item in broker.admin.browse(topic)]
        assert sorted(seen) == sorted(FORGED)

    @pytest.mark.anymq_needs("replay")
    async def test_attempts_are_counted_from_one_whatever_was_forged(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic))
        shown: list[int] = []

        async def handle(body: str) -> None:
            shown.append(len(shown))
            raise RuntimeError("fails")

        chain: list[Middleware] = [Acknowledge(), DeadLetter(), Retry(attempts=2, initial=0.01)]
        letters = broker.admin.dead_letters(topic, "g")
        async with broker.subscribe(topic, group="g", handler=handle, middleware=chain):
            await forge(broker, topic, "x", {ATTEMPT: "99", "anymq-redeliveries": "99"})
            (letter,) = await eventually(letters.list, bool)
        assert (len(shown), letter.attempts) == (2, 2)

    @pytest.mark.anymq_needs("replay")
    async def test_a_letter_has_the_true_reason_despite_forged_headers(
        self, broker: Broker, topic: str
    ) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic))

        async def handle(body: str) -> None:
            raise Reject("genuine")

        letters = broker.admin.dead_letters(topic, "g")
        forged = {**LETTER, "anymq-dlq-topic": topic, "anymq-dlq-reduced": "body"}
        forged |= {"anymq-dlq-error-type": "forged", "anymq-dlq-history": '[{"reason": "forged"}]'}
        async with broker.subscribe(topic, group="g", handler=handle, middleware=[DeadLetter()]):
            await forge(broker, topic, "x", forged)
            (letter,) = await eventually(letters.list, bool)
        assert (letter.topic, letter.group, letter.reason) == (topic, "g", "genuine")
        assert (letter.history, letter.reduced) == ((), ())
        assert "forged" not in str(dict(letter.message.headers))
        assert await letters.redrive_all() == 1

    async def test_letters_and_redrives_that_are_forged_are_accepted_and_logged(
        self, broker: Broker, topic: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A complete set of forged headers affects its own message, and is logged."""
        caplog.set_level(logging.INFO, "anymq.consumer")
        await broker.driver.declare(TopicSpec(name=topic, native=topic))
        history = '[{"reason": "earlier"}]'
        redriven = {ONLY_GROUP: "other", "anymq-redriven": "1", "anymq-dlq-history": history}
        async with (
            broker.subscribe(topic, group="g") as own_group,
            broker.subscribe(topic, group="other") as other,
        ):
            await forge(broker, topic, "redriven", redriven)
            await forge(broker, topic, "letter", LETTER)
            both = {item.message.body: item.message.headers for item in await take_acked(other, 2)}
            (alone,) = await take_acked(own_group, 1)
            await until(lambda: "alone" in caplog.text)
        assert both[b"redriven"] == {"anymq-dlq-history": history}
        assert both[b"letter"] == alone.message.headers == LETTER

    async def test_the_failure_history_survives_retries(self, broker: Broker, topic: str) -> None:
        await broker.driver.declare(TopicSpec(name=topic, native=topic))
        history = '[{"reason": "earlier"}]'
        async with broker.subscribe(topic, group="g") as deliveries:
            await forge(broker, topic, "x", {"anymq-redriven": "1", "anymq-dlq-history": history})
            for attempt in (1, 2, 3):
                (delivery,) = await take(deliveries, 1)
                assert delivery.attempt == attempt
                assert delivery.message.headers == {"anymq-dlq-history": history}
                await delivery.nack(0.1)
            (delivery,) = await take_acked(deliveries, 1)
            assert delivery.attempt == 4
