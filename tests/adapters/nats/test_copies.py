"""Copies keep what they carry: headers that are not text, repeated ones, a content type."""

from __future__ import annotations

import asyncio

import pytest

import anymq
from anymq import Acknowledge, DeadLetter, Delivery, Middleware, Reject
from anymq_nats import wire
from anymq_nats.received import Delivered
from tests.adapters.nats.support import Bench
from tests.adapters.support import eventually

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
    chain: list[Middleware] = [Acknowledge(), DeadLetter()]
    mended = asyncio.Event()
    seen: list[bytes] = []
    types: list[str | None] = []

    async def handle(delivery: Delivery) -> None:
        assert isinstance(delivery.received, Delivered)
        seen.append(delivery.received.block or b"")
        types.append(delivery.message.content_type)
        if mended.is_set():
            return
        if delivery.attempt < 3:
            await delivery.nack(0.1 * (delivery.attempt - 1))
            return
        raise Reject("no")

    driver = await bench.open()
    async with anymq.connect(bench.url) as broker:
        letters = broker.admin.dead_letters(bench.name, "billing")
        async with broker.subscribe(bench.name, group="billing", handler=handle, middleware=chain):
            block = b"".join([b"NATS/1.0\r\n", *(line + b"\r\n" for line in LINES), b"\r\n"])
            total = len(block) + 4
            head = f"HPUB {bench.name} {len(block)} {total}\r\n".encode()
            driver._link.write(head + block + b"body\r\n")
            await eventually(lambda: _counts(letters, 1))
            (stored,) = await letters.list()
            assert isinstance(stored.message.original, Delivered)
            seen.append(stored.message.original.block or b"")
            mended.set()
            await letters.redrive_all()
            await eventually(lambda: _handled(types, 4))
    assert types == ["application/x-own"] * 4
    assert len(seen) == 5
    for found in seen:
        lines = wire.header_lines(found)
        assert sorted(x for x in lines if not x.lower().startswith(OURS)) == sorted(LINES)


async def _handled(types: list[str | None], count: int) -> bool:
    return len(types) == count


async def _counts(letters: anymq.DeadLetters, wanted: int) -> bool:
    return await letters.count() == wanted
