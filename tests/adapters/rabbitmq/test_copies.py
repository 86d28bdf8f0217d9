"""Copies keep what they carry: headers of every type, and foreign properties.

Of repeated headers RabbitMQ 4 takes the first one only. Its streams, through which letters go, keep
the bytes of a header though not its type, and neither lists nor tables.
"""

from __future__ import annotations

import pytest

from anymq import DeadLetters, Delivery
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import codec
from anymq_rabbitmq.groups import schema
from anymq_rabbitmq.positions import Log
from anymq_rabbitmq.publisher import Outgoing
from tests.adapters.rabbitmq.support import Bench
from tests.adapters.support import over_every_hop

pytestmark = pytest.mark.rabbitmq

HEADERS = [
    (b"tag", *codec.long_text("1")),
    (b"blob", ord("x"), b"\x00\x00\x00\x02\xff\x00"),
    (b"number", ord("l"), (7).to_bytes(8, "big")),
    (b"\xffname", ord("t"), b"\x01"),
    (b"list", ord("A"), b"\x00\x00\x00\x05I\x00\x00\x00\x07"),
    (b"void", ord("V"), b""),
    (b"cloudEvents:id", *codec.long_text("e1")),
    (b"cloudEvents:source", *codec.long_text("/foreign")),
    (b"cloudEvents:subject", *codec.long_text("s")),
]
SENT = {name for name, _, _ in HEADERS}
FIELDS = {
    codec.CONTENT_TYPE: codec.short_text("application/x-own"),
    codec.CONTENT_ENCODING: codec.short_text("br"),
    codec.PRIORITY: b"\x05",
    codec.CORRELATION_ID: b"\x02\xff\x01",
    codec.REPLY_TO: codec.short_text("there"),
    codec.MESSAGE_ID: codec.short_text("own id"),
    codec.TYPE: codec.short_text("own type"),
    codec.APP_ID: codec.short_text("own app"),
}
BODY = b"\x00\xff"


async def test_a_foreign_message_keeps_all_over_every_hop(bench: Bench) -> None:
    """Retry at once and later, dead letter, redrive: what comes back is what was published."""
    seen: list[tuple[dict[int, bytes], list[tuple[bytes, int, bytes]]]] = []
    bodies: list[bytes] = []
    driver = await bench.open()

    def look(delivery: Delivery) -> None:
        seen.append(_split(delivery.native.properties))
        bodies.append(delivery.native.body)

    async def buried(letters: DeadLetters) -> None:
        log = Log(schema.log_of(letters.topic), driver._consuming, driver._publisher)
        async for found, _ in log.read("first"):
            seen.extend(_split(one.properties) for one in found)

    await over_every_hop(
        bench.url, bench.name, send=lambda: _send(driver, bench.name), look=look, buried=buried
    )
    assert bodies == [BODY] * 4
    assert len(seen) == 5
    for at, (fields, headers) in enumerate(seen):
        assert {flag: fields.get(flag) for flag in FIELDS} == FIELDS
        ours = (b"cloudEvents:", b"anymq-", b"x-")
        own = [item for item in headers if item[0] in SENT or not item[0].startswith(ours)]
        if at < 3:
            assert sorted(own) == sorted(HEADERS)
        else:
            kept = [(name, value) for name, _, value in HEADERS if name != b"list"]
            assert sorted((name, value) for name, _, value in own) == sorted(kept)
    # The copies do not expire.
    assert [codec.EXPIRATION in fields for fields, _ in seen[1:]] == [False] * 4


def _split(properties: bytes) -> tuple[dict[int, bytes], list[tuple[bytes, int, bytes]]]:
    fields = codec.split(properties)
    return fields, list(codec.entries(fields[codec.HEADERS]))


async def _send(driver: RabbitMQDriver, topic: str) -> None:
    """Publish as another program does; no client that is installed can send all of this."""
    expiration = codec.short_text("3600000")
    fields = {**FIELDS, codec.HEADERS: codec.table(HEADERS), codec.EXPIRATION: expiration}
    properties = codec.join(fields)
    await driver._publisher.publish_all([Outgoing(topic, "k", properties, BODY)])
