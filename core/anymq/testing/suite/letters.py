"""Many dead letters: found, selected, paced, cut short, exported and restored."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ...broker import Broker
from ...errors import ConfigurationError, Reject, StateError
from ...flow import correlation
from ...middleware import Acknowledge, DeadLetter, Retry
from ...operating.dead_letters import DeadLetters
from ...operating.letter import Letter
from ...operating.letter_filter import LetterFilter
from ..tools import bodies, eventually, silent, take_acked
from .base import Base
from .needs import needs
from .redrive import reject


def bodies_of(letters: list[Letter]) -> list[str]:
    """Return the bodies as text."""
    return [letter.message.body.decode() for letter in letters]


async def exported(letters: DeadLetters) -> list[dict[str, Any]]:
    """Return the letters as they are exported."""
    return [json.loads(line) async for line in letters.export()]


def parts(line: dict[str, Any]) -> dict[str, Any]:
    """Return what an export and its restoration have in common: all but the position."""
    return {name: value for name, value in line.items() if name != "position"}


@needs("replay")
class Letters(Base):
    """Dead letters in numbers, as an operator handles them."""

    async def test_letters_of_all_groups_are_found(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "x")
        chain = (Acknowledge(), DeadLetter(topic=f"{topic}.refused"))

        async def refuse(body: str) -> None:
            raise Reject("no")

        for group in ("b", "a"):
            async with broker.subscribe(topic, group=group, handler=refuse):
                own = broker.admin.dead_letters(topic, group)
                await eventually(own.count, bool)
        shared = broker.admin.dead_letters(topic, "c", stored_in=f"{topic}.refused")
        async with broker.subscribe(topic, group="c", handler=refuse, middleware=chain):
            await eventually(shared.list, bool)
        found = await broker.admin.all_dead_letters()
        origins = [each.origin for each in found if each.origin[0] == topic]
        assert origins == [(topic, "a"), (topic, "b")]
        (only,) = await broker.admin.all_dead_letters(stored_in=f"{topic}.refused")
        assert (only.origin, only.topic) == ((topic, "c"), f"{topic}.refused")
        assert len(await only.list()) == 1

    async def test_letters_are_selected_by_their_failure(self, broker: Broker, topic: str) -> None:
        async def fail(body: str) -> None:
            raise KeyError(body) if body == "a" else Reject(f"[{body}] is no Sum")

        chain = (Acknowledge(), DeadLetter(), Retry(attempts=1))
        letters = broker.admin.dead_letters(topic, "g")
        await broker.publish_many(topic, ["a", "b", "c"], key=lambda body: f"key-{body}")
        async with broker.subscribe(topic, group="g", handler=fail, middleware=chain):
            found = await eventually(letters.list, lambda seen: len(seen) == 3)
        by_body = {letter.message.body.decode(): letter for letter in found}
        hour = timedelta(hours=1)
        now = datetime.now(UTC)
        for where, selected in (
            (LetterFilter(), "abc"),
            (LetterFilter(reason="no sum"), "bc"),
            (LetterFilter(reason="[B]"), "b"),
            (LetterFilter(reason="*sum"), "bc"),
            (LetterFilter(reason="*is"), ""),
            (LetterFilter(error_type="KeyError"), "a"),
            (LetterFilter(error_type="builtins.*"), "a"),
            (LetterFilter(error_type="Error"), ""),
            (LetterFilter(since=now - hour), "abc"),
            (LetterFilter(since=now + hour), ""),
            (LetterFilter(keys=["key-b", "key-c"], reason="[c]"), "c"),
            (LetterFilter(ids=[by_body["a"].message.id, by_body["c"].position]), "ac"),
        ):
            listed = await letters.list(where=where)
            assert "".join(sorted(bodies_of(listed))) == selected, where
            assert where.selects_all is (where == LetterFilter())
        assert LetterFilter(ids=set(), keys=[]).selects_all
        with pytest.raises(ConfigurationError, match="zone"):
            LetterFilter(since=datetime(2026, 1, 1))

    async def test_letters_are_redriven_and_dropped_to_a_limit(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, [str(number) for number in range(8)])
        letters = broker.admin.dead_letters(topic, "g")
        seen: list[int] = []
        assert await letters.redrive_all(limit=3, progress=seen.append) == 3
        assert await letters.drop_all(limit=2, progress=seen.append) == 2
        assert sum(seen) == 5
        assert await letters.count() == 3

    async def test_letters_are_redriven_at_a_rate(self, broker: Broker, topic: str) -> None:
        await reject(broker, topic, [str(number) for number in range(6)])
        letters = broker.admin.dead_letters(topic, "g")
        for rate in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ConfigurationError, match="rate"):
                await letters.redrive_all(rate=rate)
        assert await letters.count() == 6
        began = time.monotonic()
        assert await letters.redrive_all(rate=10) == 6
        assert time.monotonic() - began >= 0.5
        assert await letters.count() == 0

    async def test_a_cancelled_redrive_leaves_each_letter_listed_or_redriven(
        self, broker: Broker, topic: str
    ) -> None:
        many = [f"{number:02}" for number in range(40)]
        await reject(broker, topic, many)
        letters = broker.admin.dead_letters(topic, "g")
        redriving = asyncio.ensure_future(
            letters.redrive_all(rate=50, progress=lambda _: redriving.cancel())
        )
        with pytest.raises(asyncio.CancelledError):
            await redriving
        left = set(bodies_of(await letters.list()))
        assert 0 < len(left) < 40
        async with broker.subscribe(topic, group="g") as deliveries:
            received = bodies(await take_acked(deliveries, 40 - len(left)))
            await silent(deliveries, 0.2)
        assert sorted([*left, *received]) == many

    async def test_letters_are_exported_and_restored(self, broker: Broker, topic: str) -> None:
        letters = broker.admin.dead_letters(topic, "g")
        headers = {"tenant": "a", "city": "Köln"}
        chain = (Acknowledge(), DeadLetter(), Retry(attempts=1))

        async def fail(body: bytes) -> None:
            raise ValueError("no\nsum")

        with correlation("flow-1"):
            await broker.publish(topic, b"\xff\x00\r\n", key="k", id="one", headers=headers)
        await broker.publish(topic, {"total": 1.5, "name": "Ł"}, id="two", type="Placed")
        await broker.publish(topic, b"", id="three")
        async with broker.subscribe(topic, group="g", handler=fail, middleware=chain):
            await eventually(letters.list, lambda seen: len(seen) == 3)
        lines = await exported(letters)
        assert {line["correlation_id"] for line in lines} >= {"flow-1"}
        again = [Letter.from_dict(line) for line in lines]
        assert await letters.restore(again) == 0

        assert await letters.drop_all() == 3
        seen: list[int] = []
        assert await letters.restore(again[:2]) == 2
        assert await letters.missing(again) == again[2:]
        assert await letters.restore(again, progress=seen.append) == 1
        assert sum(seen) == 3
        restored = await exported(letters)
        assert sorted(map(str, map(parts, restored))) == sorted(map(str, map(parts, lines)))
        assert await letters.redrive_all() == 3
        async with broker.subscribe(topic, group="g") as deliveries:
            received = {each.message.id: each.message for each in await take_acked(deliveries, 3)}
        assert received["one"].body == b"\xff\x00\r\n"
        assert received["one"].headers["city"] == "Köln"
        assert (received["one"].key, received["one"].correlation_id) == ("k", "flow-1")
        assert (received["two"].type, received["three"].body) == ("Placed", b"")

    async def test_each_failure_of_a_message_is_restored_once(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["a"])
        letters = broker.admin.dead_letters(topic, "g")
        (letter,) = await letters.list()
        later = {**letter.message.headers, "anymq-dlq-failed-at": "2026-11-28T10:00:00+00:00"}
        other = replace(letter, message=replace(letter.message, headers=later))
        assert await letters.restore([letter, other]) == 1
        assert await letters.restore([letter, other]) == 0
        assert await letters.restore([letter, letter]) == 1
        assert await letters.count() == 3

    async def test_letters_of_another_group_are_not_restored(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["a"])
        letters = await broker.admin.dead_letters(topic, "g").list()
        other = broker.admin.dead_letters(topic, "other")
        with pytest.raises(StateError, match="other"):
            await other.restore(letters)
        assert await other.count() == 0

    async def test_letters_are_edited_with_their_content_type(
        self, broker: Broker, topic: str
    ) -> None:
        await reject(broker, topic, ["bad"])
        letters = broker.admin.dead_letters(topic, "g")
        (letter,) = await letters.list()
        kind = letter.message.content_type
        await letters.redrive_edited(letter, b"good", content_type=kind)
        async with broker.subscribe(topic, group="g") as deliveries:
            (delivery,) = await take_acked(deliveries, 1)
        assert (delivery.message.body, delivery.message.content_type) == (b"good", kind)
