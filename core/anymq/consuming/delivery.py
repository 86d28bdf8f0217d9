"""`Delivery`: one handover of a message to a consumer, and the methods that settle it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import timedelta
from types import UnionType
from typing import Any, Literal, Protocol, TypeVar, overload

from ..driver.clock import Clock
from ..driver.records import Received
from ..driver.specs import Binding
from ..errors import AlreadySettled, check_delay, check_reason
from ..message import Message, Receipt
from ..names import check_topic
from ..store_pool import StorePool
from ..wire.cloudevents import decode
from ..wire.forged_headers import without_forged

T = TypeVar("T")

Verb = Literal["ack", "nack", "reject", "release", "stop", "expired"]


class Flow:
    """A correlation id that replaces that of the handled message, and the delivery, if any."""

    __slots__ = ("correlation_id", "delivery")

    def __init__(self, correlation_id: str, delivery: Delivery | None) -> None:
        self.correlation_id = correlation_id
        self.delivery = delivery


current: ContextVar[Delivery | Flow | None] = ContextVar("anymq-delivery", default=None)
"""The delivery that this context handles: the cause of messages published in it."""


def current_delivery() -> Delivery | None:
    """Return the delivery that is being handled, or None outside of a handler.

    Tasks that a handler starts see its delivery as well, also when it has been settled. In a
    handler of a batch it is None, because the batch has many deliveries.
    """
    found = current.get()
    return found.delivery if isinstance(found, Flow) else found


class Consumer(Protocol):
    """The subscription of a delivery, as handlers and middleware see it: see `Subscription`."""

    @property
    def topic(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    @property
    def member(self) -> str: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def failed(self) -> BaseException | None: ...
    @property
    def closing(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def paused(self) -> bool: ...
    @property
    def concurrency(self) -> int: ...
    @concurrency.setter
    def concurrency(self, value: int) -> None: ...
    @property
    def stopped(self) -> Mapping[str, str]: ...
    @property
    def buffered(self) -> int: ...

    def pause(self, *, holder: object = None) -> None: ...
    def resume(self, *, holder: object = None) -> None: ...
    def restart(self, key: str) -> None: ...
    async def aclose(self) -> None: ...

    def ahead(self, count: int) -> list[Delivery]:
        """Return up to `count` first attempts that will be dispatched next."""
        ...

    def on_release(self, call: Callable[[], Awaitable[None]]) -> None:
        """Have `call` run before buffered deliveries are released or lost to another member."""

    def begin_attempt(self, delivery: Delivery) -> None:
        """Restart the time that `Deadline` and the log of slow handlers measure."""

    def has_timed_out(self) -> bool:
        """Whether the current task was cancelled for its `Deadline`; if so, uncancel it."""
        ...

    def note_batch(self, task: Any, deliveries: Sequence[Delivery]) -> None:
        """Note that `task` handles the batch of `deliveries`."""


class Replies(Protocol):
    """The replies to requests, as a delivery sends them."""

    async def reply(
        self,
        delivery: Delivery,
        payload: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Receipt: ...

    async def refuse(self, delivery: Delivery, reason: str) -> None: ...

    def is_request(self, message: Message) -> bool: ...


class Settler(Protocol):
    """The settlement of the deliveries of one source, as a delivery calls it."""

    @property
    def topic(self) -> str: ...
    @property
    def group(self) -> str | None: ...
    @property
    def binding(self) -> Binding: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def stores(self) -> StorePool: ...
    @property
    def replies(self) -> Replies: ...
    @property
    def consumer(self) -> Consumer: ...
    @property
    def owner(self) -> Settler:
        """The settler of the source: this one, unless it stands in front of another."""
        ...

    def attempt_of(self, delivery: Delivery) -> int: ...
    async def begin(self, delivery: Delivery) -> bool: ...
    def ack(self, delivery: Delivery) -> None: ...
    def nack(self, delivery: Delivery, delay: float, attempt: int) -> None: ...
    def release(self, delivery: Delivery) -> None: ...
    def reject(
        self,
        delivery: Delivery,
        reason: str,
        error: BaseException | None,
        topic: str | None,
        with_traceback: bool,
    ) -> None: ...
    def stop(self, delivery: Delivery, reason: str) -> None: ...
    def restart(self, delivery: Delivery) -> None: ...
    def wait_out(self, delivery: Delivery) -> None: ...
    def abandon(self, delivery: Delivery) -> None: ...
    async def extend(self, deliveries: Sequence[Delivery]) -> None: ...
    def is_expired(self, delivery: Delivery) -> bool: ...
    def may_be_again(self, received: Received) -> bool: ...


class Delivery:
    """One delivery of a message, to be settled exactly once.

    Settle it with `ack`, `nack`, `reject` or `release`. Repeating the same call does nothing; a
    different one raises `AlreadySettled`. Each returns as soon as the settlement is queued in this
    process. Settlements are sent in batches within milliseconds, and all of them before the
    subscription has closed. A crash before that redelivers the message.

    A settlement after the lease or assignment has ended is ignored, because another member may own
    the message by then. If the message is redelivered to this subscription, it is acked at once, or
    shows the attempt that a `nack` counted.
    """

    __slots__ = ("_message", "_settler", "cached_attempt", "fetched", "received", "renewed", "verb")

    def __init__(self, received: Received, settler: Settler, now: float) -> None:
        self.received = received
        self.fetched = now
        self.renewed = now
        self.verb: Verb | None = None
        self._settler = settler
        self._message: Message | None = None
        self.cached_attempt = 1 if received.fresh else 0
        """Internal. The number of this attempt; 0 until it starts or `attempt` is read."""

    def __repr__(self) -> str:
        state = f" {self.verb}" if self.verb else ""
        return f"<Delivery {self.topic} {self.message.id} attempt {self.attempt}{state}>"

    @property
    def message(self) -> Message:
        """The message; decoded on first use."""
        if self._message is None:
            message = decode(self.received, self._settler.binding, self._settler.topic)
            if message.headers and self.received.published:
                message = without_forged(message, self.received.headers)
            self._message = message
        return self._message

    @overload
    def decode(self, kind: type[T]) -> T: ...
    @overload
    def decode(self, kind: UnionType) -> Any: ...

    def decode(self, kind: Any) -> Any:
        """Return the message's body as `kind`, see `Message.decode`."""
        return self.message.decode(kind)

    @property
    def identity(self) -> tuple[str | None, str]:
        """The message's source and id, which together name it. Cheaper than the whole message."""
        if self._message is None:
            header, binding = self.received.header, self._settler.binding
            source, id = header(binding.source), header(binding.id)
            if source and id and "%" not in source and "%" not in id:
                return source, id
        return self.message.source, self.message.id

    @property
    def topic(self) -> str:
        """The topic that the message was published to."""
        return self._settler.topic

    @property
    def group(self) -> str | None:
        """The group that this delivery went to; None for broadcast."""
        return self._settler.group

    @property
    def attempt(self) -> int:
        """The number of this attempt, 1 for the first.

        It is preserved across restarts, and when a message moves to another member.
        """
        return self.cached_attempt or self._settler.attempt_of(self)

    @property
    def position(self) -> str:
        """The position of the message in its topic, in the broker's notation.

        `start` and `seek` take it. The position of a copy (a retry on some backends) may be the
        copy's own.
        """
        return self.received.position

    @property
    def partition(self) -> int:
        """The partition that an ordered subscription read it from; 0 elsewhere."""
        return self.received.partition

    @property
    def subscription(self) -> Consumer:
        """The `Subscription` that delivers it."""
        return self._settler.consumer

    @property
    def native(self) -> Any:
        """The client library's own message object."""
        return self.received.native

    @property
    def clock(self) -> Clock:
        """The clock of the connection."""
        return self._settler.clock

    @property
    def stores(self) -> StorePool:
        """The open idempotency stores of the broker."""
        return self._settler.stores

    @property
    def settled(self) -> bool:
        """Whether it has been settled, or this member no longer owns the message."""
        return self.verb is not None

    @property
    def is_expired(self) -> bool:
        """Internal. Whether its lease, session or connection may have ended by now."""
        return self._settler.is_expired(self)

    @property
    def may_be_again(self) -> bool:
        """Internal. Whether this subscription may have had an earlier delivery of the message."""
        return self._settler.may_be_again(self.received)

    def belongs_to(self, settler: Settler) -> bool:
        """Whether this delivery came from the source of `settler`."""
        return self._settler.owner is settler

    def settle_through(self, front: Callable[[Settler], Settler]) -> None:
        """Internal, for the testing kit. Put what `front` returns in front of the settler."""
        self._settler = front(self._settler.owner)

    def set_attempt(self, attempt: int) -> None:
        """Set the number of this attempt: the handler is called again without a redelivery."""
        self.cached_attempt = attempt

    async def begin(self) -> bool:
        """Internal. Count the start of its handler if needed; False if the delivery is lost."""
        return await self._settler.begin(self)

    async def ack(self) -> None:
        """Acknowledge: the message is never delivered to this group again."""
        if self.verb is None:
            self.completed()
        else:
            self._settle("ack", lambda: self._settler.ack(self))

    def completed(self) -> None:
        """Internal. Acknowledge, unless it is settled."""
        if self.verb is None:
            self.verb = "ack"
            self._settler.ack(self)

    async def nack(self, delay: float | timedelta = 0.0, *, counted: bool = True) -> None:
        """Negatively acknowledge: redeliver to this group, not before `delay` (seconds).

        The next delivery shows `attempt + 1`; with `counted=False` the same attempt. The delay
        survives the end of this process, except for broadcast, which keeps it in memory. Raises
        `ConfigurationError` for an invalid delay; the delivery is unsettled then.
        """
        seconds = check_delay(delay)
        attempt = self.attempt + (1 if counted else 0)
        self._settle("nack", lambda: self._settler.nack(self, seconds, attempt))

    async def reject(
        self,
        reason: str = "rejected",
        *,
        error: BaseException | None = None,
        topic: str | None = None,
        traceback: bool = True,
    ) -> None:
        """Reject: move the message to the dead letters `{topic}.{group}.dlq` (or `topic`).

        The dead letter has the reason and the type and text of `error`, with the end of its
        traceback unless that is off.
        """
        check_reason(reason)
        if topic is not None:
            check_topic(topic)
        self._settle("reject", lambda: self._settler.reject(self, reason, error, topic, traceback))

    async def release(self) -> None:
        """Return the message to its group at once, without counting an attempt.

        Any member may receive it, with the same `attempt`. In an ordered subscription it stays with
        this member, and in a broadcast one it is redelivered from memory.
        """
        self._settle("release", lambda: self._settler.release(self))

    async def stop(self, reason: str = "stopped") -> None:
        """Stop the message's key until `Subscription.restart`: ordered subscriptions only.

        The message stays unsettled at the head of its key lane; other keys continue. It is
        delivered again when the key is restarted, or to the next owner of the partition. Raises
        `StateError` for an unordered subscription.
        """
        check_reason(reason)
        self._settle("stop", lambda: self._settler.stop(self, reason))

    @property
    def is_request(self) -> bool:
        """Whether the message is a request, which `reply` answers."""
        return self._settler.replies.is_request(self.message)

    async def reply(
        self,
        payload: Any,
        *,
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Reply to a request: `Broker.request` returns `payload` to its caller.

        Replying is not settling. A request that is delivered again may be answered again; the
        first reply wins. `id` is that of the reply, by default a new one. Raises `StateError` for a
        message that is not a request, and what `Broker.publish` raises.
        """
        replies = self._settler.replies
        return await replies.reply(self, payload, id=id, headers=headers, timeout=timeout)

    async def refuse(self, reason: str) -> None:
        """Internal, for middleware. If this is a request, reply that it was rejected."""
        await self._settler.replies.refuse(self, reason)

    def restart(self) -> None:
        """Internal. Undo a `stop`."""
        self._settler.restart(self)

    def wait_out(self) -> None:
        """Internal. Have it dispatched at the time of `Received.not_before`."""
        self._settler.wait_out(self)

    async def extend(self) -> None:
        """Renew the lease, because the message is still being processed.

        anymq does this by itself unless the subscription has `auto_extend=False`.
        """
        if self.verb is None:
            await self._settler.extend([self])

    def nack_if_unsettled(self, delay: float) -> None:
        """Internal. Count a failed attempt, unless it is settled; never raises."""
        if self.verb is not None:
            return
        try:
            self._settle("nack", lambda: self._settler.nack(self, delay, self.attempt + 1))
        except Exception:
            self._settler.abandon(self)

    def _settle(self, verb: Verb, settle: Callable[[], None]) -> None:
        """Settle, once; if `settle` raises the delivery stays unsettled."""
        if self.verb is None:
            self.verb = verb
            try:
                settle()
            except BaseException:
                self.verb = None
                raise
            return
        if self.verb == "expired" and verb in ("ack", "nack"):
            settle()  # The settler notes it, in case this subscription gets the message again.
        if self.verb in (verb, "expired"):
            return
        raise AlreadySettled(f"cannot {verb} {self.message.id}: already settled by {self.verb}")


Handler = Callable[[Delivery], Awaitable[None]]
"""A function that takes a delivery. Returning is success, raising is failure."""
