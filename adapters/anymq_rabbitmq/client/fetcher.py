"""`Consumer`: one consumer on a channel of its own, what it was delivered and has not settled."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import AMQPError, ChannelInvalidStateError

from anymq.driver import ConnectionLost

from . import wire
from .link import Channel, Link, bounded

_TAG = struct.Struct(">QB")
_LARGEST_PREFETCH = 65535
_SMALLEST = 22  # A header frame with nothing but flags.
CLOSE_TIMEOUT = 1.0
DRAIN_TIMEOUT = 5.0
ON_ITS_WAY = 0.2
"""Seconds that a delivery may take to come, after what made room for it was settled."""
LOOKS = 20
"""How often one looks meanwhile."""


class Cancelled(Exception):
    """The server has ended the consumer: its queue was deleted, or has lost its leader."""


class Delivery:
    """A message as it came, undecoded: `properties` is as `wire.split` takes it."""

    __slots__ = ("body", "consumer", "method", "properties", "redelivered", "tag")

    def __init__(self, consumer: Consumer, method: bytes) -> None:
        self.consumer = consumer
        self.method = method
        # Past the consumer's tag: all consumers on the channel are ours.
        self.tag, self.redelivered = _TAG.unpack_from(method, 5 + method[4])
        self.properties = b""
        self.body = b""

    @property
    def exchange(self) -> bytes:
        """The exchange that it was published to, as on the wire."""
        at = 14 + self.method[4]
        return self.method[at : at + 1 + self.method[at]]

    @property
    def routing_key(self) -> bytes:
        """The routing key, as on the wire."""
        at = 14 + self.method[4]
        at += 1 + self.method[at]
        return self.method[at : at + 1 + self.method[at]]


class Consumer:
    """Takes deliveries off the wire into a buffer, and acknowledges them.

    Everything belongs to the channel: once that is gone, `take` raises why, what is in the buffer
    is dropped, and settling does nothing. The server delivers it all again.
    """

    def __init__(
        self, link: Link, channel: Channel, queue: str, arguments: Mapping[str, Any]
    ) -> None:
        self._link = link
        self._channel = channel
        self.queue = queue
        self._arguments = dict(arguments)
        self._buffer: deque[Delivery] = deque()
        self._unsettled: dict[int, None] = {}
        self._settling = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None
        self._cancelled = False
        self._coming: Delivery | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._tags: list[str] = []
        self._window = 0
        self._left = 0
        """How many an earlier consumer had unsettled when this one began."""
        self._moved = monotonic()
        """When the server last had a reason to send more."""
        self._switching = asyncio.Lock()
        self.on_change: Callable[[], None] | None = None
        """Called when there may be something to take, or an error."""
        channel.tap(self._on_frame, self._sweep)
        channel.closing.add_done_callback(lambda _: self._wake())

    @classmethod
    async def open(
        cls,
        link: Link,
        queue: str,
        *,
        prefetch: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> Consumer:
        """Start consuming; on return the server has the consumer."""
        channel = await link.channel()
        consumer = cls(link, channel, queue, arguments or {})
        try:
            consumer._window = min(prefetch, _LARGEST_PREFETCH)
            await consumer._resume()
        except BaseException:
            await channel.close(CLOSE_TIMEOUT)
            raise
        return consumer

    @property
    def error(self) -> BaseException | None:
        """Why it delivers nothing any more; None while it does."""
        if not self._channel.is_open:
            return self._channel.error
        return Cancelled("RabbitMQ has cancelled the consumer") if self._cancelled else None

    @property
    def window(self) -> int:
        """How many unsettled deliveries the server lets us have."""
        return self._window

    @property
    def full(self) -> bool:
        """Whether the server can send nothing more before something is settled."""
        return len(self._unsettled) >= self._window + self._left

    async def widen(self, window: int) -> None:
        """Have the server send more: by one more consumer, for what is missing.

        The server takes the size of a consumer's window when it begins, and the quorum queues know
        none for a whole channel. To end it and begin anew would count what is on its way.
        """
        before, self._window = self._window, min(window, _LARGEST_PREFETCH)
        async with self._switching:
            if self._tags:
                await self._consume(self._window - before)

    async def narrow(self, window: int) -> None:
        """Have the server send less, from the next `take` on. Only while it is `full`: then
        nothing is on its way."""
        self._window = window
        await self.pause()

    async def take(self, limit: int, wait: float) -> list[Delivery]:
        """Take up to `limit` deliveries, waiting up to `wait` seconds for the first."""
        if not self._tags and self.error is None:
            await self._resume()
        if not self._buffer and wait > 0 and self.error is None:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(wait, self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if error := self.error:
            self._buffer.clear()
            raise error
        buffer = self._buffer
        if limit >= len(buffer):
            taken = list(buffer)
            buffer.clear()
            return taken
        return [buffer.popleft() for _ in range(limit)]

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Undo a `take`."""
        self._buffer.extendleft(reversed(deliveries))

    @property
    def unsettled(self) -> Collection[int]:
        """The tags of what was delivered and is not settled."""
        return self._unsettled.keys()

    @property
    def untaken(self) -> Collection[Delivery]:
        """What nobody has taken yet."""
        return self._buffer

    def holds(self, tag: int) -> bool:
        """Whether the delivery can still be settled."""
        return tag in self._unsettled and self._channel.is_open

    async def ack(self, tags: Collection[int]) -> bool:
        """Acknowledge those of `tags` that are unsettled: what stands first of all in one frame.

        False, and nothing is acknowledged, where the channel has gone.
        """
        async with self._settling:
            if not self._channel.is_open:
                return False
            unsettled = self._unsettled
            done = {tag for tag in tags if tag in unsettled}
            number = self._channel.number
            frames: list[bytes] = []
            prefix: list[int] = []
            for tag in unsettled:
                if tag not in done:
                    break
                prefix.append(tag)
            if prefix:
                frames.append(wire.acknowledge(number, prefix[-1], multiple=True))
            frames += (
                wire.acknowledge(number, tag, multiple=False)
                for tag in sorted(done.difference(prefix))
            )
            await self._send(frames, done)
            return True

    async def requeue(self, tags: Collection[int]) -> None:
        """Give those of `tags` that are unsettled back to the queue."""
        async with self._settling:
            if not self._channel.is_open:
                return
            done = sorted(tag for tag in tags if tag in self._unsettled)
            number = self._channel.number
            await self._send([wire.requeue(number, tag) for tag in done], done)

    async def pause(self) -> None:
        """End the deliveries until the next `take`.

        For when something is put back: it would come here again at once. And what the server has
        sent at the moment when the consumer goes away, it counts as delivered: so nothing is
        settled meanwhile, and it goes when nothing is on its way.
        """
        if not self._tags:
            return
        async with self._settling, self._switching:
            for _ in range(LOOKS):
                if self.full or self.error or monotonic() > self._moved + ON_ITS_WAY:
                    break
                await asyncio.sleep(ON_ITS_WAY / LOOKS)
            while self._tags and self.error is None:
                await self._link.call(self._channel.client.basic_cancel(self._tags.pop()))

    async def _resume(self) -> None:
        async with self._switching:
            if not self._tags:
                self._left = len(self._unsettled)
                await self._consume(self._window)

    async def _consume(self, window: int) -> None:
        client = self._channel.client
        await self._link.call(client.basic_qos(prefetch_count=window))
        answer = await self._link.call(
            client.basic_consume(self.queue, _never, arguments=self._arguments)
        )
        self._tags.append(answer.consumer_tag or "")
        self._moved = monotonic()

    async def stop(self) -> list[Delivery]:
        """End the deliveries, and return those that nobody has taken."""
        left: list[Delivery] = []
        if self.error is None:
            with suppress(TimeoutError, ConnectionLost, AMQPError, ChannelInvalidStateError):
                await bounded(self.pause(), CLOSE_TIMEOUT)
                left = list(self._buffer)
        self._buffer.clear()
        return left

    async def aclose(self) -> None:
        """Close the channel: what is unsettled goes back to the queue."""
        await self._channel.close(CLOSE_TIMEOUT)

    async def _send(self, frames: Sequence[bytes], done: Collection[int]) -> None:
        if not frames:
            return
        self._channel.transport.write(b"".join(frames))
        self._moved = monotonic()
        for tag in done:
            del self._unsettled[tag]
        await self._channel.transport.drain(DRAIN_TIMEOUT)

    def _sweep(self, data: bytes, at: int, end: int) -> int:
        """Take the deliveries that have come whole, one behind the other."""
        begun = at
        if self._coming is not None:
            return at
        number, deliver = self._channel.number, wire.DELIVER
        frame, content = wire.FRAME.unpack_from, wire.CONTENT.unpack_from
        unsettled, buffer = self._unsettled, self._buffer
        while end - at >= _SMALLEST:
            kind, channel, size = frame(data, at)
            head = at + 8 + size
            if kind != wire.METHOD or channel != number or data[at + 7 : at + 11] != deliver:
                break
            if end - head < _SMALLEST:
                break
            kind, channel, size, _, _, length = content(data, head)
            body = head + 8 + size
            if kind != wire.HEADER or channel != number or end < body:
                break
            after = body
            if length:
                after += 8 + length
                # A body of several frames is not for here.
                if end < after or frame(data, body) != (wire.BODY, number, length):
                    break
            delivery = Delivery(self, data[at + 7 : head - 1])
            delivery.properties = data[head + 19 : body - 1]
            if length:
                delivery.body = data[body + 7 : after - 1]
            unsettled[delivery.tag] = None
            buffer.append(delivery)
            at = after
        if at > begun:
            self._wake()
        return at

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        if kind == wire.METHOD:
            if payload[:4] == wire.DELIVER:
                self._coming = Delivery(self, payload)
                return True
            if payload[:4] == wire.CANCEL:
                # Not answered, as new servers allow: the channel will be closed.
                self._cancelled = True
                self._wake()
                return True
            return False
        coming = self._coming
        if coming is None:
            return False
        if kind == wire.HEADER:
            self._missing = int.from_bytes(payload[4:12], "big")
            coming.properties = payload[12:]
            if not self._missing:
                self._arrived(coming)
        else:
            self._missing -= len(payload)
            if self._missing or self._parts:
                self._parts.append(payload)
            else:
                coming.body = payload
            if not self._missing:
                self._arrived(coming)
        return True

    def _arrived(self, delivery: Delivery) -> None:
        if self._parts:
            delivery.body = b"".join(self._parts)
            self._parts = []
        self._coming = None
        self._unsettled[delivery.tag] = None
        self._buffer.append(delivery)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.on_change is not None:
            self.on_change()


async def _never(_: DeliveredMessage) -> None:
    raise AssertionError("deliveries do not pass through the client")
