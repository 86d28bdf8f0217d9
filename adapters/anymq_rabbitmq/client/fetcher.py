"""`Fetcher`: an AMQP consumer on its own channel, with its buffered and unsettled deliveries."""

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

from ..connection import Connection
from . import codec
from .internals import Channel, bounded

_TAG = struct.Struct(">QB")
_LARGEST_PREFETCH = 65535
_SMALLEST_HEADER_FRAME = 22
"""Bytes of a content header frame that has flags alone."""
CLOSE_TIMEOUT = 1.0
"""Seconds for the server to confirm the end of a consumer or channel."""
DRAIN_TIMEOUT = 5.0
"""Seconds for acknowledgements to be sent."""
IN_TRANSIT_SECONDS = 0.2
"""The most time that a delivery takes to arrive after a settlement has made room for it."""
IN_TRANSIT_CHECKS = 20
"""Checks in that time for a full window, which has nothing in transit."""


class ConsumerCancelled(Exception):
    """The server has ended the consumer: its queue was deleted, or has lost its leader."""


class Delivery:
    """A message as it arrived, undecoded: `properties` is as `codec.split` takes it."""

    __slots__ = ("body", "fetcher", "method", "properties", "redelivered", "tag")

    def __init__(self, fetcher: Fetcher, method: bytes) -> None:
        self.fetcher = fetcher
        self.method = method
        # Past the consumer's tag: all consumers on the channel are the fetcher's.
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


class Fetcher:
    """Buffers the deliveries of one queue or stream until they are taken, and acknowledges them.

    All state belongs to the channel. When that is gone, `take` raises the reason, buffered
    deliveries are dropped, and settling does nothing. The server delivers all of them again.
    """

    def __init__(
        self, connection: Connection, channel: Channel, queue: str, arguments: Mapping[str, Any]
    ) -> None:
        self._connection = connection
        self._channel = channel
        self.queue = queue
        self._arguments = dict(arguments)
        self._buffer: deque[Delivery] = deque()
        self._unsettled: dict[int, None] = {}
        self._settling = asyncio.Lock()
        self._waiter: asyncio.Future[None] | None = None
        self._cancelled = False
        self._partial: Delivery | None = None
        """A delivery of which not all frames have come."""
        self._body_parts: list[bytes] = []
        self._missing_bytes = 0
        self._consumer_tags: list[str] = []
        self._window = 0
        self._unsettled_before = 0
        """How many deliveries were unsettled when the present consumer started."""
        self._room_made_at = monotonic()
        """When the server last had a reason to send more."""
        self._switching = asyncio.Lock()
        self.on_change: Callable[[], None] | None = None
        """Called when there may be a delivery to take, or an error."""
        channel.tap(self._on_frame, self._on_data)
        channel.closing.add_done_callback(lambda _: self._wake())

    @classmethod
    async def open(
        cls,
        connection: Connection,
        queue: str,
        *,
        prefetch: int,
        arguments: Mapping[str, Any] | None = None,
    ) -> Fetcher:
        """Start consuming; on return the server has the consumer."""
        channel = await connection.channel()
        fetcher = cls(connection, channel, queue, arguments or {})
        try:
            fetcher._window = min(prefetch, _LARGEST_PREFETCH)
            await fetcher._resume()
        except BaseException:
            await channel.close(CLOSE_TIMEOUT)
            raise
        return fetcher

    @property
    def error(self) -> BaseException | None:
        """The reason why it delivers nothing any more; None while it does."""
        if not self._channel.is_open:
            return self._channel.error
        return ConsumerCancelled("RabbitMQ has cancelled the consumer") if self._cancelled else None

    @property
    def window(self) -> int:
        """The most unsettled deliveries that the server sends."""
        return self._window

    @property
    def full(self) -> bool:
        """Whether the server cannot send more before a delivery is settled."""
        return len(self._unsettled) >= self._window + self._unsettled_before

    async def widen(self, window: int) -> None:
        """Have the server send more, by one more consumer for the difference.

        The server takes the window of a consumer when it starts, and quorum queues have none for a
        whole channel. Restarting the consumer would count the deliveries in transit.
        """
        before, self._window = self._window, min(window, _LARGEST_PREFETCH)
        async with self._switching:
            if self._consumer_tags:
                await self._consume(self._window - before)

    async def narrow(self, window: int) -> None:
        """Have the server send less, from the next `take` on.

        Call it only while the window is `full`, because then no delivery is in transit.
        """
        self._window = window
        await self.pause()

    async def take(self, limit: int, wait: float) -> list[Delivery]:
        """Take up to `limit` deliveries, waiting up to `wait` seconds for the first."""
        if not self._consumer_tags and self.error is None:
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
        """The tags of the unsettled deliveries."""
        return self._unsettled.keys()

    @property
    def buffered(self) -> Collection[Delivery]:
        """The deliveries that have not been taken."""
        return self._buffer

    def holds(self, tag: int) -> bool:
        """Whether the delivery can still be settled."""
        return tag in self._unsettled and self._channel.is_open

    async def ack(self, tags: Collection[int]) -> bool:
        """Acknowledge the unsettled ones of `tags`; those that come first of all in one frame.

        Returns False, and acknowledges nothing, if the channel is gone.
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
                frames.append(codec.acknowledge(number, prefix[-1], multiple=True))
            frames += (
                codec.acknowledge(number, tag, multiple=False)
                for tag in sorted(done.difference(prefix))
            )
            await self._send(frames, done)
            return True

    async def requeue(self, tags: Collection[int]) -> None:
        """Return the unsettled ones of `tags` to the queue."""
        async with self._settling:
            if not self._channel.is_open:
                return
            done = sorted(tag for tag in tags if tag in self._unsettled)
            number = self._channel.number
            await self._send([codec.requeue(number, tag) for tag in done], done)

    async def pause(self) -> None:
        """Stop the deliveries until the next `take`.

        For before a message is returned, which would be delivered here again at once. The server
        counts what it sends while the consumer ends. So nothing is settled meanwhile, and the
        consumer ends when no delivery is in transit.
        """
        if not self._consumer_tags:
            return
        async with self._settling, self._switching:
            for _ in range(IN_TRANSIT_CHECKS):
                if self.full or self.error or monotonic() > self._room_made_at + IN_TRANSIT_SECONDS:
                    break
                await asyncio.sleep(IN_TRANSIT_SECONDS / IN_TRANSIT_CHECKS)
            client = self._channel.client
            while self._consumer_tags and self.error is None:
                await self._connection.call(client.basic_cancel(self._consumer_tags.pop()))

    async def stop(self) -> list[Delivery]:
        """Stop the deliveries, and return the buffered ones."""
        left: list[Delivery] = []
        if self.error is None:
            with suppress(TimeoutError, ConnectionLost, AMQPError, ChannelInvalidStateError):
                await bounded(self.pause(), CLOSE_TIMEOUT)
                left = list(self._buffer)
        self._buffer.clear()
        return left

    async def aclose(self) -> None:
        """Close the channel: unsettled deliveries return to the queue."""
        await self._channel.close(CLOSE_TIMEOUT)

    async def _resume(self) -> None:
        async with self._switching:
            if not self._consumer_tags:
                self._unsettled_before = len(self._unsettled)
                await self._consume(self._window)

    async def _consume(self, window: int) -> None:
        client = self._channel.client
        await self._connection.call(client.basic_qos(prefetch_count=window))
        answer = await self._connection.call(
            client.basic_consume(self.queue, _never, arguments=self._arguments)
        )
        self._consumer_tags.append(answer.consumer_tag or "")
        self._room_made_at = monotonic()

    async def _send(self, frames: Sequence[bytes], done: Collection[int]) -> None:
        if not frames:
            return
        self._channel.transport.write(b"".join(frames))
        self._room_made_at = monotonic()
        for tag in done:
            del self._unsettled[tag]
        await self._channel.transport.drain(DRAIN_TIMEOUT)

    def _on_data(self, data: bytes, at: int, end: int) -> int:
        """Take the whole deliveries from `at` on, one after another; see `BulkTap`."""
        begin = at
        if self._partial is not None:
            return at
        number, deliver = self._channel.number, codec.DELIVER
        frame, content = codec.FRAME.unpack_from, codec.CONTENT.unpack_from
        unsettled, buffer = self._unsettled, self._buffer
        while end - at >= _SMALLEST_HEADER_FRAME:
            kind, channel, size = frame(data, at)
            head = at + 8 + size
            if kind != codec.METHOD or channel != number or data[at + 7 : at + 11] != deliver:
                break
            if end - head < _SMALLEST_HEADER_FRAME:
                break
            kind, channel, size, _, _, length = content(data, head)
            body = head + 8 + size
            if kind != codec.HEADER or channel != number or end < body:
                break
            after = body
            if length:
                after += 8 + length
                # `_on_frame` puts a body of several frames together.
                if end < after or frame(data, body) != (codec.BODY, number, length):
                    break
            delivery = Delivery(self, data[at + 7 : head - 1])
            delivery.properties = data[head + 19 : body - 1]
            if length:
                delivery.body = data[body + 7 : after - 1]
            unsettled[delivery.tag] = None
            buffer.append(delivery)
            at = after
        if at > begin:
            self._wake()
        return at

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        if kind == codec.METHOD:
            if payload[:4] == codec.DELIVER:
                self._partial = Delivery(self, payload)
                return True
            if payload[:4] == codec.CANCEL:
                # Not answered, as new servers allow: the channel will be closed.
                self._cancelled = True
                self._wake()
                return True
            return False
        partial = self._partial
        if partial is None:
            return False
        if kind == codec.HEADER:
            self._missing_bytes = int.from_bytes(payload[4:12], "big")
            partial.properties = payload[12:]
            if not self._missing_bytes:
                self._complete(partial)
        else:
            self._missing_bytes -= len(payload)
            if self._missing_bytes or self._body_parts:
                self._body_parts.append(payload)
            else:
                partial.body = payload
            if not self._missing_bytes:
                self._complete(partial)
        return True

    def _complete(self, delivery: Delivery) -> None:
        if self._body_parts:
            delivery.body = b"".join(self._body_parts)
            self._body_parts = []
        self._partial = None
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
