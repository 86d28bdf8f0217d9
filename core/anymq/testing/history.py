"""`History`: the runs of handlers by message, time and member, and a check of their order."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..consuming.delivery import Delivery


@dataclass(frozen=True, slots=True)
class Handling:
    """One run of a handler; `ended` is None if its process died first."""

    member: str
    body: str
    attempt: int
    began: float
    ended: float | None = None
    failed: bool = False


class History:
    """A record of handled messages, whose bodies are `key/number`.

    Times are those of the machine's monotonic clock, which all processes share. `failing` maps a
    body to the number of its attempts that fail.
    """

    def __init__(self, failing: Mapping[str, int] | None = None) -> None:
        self.finished: set[str] = set()
        self.members: set[str] = set()
        self.started: list[tuple[str, int]] = []
        """Bodies and attempts, in the order in which the handlers of this process started."""
        self._handlings: list[Handling] = []
        self._failing = dict(failing or {})

    def handler(
        self, member: str, pause: Callable[[], float] = lambda: 0.0
    ) -> Callable[[Delivery], Awaitable[None]]:
        """Return a handler that takes `pause()` seconds and records its runs as `member`."""

        async def handle(delivery: Delivery) -> None:
            body = delivery.message.body.decode()
            self.members.add(member)
            self.started.append((body, delivery.attempt))
            began = time.monotonic()
            failed = True
            try:
                await asyncio.sleep(pause())
                if delivery.attempt <= self._failing.get(body, 0):
                    raise ValueError(f"{body} fails as planned")
                failed = False
            finally:
                ended = time.monotonic()
                self._note(Handling(member, body, delivery.attempt, began, ended, failed))

        return handle

    def hear(self, member: str, events: Sequence[Mapping[str, Any]]) -> None:
        """Add the events of the worker `lanes`: `handling` at a start, `handled` at an end."""
        ended = {event["began"]: event["at"] for event in events if event["event"] == "handled"}
        for event in events:
            if event["event"] == "handling":
                began = event["at"]
                self._note(
                    Handling(member, event["body"], event["attempt"], began, ended.get(began))
                )

    def _note(self, handling: Handling) -> None:
        self._handlings.append(handling)
        if handling.ended is not None and not handling.failed:
            self.finished.add(handling.body)

    def attempts(self, body: str) -> list[int]:
        """Return the attempts at `body`, in order."""
        return [attempt for started, attempt in self.started if started == body]

    def check(self, sent: Sequence[str]) -> None:
        """Assert that all of `sent` was handled, each key in order and one at a time.

        A message may be repeated after a crash, but must not overtake an earlier one.
        """
        assert self.finished >= set(sent), f"lost: {sorted(set(sent) - self.finished)[:10]}"
        lanes: dict[str, list[Handling]] = defaultdict(list)
        for handling in sorted(self._handlings, key=lambda handling: handling.began):
            lanes[handling.body.partition("/")[0]].append(handling)
        for lane in lanes.values():
            _check_lane(lane)


def _check_lane(lane: Sequence[Handling]) -> None:
    done = -1
    latest: Handling | None = None
    for handling in lane:
        number = int(handling.body.partition("/")[2])
        assert number <= done + 1, f"{handling} overtakes number {done + 1}"
        if latest is not None and latest.ended is not None:
            assert handling.began >= latest.ended, f"{handling} beside {latest}"
        latest = handling
        if handling.ended is not None and not handling.failed:
            done = max(done, number)
