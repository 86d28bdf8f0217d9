"""`Publisher`: confirmed publishes, many in one call, with one outcome for each message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from anymq.driver import ConnectionLost, MessageTooLarge, NotFound, PublishTimeout, Throttled

from .client import codec
from .client.internals import Channel
from .connection import Connection

_EXCHANGE = re.compile(r"exchange '(.*?)' in vhost")
_TOO_LARGE = re.compile(r"message size \d+ is larger than .*? size (\d+)")


class Outgoing(NamedTuple):
    """A message to publish; `properties` as `codec.encode` or `codec.join` return them."""

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes


class _Batch:
    """The messages of one call, and their outcomes; their confirmations have tags from `first` on.

    Confirmed are all messages before the index `low`, and those at the indexes `ahead`. `done` is
    set when all have an outcome.
    """

    __slots__ = ("ahead", "done", "first", "low", "messages", "outcomes", "returned")

    def __init__(self, messages: Sequence[Outgoing], first: int) -> None:
        self.messages = messages
        self.first = first
        self.outcomes: list[BaseException | None] = [None] * len(messages)
        self.returned: dict[int, BaseException] = {}
        self.low = 0
        self.ahead: set[int] = set()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def open(self) -> list[int]:
        """Return the indexes of messages without an outcome."""
        return [index for index in range(self.low, len(self.messages)) if index not in self.ahead]

    def confirm(self, index: int, *, multiple: bool) -> None:
        """Record that the server has stored the message at `index`, or all up to there."""
        if multiple:
            self.low = max(self.low, min(index + 1, len(self.messages)))
        elif index > self.low:
            self.ahead.add(index)
        elif index == self.low:
            self.low += 1
        self._advance()

    def fail(self, indexes: Sequence[int], error: Callable[[Outgoing], BaseException]) -> None:
        """Record that these messages were refused, or that their outcome is unknown."""
        for index in indexes:
            self.outcomes[index] = error(self.messages[index])
        self.ahead.update(indexes)
        self._advance()

    def _advance(self) -> None:
        ahead = self.ahead
        if ahead:
            while self.low in ahead:
                ahead.discard(self.low)
                self.low += 1
        if self.low == len(self.messages) and not self.done.done():
            for index, error in self.returned.items():
                self.outcomes[index] = error
            self.done.set_result(None)


class _ConfirmChannel:
    """A channel in confirm mode, and the batches on it that are not done."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.checked: set[str] = set()
        """The exchanges that were ready for publishes."""
        self._next_tag = 1
        self._batches: list[_Batch] = []
        self._return: tuple[str, str, str] | None = None
        channel.tap(self._on_frame)
        channel.closing.add_done_callback(lambda _: self._fail())

    def send(self, messages: Sequence[Outgoing]) -> _Batch:
        """Write `messages`; the returned batch is done when each has its outcome."""
        batch = _Batch(messages, self._next_tag)
        channel = self.channel
        number, frame_max = channel.number, channel.frame_max
        frames = [
            codec.publish(number, exchange, key, properties, body, frame_max=frame_max)
            for exchange, key, properties, body in messages
        ]
        channel.transport.write(b"".join(frames))
        self._next_tag += len(messages)
        self._batches.append(batch)
        return batch

    def give_up(self, batch: _Batch, error: Callable[[], BaseException]) -> None:
        """End `batch`, with `error` for each message without an outcome."""
        if batch in self._batches:
            self._batches.remove(batch)
            batch.fail(batch.open(), lambda _: error())

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        if kind == codec.METHOD:
            method = payload[:4]
            if method in (codec.ACK, codec.NACK):
                tag, flags = int.from_bytes(payload[4:12], "big"), payload[12]
                self._on_confirmation(tag, multiple=bool(flags & 1), refused=method == codec.NACK)
                return True
            if method == codec.RETURN:
                self._return = _returned(payload)
                return True
            return False
        if self._return is None:
            return False
        if kind == codec.HEADER:  # Of the returned message. Its body, if any, follows.
            self._on_return(*self._return, properties=payload[12:])
        return True

    def _on_confirmation(self, tag: int, *, multiple: bool, refused: bool) -> None:
        ended = False
        for batch in self._batches:
            index = tag - batch.first
            if index < 0:
                break
            if index >= len(batch.messages) and not multiple:
                continue
            if refused:
                last = min(index, len(batch.messages) - 1)
                refused_ones = [one for one in batch.open() if one <= last] if multiple else [index]
                batch.fail(refused_ones, _refusal)
            else:
                batch.confirm(index, multiple=multiple)
            ended |= batch.done.done()
        if ended:
            self._batches = [batch for batch in self._batches if not batch.done.done()]

    def _on_return(
        self, reason: str, exchange: str, routing_key: str, *, properties: bytes
    ) -> None:
        """Record that a message was returned; the server confirms it afterwards.

        A return does not name its publish. Of several messages that are equal in all that it names,
        this takes the first without an outcome, because they were routed alike.
        """
        for batch, index in [(one, index) for one in self._batches for index in one.open()]:
            message = batch.messages[index]
            if (
                index not in batch.returned
                and message.exchange == exchange
                and message.routing_key == routing_key
                and _same_id(message.properties, properties)
            ):
                batch.returned[index] = NotFound(
                    f"no queue takes messages for {routing_key!r} from the exchange {exchange!r} "
                    f"({reason})"
                    if exchange
                    else f"there is no queue {routing_key!r} ({reason})"
                )
                return

    def _fail(self) -> None:
        """End all batches, because the channel is gone.

        If a message has made the server close the channel, that message has the server's error.
        """
        reason = self.channel.error
        is_cause = _cause(reason)

        def error(message: Outgoing) -> BaseException:
            if is_cause is not None and is_cause(message):
                return reason
            lost = ConnectionLost("the channel closed before RabbitMQ confirmed the message")
            lost.__cause__ = reason
            return lost

        batches, self._batches = self._batches, []
        for batch in batches:
            batch.fail(batch.open(), error)


class Publisher:
    """Publishes over a connection that consumes nothing.

    In an alarm (memory, disk) the server stops reading from a connection that publishes, so
    acknowledgements on the same one would wait as well.
    """

    def __init__(
        self, connection: Connection, *, timeout: float, check: Callable[[str], Awaitable[None]]
    ) -> None:
        """`check` raises while an exchange is not ready for publishes. It is called once for each
        exchange after each connecting."""
        self._connection = connection
        self._check = check
        self._timeout = timeout
        self._opening = asyncio.Lock()
        self._channel: _ConfirmChannel | None = None

    @property
    def obstacle(self) -> Throttled | None:
        """The alarm for which the server accepts no publishes now."""
        blocked = self._connection.blocked
        return Throttled(f"RabbitMQ blocks publishers: {blocked}") if blocked else None

    async def publish(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        """Publish persistently and return, for each, None or the error that kept it out.

        Raises if no message was sent. Batches of concurrent calls do not mix.
        """
        if not messages:
            return []
        channel = await self._ready()
        if unready := await self._unready(channel, messages):
            return await self._publish_ready(channel, messages, unready)
        return await self._send(channel, messages)

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        """Publish `messages`; raises the first error."""
        for outcome in await self.publish(messages):
            if outcome is not None:
                raise outcome

    async def _send(
        self, channel: _ConfirmChannel, messages: Sequence[Outgoing]
    ) -> list[BaseException | None]:
        try:
            batch = channel.send(messages)
        except codec.HeadersTooLarge:
            return await self._send_fitting(channel, messages)
        # Not `wait_for`: a cancelled call must not cancel the batch's future.
        await asyncio.wait((batch.done,), timeout=self._timeout)
        if not batch.done.done():
            blocked = self._connection.blocked
            why = f"publishing is blocked ({blocked})" if blocked else "no confirmation"
            channel.give_up(
                batch,
                lambda: PublishTimeout(
                    f"{why} for {self._timeout:g} s; the message may have been stored"
                ),
            )
            if blocked is None:
                self._connection.abort()
        return batch.outcomes

    async def _send_fitting(
        self, channel: _ConfirmChannel, messages: Sequence[Outgoing]
    ) -> list[BaseException | None]:
        """Send the messages whose headers fit into a frame; the others are `MessageTooLarge`."""
        room = channel.channel.frame_max - 20
        fits = [message for message in messages if len(message.properties) <= room]
        outcomes = iter(await self._send(channel, fits) if fits else ())
        return [
            next(outcomes)
            if len(message.properties) <= room
            else MessageTooLarge(
                f"headers of {len(message.properties)} bytes; a frame of RabbitMQ has room for "
                f"{room} (frame_max)"
            )
            for message in messages
        ]

    async def _unready(
        self, channel: _ConfirmChannel, messages: Sequence[Outgoing]
    ) -> dict[str, BaseException]:
        """Return the exchanges that are not ready for publishes, with the reason of each."""
        errors: dict[str, BaseException] = {}
        for exchange in {message.exchange for message in messages} - channel.checked:
            try:
                await self._check(exchange)
            except Exception as error:
                errors[exchange] = error
            else:
                channel.checked.add(exchange)
        return errors

    async def _publish_ready(
        self,
        channel: _ConfirmChannel,
        messages: Sequence[Outgoing],
        unready: dict[str, BaseException],
    ) -> list[BaseException | None]:
        sent = [message for message in messages if message.exchange not in unready]
        outcomes = iter(await self._send(channel, sent)) if sent else iter(())
        return [
            unready[message.exchange] if message.exchange in unready else next(outcomes)
            for message in messages
        ]

    async def _ready(self) -> _ConfirmChannel:
        if obstacle := self.obstacle:
            raise obstacle
        channel = self._channel
        if channel is not None and channel.channel.is_open:
            return channel
        async with self._opening:
            if self._channel is None or not self._channel.channel.is_open:
                self._channel = _ConfirmChannel(await self._connection.channel(confirms=True))
            return self._channel


def _refusal(message: Outgoing) -> BaseException:
    return Throttled(
        f"RabbitMQ refused the message for {message.exchange or message.routing_key!r}:"
        " a queue is full or not available"
    )


def _returned(payload: bytes) -> tuple[str, str, str]:
    """Return the reason, exchange and routing key of a basic.return."""
    at = 6
    texts = []
    for _ in range(3):
        end = at + 1 + payload[at]
        texts.append(codec.text(payload[at:end]) or "")
        at = end
    return texts[0], texts[1], texts[2]


def _same_id(one: bytes, other: bytes) -> bool:
    return codec.split(one).get(codec.MESSAGE_ID) == codec.split(other).get(codec.MESSAGE_ID)


def _cause(reason: BaseException) -> Callable[[Outgoing], bool] | None:
    """Return a test for the messages that made the server close the channel; None if none did."""
    if isinstance(reason, ChannelNotFoundEntity | ChannelAccessRefused):
        exchange = _EXCHANGE.search(str(reason))
        return lambda message: exchange is None or message.exchange == exchange[1]
    if isinstance(reason, ChannelPreconditionFailed):
        limit = _TOO_LARGE.search(str(reason))
        return lambda message: limit is None or len(message.body) > int(limit[1])
    return None
