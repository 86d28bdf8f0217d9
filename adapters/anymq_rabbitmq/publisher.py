"""`Publisher`: confirmed publishes, many at a time, each with its own outcome."""

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

from . import wire
from .link import Channel, Link

_EXCHANGE = re.compile(r"exchange '(.*?)' in vhost")
_TOO_LARGE = re.compile(r"message size \d+ is larger than .*? size (\d+)")


class Outgoing(NamedTuple):
    """A message to publish; `properties` as `wire.encode` or `wire.join` return them."""

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes


class _Batch:
    """What one call publishes, whose tags begin with `first`: the outcomes as they come, and a
    future for when all are there.

    Confirmed is all before `low`, and of the rest `ahead`: by indexes.
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
        """The indexes of those without an answer."""
        return [index for index in range(self.low, len(self.messages)) if index not in self.ahead]

    def confirm(self, index: int, *, multiple: bool) -> None:
        """The server has taken the message at `index`, or all up to there."""
        if multiple:
            self.low = max(self.low, min(index + 1, len(self.messages)))
        elif index > self.low:
            self.ahead.add(index)
        elif index == self.low:
            self.low += 1
        self._advance()

    def fail(self, indexes: Sequence[int], error: Callable[[Outgoing], BaseException]) -> None:
        """These were not taken, or nobody knows."""
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


class _Lane:
    """A channel in confirm mode, and the batches on it that have not all of their answers yet."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.checked: set[str] = set()
        self._next = 1
        self._batches: list[_Batch] = []
        self._return: tuple[str, str, str] | None = None
        channel.tap(self._on_frame)
        channel.closing.add_done_callback(lambda _: self._fail())

    def send(self, messages: Sequence[Outgoing]) -> _Batch:
        """Write `messages`; the returned batch is done when each has its outcome."""
        batch = _Batch(messages, self._next)
        channel = self.channel
        number, frame_max = channel.number, channel.frame_max
        frames = [
            wire.publish(number, exchange, key, properties, body, frame_max=frame_max)
            for exchange, key, properties, body in messages
        ]
        channel.transport.write(b"".join(frames))
        self._next += len(messages)
        self._batches.append(batch)
        return batch

    def give_up(self, batch: _Batch, error: Callable[[], BaseException]) -> None:
        """Settle what is left of `batch`."""
        if batch in self._batches:
            self._batches.remove(batch)
            batch.fail(batch.open(), lambda _: error())

    def _on_frame(self, kind: int, payload: bytes) -> bool:
        if kind == wire.METHOD:
            method = payload[:4]
            if method in (wire.ACK, wire.NACK):
                tag, flags = int.from_bytes(payload[4:12], "big"), payload[12]
                self._answered(tag, multiple=bool(flags & 1), refused=method == wire.NACK)
                return True
            if method == wire.RETURN:
                self._return = _returned(payload)
                return True
            return False
        if self._return is None:
            return False
        if kind == wire.HEADER:  # Of the returned message. Its body, if any, follows.
            self._mark(*self._return, properties=payload[12:])
        return True

    def _answered(self, tag: int, *, multiple: bool, refused: bool) -> None:
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

    def _mark(self, reason: str, exchange: str, routing_key: str, *, properties: bytes) -> None:
        """Remember that a message came back; that it did is followed by its confirmation.

        A return does not say which publish it belongs to. Of several that are equal in all it
        does say, the first without an answer is taken: they went the same way.
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
        """The channel is gone: lay the blame on the message that closed it, if one did."""
        reason = self.channel.error
        blame = _blame(reason)

        def error(message: Outgoing) -> BaseException:
            if blame is not None and blame(message):
                return reason
            lost = ConnectionLost("the channel closed before RabbitMQ confirmed the message")
            lost.__cause__ = reason
            return lost

        batches, self._batches = self._batches, []
        for batch in batches:
            batch.fail(batch.open(), error)


class Publisher:
    """Publishes over a connection of its own: the server stops reading from one that publishes
    when memory or disk run out, and then acknowledgements on the same would wait as well."""

    def __init__(
        self, link: Link, *, timeout: float, check: Callable[[str], Awaitable[None]]
    ) -> None:
        """`check` raises while an exchange is not ready for publishes. It is asked once for each
        exchange after each connecting."""
        self._link = link
        self._check = check
        self._timeout = timeout
        self._opening = asyncio.Lock()
        self._lane: _Lane | None = None

    @property
    def obstacle(self) -> Throttled | None:
        """The alarm for which the server takes no publishes now."""
        blocked = self._link.blocked
        return Throttled(f"RabbitMQ blocks publishers: {blocked}") if blocked else None

    async def publish(self, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        """Publish persistently and return, for each, None or the error that kept it out.

        Raises if no message was sent. Batches of concurrent calls do not mix.
        """
        if not messages:
            return []
        lane = await self._ready()
        if unready := await self._unready(lane, messages):
            return await self._publish_ready(lane, messages, unready)
        return await self._send(lane, messages)

    async def publish_all(self, messages: Sequence[Outgoing]) -> None:
        """Publish `messages`; raises the first error."""
        for outcome in await self.publish(messages):
            if outcome is not None:
                raise outcome

    async def _send(self, lane: _Lane, messages: Sequence[Outgoing]) -> list[BaseException | None]:
        try:
            batch = lane.send(messages)
        except wire.HeadersTooLarge:
            return await self._send_fitting(lane, messages)
        # Not wait_for: the call may be given up, the batch goes on.
        await asyncio.wait((batch.done,), timeout=self._timeout)
        if not batch.done.done():
            blocked = self._link.blocked
            why = f"publishing is blocked ({blocked})" if blocked else "no confirmation"
            lane.give_up(
                batch,
                lambda: PublishTimeout(
                    f"{why} for {self._timeout:g} s; the message may have been stored"
                ),
            )
            if blocked is None:
                self._link.abort()
        return batch.outcomes

    async def _send_fitting(
        self, lane: _Lane, messages: Sequence[Outgoing]
    ) -> list[BaseException | None]:
        """Send those whose headers have room in a frame."""
        room = lane.channel.frame_max - 20
        fits = [message for message in messages if len(message.properties) <= room]
        outcomes = iter(await self._send(lane, fits) if fits else ())
        return [
            next(outcomes)
            if len(message.properties) <= room
            else MessageTooLarge(
                f"headers of {len(message.properties)} bytes; a frame of RabbitMQ has room for "
                f"{room} (frame_max)"
            )
            for message in messages
        ]

    async def _unready(self, lane: _Lane, messages: Sequence[Outgoing]) -> dict[str, BaseException]:
        errors: dict[str, BaseException] = {}
        for exchange in {message.exchange for message in messages} - lane.checked:
            try:
                await self._check(exchange)
            except Exception as error:
                errors[exchange] = error
            else:
                lane.checked.add(exchange)
        return errors

    async def _publish_ready(
        self, lane: _Lane, messages: Sequence[Outgoing], unready: dict[str, BaseException]
    ) -> list[BaseException | None]:
        sent = [message for message in messages if message.exchange not in unready]
        outcomes = iter(await self._send(lane, sent)) if sent else iter(())
        return [
            unready[message.exchange] if message.exchange in unready else next(outcomes)
            for message in messages
        ]

    async def _ready(self) -> _Lane:
        if obstacle := self.obstacle:
            raise obstacle
        lane = self._lane
        if lane is not None and lane.channel.is_open:
            return lane
        async with self._opening:
            if self._lane is None or not self._lane.channel.is_open:
                self._lane = _Lane(await self._link.channel(confirms=True))
            return self._lane


def _refusal(message: Outgoing) -> BaseException:
    return Throttled(
        f"RabbitMQ refused the message for {message.exchange or message.routing_key!r}:"
        " a queue is full or not available"
    )


def _returned(payload: bytes) -> tuple[str, str, str]:
    at = 6
    texts = []
    for _ in range(3):
        end = at + 1 + payload[at]
        texts.append(wire.text(payload[at:end]) or "")
        at = end
    return texts[0], texts[1], texts[2]


def _same_id(one: bytes, other: bytes) -> bool:
    return wire.split(one).get(wire.MESSAGE_ID) == wire.split(other).get(wire.MESSAGE_ID)


def _blame(reason: BaseException) -> Callable[[Outgoing], bool] | None:
    """Which messages are the cause of `reason`, that closed the channel; None if none is."""
    if isinstance(reason, ChannelNotFoundEntity | ChannelAccessRefused):
        exchange = _EXCHANGE.search(str(reason))
        return lambda message: exchange is None or message.exchange == exchange[1]
    if isinstance(reason, ChannelPreconditionFailed):
        limit = _TOO_LARGE.search(str(reason))
        return lambda message: limit is None or len(message.body) > int(limit[1])
    return None
