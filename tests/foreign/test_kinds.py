"""Kinds of unusual messages: the outcome of each, on every server, in every kind of group."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from anymq import Acknowledge, Broker, DeadLetter, Delivery, Letter, Message, Retry, connect
from anymq.testing.harness import random_name
from anymq.testing.tools import eventually, until
from tests.foreign.hostile import Order
from tests.foreign.raw import STORED, Foreign
from tests.foreign.support import EVERY, raw

GOOD = b'{"number":1}'
FAILS = b'{"number":1,"fails":"always"}'
UNREADABLE = "invalid payload"
GAVE_UP = "RuntimeError: no good"
NAME = "kind"
"""The header with the kind of the message."""
ALL = ("kafka", "rabbitmq", "nats", "redis")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A message and its outcome: handled without a `reason`, else a letter with that reason."""

    body: bytes | None = GOOD
    headers: Sequence[tuple[str, bytes]] = ()
    """`ce:` stands for the prefix of the broker."""
    native: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    holds: Callable[[Message], object] = bool
    """The check of the handled message, or of the one in the letter."""
    on: Sequence[str] = ALL

    def message(self, name: str, backend: str, prefix: str) -> Foreign:
        headers = [(key.replace("ce:", prefix), value) for key, value in self.headers]
        native = dict(self.native)
        if backend == "rabbitmq" and (found := dict(headers).get("content-type")):
            headers = [pair for pair in headers if pair[0] != "content-type"]
            native["properties"] = {"content_type": found.decode()} | native.get("properties", {})
        return Foreign(body=self.body, headers=[(NAME, name.encode()), *headers], **native)


def attempt(value: str) -> Kind:
    return Kind(headers=[("anymq-attempt", value.encode())], body=FAILS, reason=GAVE_UP)


def unreadable(body: bytes) -> Kind:
    return Kind(body=body, reason=UNREADABLE, holds=lambda message: message.body == body)


def time(value: str) -> Kind:
    return Kind(headers=[("ce:id", value.encode()), ("ce:time", value.encode())])


def structured(reason: str = "", **event: Any) -> Kind:
    whole = {"specversion": "1.0", "id": "s", "source": "/s", "type": "Order", **event}
    return Kind(
        body=json.dumps(whole).encode(),
        headers=[("content-type", b"application/cloudevents+json; charset=utf-8")],
        reason=reason,
        holds=lambda message: (message.source, message.type) == ("/s", "Order"),
    )


def history(value: str) -> Kind:
    headers = [("anymq-dlq-history", value.encode()), ("anymq-dlq-attempts", b"9" * 5000)]
    headers += [("anymq-dlq-topic", b"other"), ("anymq-dlq-first-seen", b"0001-01-01T00:00+14:00")]
    return Kind(headers=headers, body=FAILS, reason=GAVE_UP)


KINDS: dict[str, Kind] = {
    "an attempt with more digits than int() takes": attempt("9" * 5000),
    "an attempt of no decimal digit": attempt("²"),
    "an attempt 0": attempt("0"),
    "an attempt below 0": attempt("-1"),
    "a time before all datetimes": time("0001-01-01T00:00:00+14:00"),
    "a time after all datetimes": time("9999-12-31T23:59:59-14:00"),
    "a time that is none": time("yesterday"),
    "a time in nanoseconds": time("2026-01-02T03:04:05.123456789Z"),
    "a native time in microseconds": Kind(native={"time": 1_764_000_000_000_000}, on=["kafka"]),
    "a native time beyond all": Kind(native={"time": 2**62}, on=["kafka"]),
    "a native time of 1970": Kind(native={"time": 0}, on=["kafka"]),
    "a timestamp of the year 9999": Kind(
        native={"properties": {"timestamp": datetime(9999, 12, 31, tzinfo=UTC)}}, on=["rabbitmq"]
    ),
    "an empty id": Kind(headers=[("ce:id", b"")], holds=lambda message: message.id),
    "an id of 3,000 characters": Kind(
        headers=[("ce:id", b"i" * 3000)], holds=lambda message: len(message.id) == 3000
    ),
    "an id of control characters": Kind(
        headers=[("ce:id", b"a\x1b[31mforged")],
        body=FAILS,
        reason=GAVE_UP,
    ),
    "a header that is not UTF-8": Kind(headers=[("bin", b"\xff\xfe")], body=FAILS, reason=GAVE_UP),
    "a header with a line feed": Kind(headers=[("lf", b"a\nb")], body=FAILS, reason=GAVE_UP),
    "a header with a carriage return": Kind(headers=[("cr", b"a\rb")], body=FAILS, reason=GAVE_UP),
    "a header with NUL and ESC": Kind(
        headers=[("nul", b"a\x00\x1b[31m")], body=FAILS, reason=GAVE_UP
    ),
    "an escaped line feed in the id": Kind(
        headers=[("ce:id", b"a%0Ab"), ("ce:source", b"/s")], body=FAILS, reason=GAVE_UP
    ),
    "a header twice": Kind(
        headers=[("tag", b"1"), ("tag", b"2")], body=FAILS, reason=GAVE_UP, on=["kafka", "nats"]
    ),
    "two thousand headers": Kind(
        headers=[(f"h{number}", b"v") for number in range(2000)], body=FAILS, reason=GAVE_UP
    ),
    "a header of 60,000 bytes": Kind(headers=[("big", b"h" * 60_000)], body=FAILS, reason=GAVE_UP),
    "headers of the server's": Kind(
        headers=[("x-death", b"x"), ("x-first-death-queue", b"q"), ("x-delivery-count", b"99")],
    ),
    "a message for another group": Kind(headers=[("anymq-only-group", b"other")]),
    "a message for broadcast readers": Kind(headers=[("anymq-only-group", b"(broadcast)")]),
    "a marker": Kind(headers=[("anymq-marker", b"x")]),
    "a due time": Kind(headers=[("anymq-due", b"99999999999999")]),
    "a delay for another topic": Kind(
        headers=[("anymq-delay-to", b"other"), ("anymq-delay-at", b"1")]
    ),
    "no body": unreadable(b""),
    "a tombstone": Kind(
        body=None, native={"key": b"k"}, reason=UNREADABLE, on=["kafka"], holds=lambda m: not m.body
    ),
    "an entry without data": Kind(
        body=None,
        headers=[("number", b"1"), ("fails", b"never")],
        on=["redis"],
        holds=lambda message: json.loads(message.body)["number"] == "1",
    ),
    "JSON nested deeply": unreadable(b"[" * 20_000 + b"]" * 20_000),
    "JSON cut off, nested deeply": unreadable(b'{"number":' * 5_000),
    "a number of 20,000 digits": unreadable(b'{"number":' + b"9" * 20_000 + b"}"),
    "NaN": unreadable(b'{"number":NaN}'),
    "JSON that is not UTF-8": unreadable(b'{"number":"\xff\xfe"}'),
    "half a surrogate": unreadable(b'{"number":"\\ud800"}'),
    "a byte order mark": unreadable(b"\xef\xbb\xbf" + GOOD),
    "UTF-16": unreadable(GOOD.decode().encode("utf-16")),
    "gzip": unreadable(gzip.compress(GOOD, mtime=0)),
    "JSON of another shape": unreadable(b"[1]"),
    "a field twice": Kind(body=b'{"number":1,"number":2}'),
    "an event in structured mode": structured(data={"number": 1}),
    "a structured event in base64": structured(data_base64=b64encode(GOOD).decode()),
    "a structured event with odd attributes": structured(
        data={"number": 1}, time=5, subject=None, odd={"a": [1]}, dataschema="\ud800"
    ),
    "a structured event without data": structured(UNREADABLE),
    "a structured event with broken base64": Kind(
        body=b'{"specversion":"1.0","data_base64":"?"}',
        headers=[("content-type", b"application/cloudevents+json")],
        reason=UNREADABLE,
    ),
    "a content type of an odd encoding": Kind(
        headers=[("content-type", b"application/json; charset=latin1")],
        holds=lambda message: message.content_type == "application/json; charset=latin1",
    ),
    "a letter's history that is deep": history("[" * 20_000),
    "a letter's history of numbers": history("[1]"),
}

GROUPS: dict[str | None, bool] = {"g": False, "o": True, None: False}
"""The groups, and whether each is ordered."""
LAST = "last"


class Reader:
    """A subscription of one group, and the messages of its handler."""

    def __init__(self, broker: Broker, topic: str, group: str | None) -> None:
        self.handled: dict[str, Message] = {}
        self.attempts: dict[str, int] = {}
        self.group = group
        self.letters = broker.admin.dead_letters(topic, group)
        retry = Retry(attempts=2, initial=0.3, in_place=0, jitter=False)
        self.subscription = broker.subscribe(
            topic,
            group=group,
            handler=self.handle,
            ordered=GROUPS[group],
            concurrency=4,
            middleware=[Acknowledge(), DeadLetter(), retry],
        )

    async def handle(self, order: Order, delivery: Delivery) -> None:
        name = delivery.message.headers[NAME]
        self.attempts[name] = delivery.attempt
        if order.fails == "always":
            raise RuntimeError("no good")
        self.handled[name] = delivery.message

    async def wrong(self, kinds: dict[str, Kind]) -> list[str]:
        """Return the differences from `kinds`, once every message has an outcome."""
        await until(lambda: LAST in self.handled, within=240)
        dead = sum(bool(kind.reason) for kind in kinds.values())
        letters: list[Letter] = await eventually(
            self.letters.list, lambda found: len(found) >= dead, within=240
        )
        assert await self.letters.count() == len(letters)
        assert len([line async for line in self.letters.export()]) == len(letters)
        of = {letter.message.headers.get(NAME, ""): letter for letter in letters}
        found = {
            name: _wrong(kind, self.handled.get(name), of.get(name)) for name, kind in kinds.items()
        }
        for name, number in self.attempts.items():
            if number != (2 if name in kinds and kinds[name].reason else 1):
                found[name] = f"the last attempt was {number}"
        return [f"{self.group}: {name}: {text}" for name, text in found.items() if text]


@pytest.mark.parametrize("backend", EVERY)
async def test_each_kind_has_its_outcome(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    topic = random_name()
    kinds = {name: kind for name, kind in KINDS.items() if backend in kind.on}
    async with raw(backend) as publisher, connect(publisher.url) as broker:
        await publisher.make(topic)
        await broker.admin.declare(topic)
        readers = [Reader(broker, topic, group) for group in GROUPS]
        for reader in readers:
            await reader.subscription.__aenter__()
        sent = [kind.message(name, backend, publisher.prefix) for name, kind in kinds.items()]
        outcomes = await publisher.publish(topic, [*sent, Kind().message(LAST, backend, "")])
        assert outcomes == [STORED] * len(outcomes), dict(zip(kinds, outcomes, strict=False))
        wrong = [line for reader in readers for line in await reader.wrong(kinds)]
        assert wrong == []
        for reader in readers:
            async with asyncio.timeout(240):
                await reader.subscription.__aexit__(None, None, None)
    for line in caplog.messages:
        assert line.isprintable(), repr(line)


def _wrong(kind: Kind, handled: Message | None, letter: Letter | None) -> str:
    """Return how the outcome of a message differs from its `kind`; empty if it does not."""
    if not kind.reason:
        if handled is None:
            return f"not handled; the reason in its letter is {letter and letter.reason}"
        return "" if kind.holds(handled) else f"handled as {handled} {handled.body!r}"
    if letter is None:
        return "no letter" if handled is None else "handled"
    if kind.reason not in (letter.reason or ""):
        return f"the reason is {letter.reason}"
    return "" if kind.holds(letter.message) else f"the letter is {letter.message}"
