"""Copies keep what they carry: headers that are not text, repeated ones, a content type."""

from __future__ import annotations

import pytest

from anymq import DeadLetters, Delivery
from anymq_nats.client import protocol as wire
from anymq_nats.messages import Delivered
from tests.adapters.nats.support import Bench
from tests.adapters.support import over_every_hop

pytestmark = pytest.mark.nats

LINES = [
    b"tag: 1",
    b"tag: 2",
    b"blob: \xff\x00",
    b"\xffname:no blank",
    b"padded:   three blanks ",
    b"Content-Type: application/x-own",
    b"x-death: own",
]
OURS = (b"ce-", b"anymq-", b"nats-")


async def test_a_foreign_message_keeps_all_over_every_hop(bench: Bench) -> None:
    """Retry at once and later, dead letter, redrive: what comes back is what was published."""
    seen: list[bytes] = []
    types: list[str | None] = []
    driver = await bench.open()

    async def send() -> None:
        block = b"".join([b"NATS/1.0\r\n", *(line + b"\r\n" for line in LINES), b"\r\n"])
        head = f"HPUB {bench.name} {len(block)} {len(block) + 4}\r\n".encode()
        driver._connection.write(head + block + b"body\r\n")

    def look(delivery: Delivery) -> None:
        assert isinstance(delivery.received, Delivered)
        seen.append(delivery.received.block or b"")
        types.append(delivery.message.content_type)

    async def buried(letters: DeadLetters) -> None:
        (stored,) = await letters.list()
        assert isinstance(stored.message.original, Delivered)
        seen.append(stored.message.original.block or b"")

    await over_every_hop(bench.url, bench.name, send=send, look=look, buried=buried)
    assert types == ["application/x-own"] * 4
    assert len(seen) == 5
    for found in seen:
        lines = wire.header_lines(found)
        assert sorted(x for x in lines if not x.lower().startswith(OURS)) == sorted(LINES)
