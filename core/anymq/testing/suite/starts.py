"""Handler starts: the messages that a crashed process had only fetched count no attempt."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from ...broker import Broker
from ...wire import dead_letter_headers as why
from ..tools import WAIT_SECONDS, take_acked, until, worker
from .base import Base

POISON = "poison"


class Starts(Base):
    """Attempts count handlers that started, not messages that were fetched."""

    @pytest.mark.parametrize("ordered", [False, True], ids=["unordered", "ordered"])
    async def test_a_poison_message_counts_no_attempt_of_its_neighbours(
        self, killed_url: str, broker: Broker, topic: str, tmp_path: Path, ordered: bool
    ) -> None:
        if not broker.capabilities.processes or (ordered and not broker.capabilities.ordered):
            return
        attempts, names = 3, [f"n{number}" for number in range(19)]
        counted = broker.capabilities.attempt_count.is_native
        arguments = {
            "url": killed_url,
            "topic": topic,
            "group": "g",
            "marker": None if counted else f"sqlite:///{tmp_path}/marks.db",
            "attempts": attempts,
            "prefetch": 20,
            "ordered": ordered,
        }
        starts: Counter[str] = Counter()
        first: dict[str, int] = {}
        await broker.publish_many(topic, [*names[:3], POISON, *names[3:]], key=lambda body: body)
        async with broker.subscribe(f"{topic}.g.dlq", group="ops") as letters:
            taking = asyncio.create_task(take_acked(letters, 1, within=4 * WAIT_SECONDS))
            done = False
            while not done:
                async with worker("poison", **arguments) as process:
                    started = process.listen("handling")

                    def all_started(here: list[dict[str, object]] = started) -> bool:
                        return first.keys() | {event["body"] for event in here} >= {*names, POISON}

                    ended = asyncio.create_task(process.process.wait())
                    await asyncio.wait((ended, taking), return_when=asyncio.FIRST_COMPLETED)
                    ended.cancel()
                    if taking.done() and process.process.returncode is None:
                        await until(all_started)
                        done = True
                    await process.kill()
                    for event in process.said:
                        if event["event"] == "handling":
                            starts[event["body"]] += 1
                            first.setdefault(event["body"], event["attempt"])
            (letter,) = await taking
            assert letter.message.body.decode() == POISON
            assert "earlier attempts crashed" in letter.message.headers[why.REASON]
            assert letters.buffered == 0
        assert 1 < starts[POISON] <= attempts, starts
        assert first == dict.fromkeys([*names, POISON], 1)
