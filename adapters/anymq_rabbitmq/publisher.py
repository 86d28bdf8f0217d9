"""`Publisher`: confirmed publishes, many at a time, each with its own outcome."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from anymq.errors import ConnectionLost, NotFound, PublishTimeout, Throttled

from . import wire
from .link import Channel, Link

_EXCHANGE = re.compile(r"exchange '(.*?)' in vhost")
_TOO_LARGE = re.compile(r"message size \d+ is larger than .*? size (\d+)")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish; `properties` as `wire.encode` or `wire.join` return them."""

    exchange: str
    routing_key: str
    properties: bytes
    body: bytes


class _Batch:
    """What one call publishes: the outcomes as they come, and a future for when all are there."""

    __slots__ = ("done", "left", "outcomes", "returned")

    def __init__(self, size: int) -> None:
        self.outcomes: list[BaseException | None] = [None] * size
        self.returned: dict[int, BaseException] = {}
        self.left = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, index: int, error: BaseException | None) -> None:
        """The server has spoken about the message at `index`."""
        self.outcomes[index] = self.returned.get(index, error) if self.returned else error
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class _Lane:
    """A channel in confirm mode, and the messages on it that have no answer yet, by their tags."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.checked: set[str] = set()
        self._tag = 0
        self._pending: dict[int, tuple[_Batch, int, Outgoing]] = {}
        self._return: tuple[str, str, str] | None = None
        channel.tap(self._on_frame)
        channel.closing.add_done_callback(lambda _: self._fail())

    def send(self, messages: Sequence[Outgoing]) -> _Batch:
        """Write `messages`; the returned batch is done when each has its outcome."""
        batch = _Batch(len(messages))
        channel = self.channel
        number, frame_max = channel.number, channel.frame_max
        frames = [
            wire.publish(
                number, m.exchange, m.routing_key, m.properties, m.body, frame_max=frame_max
            )
            for m in messages
        ]
        channel.transport.write(b"".join(frames))
        for index, message in enumerate(messages):
            self._tag += 1
            self._pending[self._tag] = (batch, index, message)
        return batch

    def give_up(self, batch: _Batch, error: Callable[[], BaseException]) -> None:
        """Settle what is left of `batch`."""
        for tag in [tag for tag, (owner, _, _) in self._pending.items() if owner is batch]:
            _, index, _ = self._pending.pop(tag)
            batch.settle(index, error())

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
        pending = self._pending
        for one in list(takewhile(lambda one: one <= tag, pending)) if multiple else (tag,):
            if (found := pending.pop(one, None)) is None:
                continue
            batch, index, message = found
            batch.settle(
                index,
                Throttled(
                    f"RabbitMQ refused the message for {message.exchange or message.routing_key!r}:"
                    " a queue is full or not available"
                )
                if refused
                else None,
            )

    def _mark(self, reason: str, exchange: str, routing_key: str, *, properties: bytes) -> None:
        """Remember that a message came back; that it did is followed by its confirmation.

        A return does not say which publish it belongs to. Of several that are equal in all it
        does say, the first without an answer is taken: they went the same way.
        """
        for batch, index, message in self._pending.values():
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
        for batch, index, message in self._pending.values():
            if blame is not None and blame(message):
                error: BaseException = reason
            else:
                error = ConnectionLost("the channel closed before RabbitMQ confirmed the message")
                error.__cause__ = reason
            batch.settle(index, error)
        self._pending.clear()


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
        batch = lane.send(messages)
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
