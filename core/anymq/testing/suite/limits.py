"""Limits: invalid input is refused before it is sent, and the connection stays usable."""

from __future__ import annotations

import os
from typing import Any

import pytest

from ...broker import Broker
from ...errors import ConfigurationError, MessageTooLarge
from ...topic import Topic
from ..tools import bodies, take, take_acked
from .base import Base

MAX_BODY_BYTES = 1_000_000
"""The default maximum size of a body in bytes."""
HOSTILE_NAMES = [
    "",
    " ",
    "a b",
    "a\r\nPUB b 0",
    "a\x00b",
    "*",
    "orders.*",
    "orders.>",
    "orders.#",
    "$JS.API.STREAM.DELETE.orders",
    ".a",
    "a.",
    "a..b",
    "-a",
    "_a",
    "a/b",
    "../a",
    "ä",
    "a" * 201,
    "amq'; DROP TABLE messages;--",
    "{a}",
]
HOSTILE_HEADERS: list[dict[Any, Any]] = [
    {"a b": "v"},
    {"": "v"},
    {"a:b": "v"},
    {"a\r\nb": "v"},
    {"ä": "v"},
    {"a": "v\r\nX: y"},
    {"a": "v\x00"},
    {"a": "\ud800"},
    {"a": 1},
    {"Nats-Rollup": "all"},
    {"nats-msg-id": "x"},
    {"x-death": "x"},
    {"anymq-attempt": "9"},
    {"ce-id": "x"},
    {"ce_id": "x"},
    {"data": "x"},
    {"content-type": "x"},
]


class Limits(Base):
    """Limits of names, headers, keys, sizes and payloads."""

    async def test_hostile_names_are_refused(self, broker: Broker, topic: str) -> None:
        for name in HOSTILE_NAMES:
            with pytest.raises(ConfigurationError):
                await broker.publish(name, "x")
            with pytest.raises(ConfigurationError):
                broker.subscribe(name, group="g")
            if "." not in name and name != "a" * 201:
                with pytest.raises(ConfigurationError):
                    broker.subscribe(topic, group=name)
        await self._usable(broker, topic)

    async def test_hostile_headers_and_keys_are_refused(self, broker: Broker, topic: str) -> None:
        for headers in HOSTILE_HEADERS:
            with pytest.raises(ConfigurationError):
                await broker.publish(topic, "x", headers=headers)
        for key in ("a\nb", "\x00", "\ud800"):
            with pytest.raises(ConfigurationError):
                await broker.publish(topic, "x", key=key)
            with pytest.raises(ConfigurationError):
                await broker.publish(topic, "x", id=key)
        for many in ({f"h{n}": "v" for n in range(65)}, {"h": "v" * 5000}):
            with pytest.raises(MessageTooLarge):
                await broker.publish(topic, "x", headers=many)
        await self._usable(broker, topic)

    async def test_an_oversize_body_is_refused(self, broker: Broker, topic: str) -> None:
        with pytest.raises(MessageTooLarge, match="1000001"):
            await broker.publish(topic, b"x" * (MAX_BODY_BYTES + 1))
        with pytest.raises(MessageTooLarge):
            await broker.publish_many(topic, [b"small", b"x" * (MAX_BODY_BYTES + 1)])
        await self._usable(broker, topic)

    async def test_the_largest_body_survives_every_settlement(
        self, broker: Broker, topic: str
    ) -> None:
        body = os.urandom(MAX_BODY_BYTES)
        headers = {f"header-{number}": "v" * 500 for number in range(15)}
        async with broker.subscribe(topic, group="g") as deliveries:
            await broker.publish(topic, body, headers=headers)
            for verb in ("release", "nack", "delayed", "reject"):
                (delivery,) = await take(deliveries, 1)
                assert delivery.message.body == body
                if verb == "reject":
                    await delivery.reject("because " * 100)
                elif verb == "release":
                    await delivery.release()
                else:
                    await delivery.nack(0.3 if verb == "delayed" else 0)
        async with broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            (letter,) = await take_acked(letters, 1)
        assert letter.message.body == body
        assert letter.message.headers["header-0"] == "v" * 500

    async def test_payloads_of_the_wrong_type_are_refused(self, broker: Broker, topic: str) -> None:
        with pytest.raises(ConfigurationError):
            await broker.publish(topic, object())
        integers: Topic[Any] = Topic(topic, int)
        with pytest.raises(ConfigurationError, match="carries int, not str"):
            await broker.publish(integers, "one")
        await self._usable(broker, topic)

    async def test_invalid_subscribe_arguments_are_refused(
        self, broker: Broker, topic: str
    ) -> None:
        bad: list[dict[str, Any]] = [
            {"start": ""},
            {"start": 3},
            {"concurrency": 0},
            {"prefetch": 0},
            {"ack_deadline": 0},
            {"handler": print},
        ]
        for arguments in bad:
            with pytest.raises(ConfigurationError):
                broker.subscribe(topic, group="g", **arguments)

    async def _usable(self, broker: Broker, topic: str) -> None:
        await broker.publish(topic, "fine")
        async with broker.subscribe(topic, group="g") as deliveries:
            assert bodies(await take_acked(deliveries, 1)) == ["fine"]
