"""Copies keep what they carry: no body, keys and headers that are not text, repeated headers."""

from __future__ import annotations

import asyncio

import pytest

import anymq
from anymq import Acknowledge, DeadLetter, Delivery, Middleware, Reject
from tests.adapters.kafka.support import Bench
from tests.adapters.support import eventually

pytestmark = pytest.mark.kafka

KEY = b"\xfe\x00k"
HEADERS = [("tag", b"1"), ("tag", b"2"), ("blob", b"\xff\x00"), ("none", None)]


async def test_a_foreign_tombstone_keeps_all_over_every_hop(bench: Bench) -> None:
    """Retry, dead letter, redrive: the record that comes back is the one that was published."""
    chain: list[Middleware] = [Acknowledge(), DeadLetter()]
    mended, handled = asyncio.Event(), asyncio.Event()

    async def handle(delivery: Delivery) -> None:
        if mended.is_set():
            handled.set()
            return
        if delivery.attempt == 1:
            await delivery.nack()
            return
        raise Reject("no")

    async with anymq.connect(bench.url) as broker:
        await broker.admin.declare(bench.name)
        async with bench.producer() as foreign:
            first = await foreign.send_and_wait(bench.name, None, key=KEY, headers=HEADERS)
        letters = broker.admin.dead_letters(bench.name, "billing")
        async with broker.subscribe(bench.name, group="billing", handler=handle, middleware=chain):
            await eventually(lambda: _counts(letters, 1))
            mended.set()
            await letters.redrive_all()
            async with asyncio.timeout(60):
                await handled.wait()
    async with bench.consumer(bench.name, letters.topic) as other:
        found = [await other.getone() for _ in range(3)]
    for record in found:
        assert (record.key, record.value) == (KEY, None)
        own = [pair for pair in record.headers if not pair[0].startswith(("ce_", "anymq-"))]
        assert own == HEADERS
    assert {record.partition for record in found if record.topic == bench.name} == {first.partition}


async def _counts(letters: anymq.DeadLetters, wanted: int) -> bool:
    return await letters.count() == wanted
