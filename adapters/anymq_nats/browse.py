"""Looking at what a topic holds, without a group."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from anymq.driver import Received, Start

from .connection import Link
from .jetstream.log import StreamReader
from .positions import first_sequence, last_sequence
from .topology import Stream

_BATCH = 500
_WAIT = 2.0


async def browse(
    link: Link, stream: Stream, start: Start
) -> AsyncGenerator[Sequence[Received], None]:
    """Yield what the topic holds from `start` to its end as of now, in the order of publishing."""
    end = await last_sequence(link, stream.name)
    first = await first_sequence(link, stream.name, start)
    numbers = {stream.partition(number): number for number in range(stream.partitions)}
    reader = StreamReader(link, stream.name, stream.patterns, last=first - 1)
    try:
        await reader.open()
        while reader.pending and reader.last < end:
            taken = await reader.take(_BATCH, _WAIT)
            if not taken:
                await reader.open()  # what was there may have been trimmed meanwhile
            for record in taken:
                record.partition = numbers.get(record.subject.decode(), 0)
            if within := [record for record in taken if int(record.position) <= end]:
                yield within
    finally:
        reader.close()
