"""`Sending`: publishes many messages, a bounded number of them at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from ..errors import AnymqError
from ..message import Receipt
from .failures import CommandError
from .outgoing import Outgoing

MOST_MESSAGES = 1000
"""The most messages that are unconfirmed at a time."""
MOST_BYTES = 32 * 1024 * 1024
"""The most bytes of their bodies, unless a single one has more."""
SECONDS_TO_CONFIRM = 1.0
"""Seconds after Ctrl-C in which messages that were sent may be confirmed."""


class Unsendable(Exception):
    """The message `number` cannot be published, and nothing of it was sent."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


@dataclass(slots=True)
class _Sent:
    number: int
    size: int
    task: asyncio.Future[Receipt]


class Sending:
    """Publishes messages, and counts those that the broker has confirmed.

    They are sent in their order, so those of one key are stored in it. After an error no further
    message is sent, and those on the way are awaited.
    """

    def __init__(
        self,
        publish: Callable[[Outgoing], Awaitable[Receipt]],
        *,
        unit: str,
        rate: float | None,
        confirmed: Callable[[Receipt], None],
    ) -> None:
        self.count = 0
        """The number of messages that the broker has confirmed."""
        self._publish = publish
        self._unit = unit
        self._interval = 0.0 if rate is None else 1 / rate
        self._confirmed = confirmed
        self._on_the_way: deque[_Sent] = deque()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._ended = False
        self._failure: tuple[int, Exception] | None = None
        self._published_after = 0
        self._failed_after = 0

    @property
    def unconfirmed(self) -> int:
        """The number of messages that were sent and may have been stored."""
        return len(self._on_the_way)

    async def run(self, messages: AsyncIterator[tuple[int, Outgoing]]) -> None:
        """Publish `messages`, each with its number.

        `messages` raises `Unsendable` for one that cannot be published. Raises a `CommandError`
        that names the message that failed, and how many were published.
        """
        sending = asyncio.ensure_future(self._send(messages))
        try:
            await self._confirm_all(sending)
        except asyncio.CancelledError:
            sending.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(SECONDS_TO_CONFIRM):
                    await self._confirm_all(sending)
            raise
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
            for sent in self._on_the_way:
                sent.task.cancel()
        if self._failure is not None:
            raise self._error(*self._failure)

    async def _send(self, messages: AsyncIterator[tuple[int, Outgoing]]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        try:
            async for number, message in messages:
                if self._interval:
                    await asyncio.sleep(due - loop.time())
                    due = max(due, loop.time() - 1.0) + self._interval
                size = len(message.body)
                await self._wait_for_room(size)
                task = asyncio.ensure_future(self._publish(message))
                self._bytes += size
                self._on_the_way.append(_Sent(number, size, task))
                self._changed.set()
        except Unsendable as error:
            self._failure = self._failure or (error.number, error)
        finally:
            self._ended = True
            self._changed.set()

    async def _wait_for_room(self, size: int) -> None:
        """Return when one more may be sent; after a wait, when the half is confirmed.

        So messages are sent in large calls, and not one for each confirmation.
        """
        most, most_bytes = MOST_MESSAGES, MOST_BYTES
        while self._on_the_way and (
            len(self._on_the_way) >= most or self._bytes + size > most_bytes
        ):
            most, most_bytes = MOST_MESSAGES // 2, MOST_BYTES // 2
            self._has_room.clear()
            await self._has_room.wait()

    async def _confirm_all(self, sending: asyncio.Future[None]) -> None:
        """Await the messages on the way in their order, until all are sent and confirmed."""
        while self._on_the_way or not self._ended:
            if not self._on_the_way:
                self._changed.clear()
                await self._changed.wait()
                continue
            sent = self._on_the_way[0]
            if not sent.task.done():
                await asyncio.wait((sent.task,))
            self._on_the_way.popleft()
            self._bytes -= sent.size
            self._has_room.set()
            try:
                receipt = sent.task.result()
            except AnymqError as error:
                if self._failure is None or sent.number < self._failure[0]:
                    self._failure = (sent.number, error)
                else:
                    self._failed_after += 1
                sending.cancel()
            else:
                self.count += 1
                if self._failure is not None and self._failure[0] < sent.number:
                    self._published_after += 1
                self._confirmed(receipt)

    def _error(self, number: int, error: Exception) -> CommandError:
        before, after = self.count - self._published_after, self._published_after
        text = f"{self._unit} {number}: {error}; published {before} before it"
        if after:
            text += f" and {after} after it"
        if self._failed_after:
            text += f"; {self._failed_after} after it failed too"
        return CommandError(text)
