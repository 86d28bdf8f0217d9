"""A stream is read while another connection makes it."""

from __future__ import annotations

import asyncio

import pytest
from aiormq.exceptions import ChannelNotFoundEntity

from anymq_rabbitmq.client.protocol import delete_queue, ensure_queue
from anymq_rabbitmq.positions import Log
from tests.adapters.rabbitmq.support import Bench

pytestmark = pytest.mark.rabbitmq

STREAMS, READERS = 12, 4
"""Without care, the server closes the readers' connection for one stream of three."""


async def read_when_made(log: Log) -> int:
    """Read the log again and again until it exists; return how many messages it contains."""
    while True:
        try:
            return sum([len(deliveries) async for deliveries, _ in log.read("first")])
        except ChannelNotFoundEntity:
            continue


async def test_a_stream_that_is_just_being_made_harms_no_connection(bench: Bench) -> None:
    maker, reader = await bench.open(declare=False), await bench.open(declare=False)
    native = reader.native
    for number in range(STREAMS):
        stream = f"{bench.name}.{number}._log"
        log = Log(stream, reader._consuming, reader._publisher)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            reading = [tasks.create_task(read_when_made(log)) for _ in range(READERS)]
            await ensure_queue(maker._consuming, stream, {"x-queue-type": "stream"})
        assert [one.result() for one in reading] == [0] * READERS
        assert reader._consuming.is_open()
        assert reader.native is native
        await delete_queue(maker._consuming, stream)
