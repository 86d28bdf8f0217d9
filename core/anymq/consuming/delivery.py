"""`Delivery`: one message in one consumer's hands, and the verbs that settle it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from ..errors import AlreadySettled, StateError, check_delay, check_reason
from ..message import Message, Receipt
from ..names import check_topic
from ..wire.cloudevents import decode
from ..wire.forged_headers import without_forged

if TYPE_CHECKING:
    from ..driver.clock import Clock
    from ..driver.records import Received
    from ..store_pool import Stores
    from .settlement import Session
    from .subscription import Subscription

Verb = Literal["ack", "nack", "reject", "release", "stop", "lapsed"]

current: ContextVar[Delivery | None] = ContextVar("anymq-delivery", default=None)
"""The delivery being handled in this context: what is published now was caused by it."""


class Delivery:
    """A message that was delivered and waits to be settled.

    Exactly one of `ack`, `nack`, `reject` and `release` ends it; the same verb again does nothing,
    a different one raises `AlreadySettled`. A verb returns once the settlement is queued in this
    process; settlements are sent in bulk, within milliseconds, and all of them before the
    subscription has closed. A crash in between repeats the delivery. A settlement that comes after
    the lease or assignment has gone is dropped: the message may be with another member by then.
    Should it come back to this subscription, it is acked at once, or shows the attempt that a
    `nack` counted.
    """

    __slots__ = ("_message", "_session", "counted", "fetched", "received", "renewed", "verb")

    def __init__(self, received: Received, session: Session, now: float) -> None:
        self.received = received
        self.fetched = now
        self.renewed = now
        self.verb: Verb | None = None
        self._session = session
        self._message: Message | None = None
        self.counted = 1 if received.fresh else 0
        """The engine's: the number of this attempt, 0 until it has begun or been asked for."""

    def __repr__(self) -> str:
        state = f" {self.verb}" if self.verb else ""
        return f"<Delivery {self.topic} {self.message.id} attempt {self.attempt}{state}>"

    @property
    def message(self) -> Message:
        """The message; decoded when first asked for."""
        if self._message is None:
            message = decode(self.received, self._session.binding, self._session.topic)
            if message.headers and self.received.published:
                message = without_forged(message, self.received.headers)
            self._message = message
        return self._message

    @property
    def identity(self) -> tuple[str | None, str]:
        """The message's source and id, which together name it; cheaper than the whole message."""
        if self._message is None:
            header, binding = self.received.header, self._session.binding
            source, id = header(binding.source), header(binding.id)
            if source and id and "%" not in source and "%" not in id:
                return source, id
        return self.message.source, self.message.id

    @property
    def topic(self) -> str:
        """The topic the message was published to."""
        return self._session.topic

    @property
    def group(self) -> str | None:
        """The group this delivery went to; None for broadcast."""
        return self._session.group

    @property
    def attempt(self) -> int:
        """The number of this attempt, 1 for the first; it survives restarts and moves."""
        return self.counted or self._session.attempt_of(self)

    @property
    def position(self) -> str:
        """Where the topic holds the message, in the broker's own words; `start` and `seek` take it.

        That of a copy (a retry on some backends) may be the copy's.
        """
        return self.received.position

    @property
    def partition(self) -> int:
        """The partition an ordered subscription read it from; 0 elsewhere."""
        return self.received.partition

    @property
    def subscription(self) -> Subscription:
        """The subscription that delivers it."""
        return self._session.subscription

    @property
    def native(self) -> Any:
        """The client library's own message object."""
        return self.received.native

    @property
    def clock(self) -> Clock:
        """The engine's clock."""
        return self._session.clock

    @property
    def stores(self) -> Stores:
        """The broker's open stores."""
        return self._session.stores

    @property
    def settled(self) -> bool:
        """Whether a verb has been used, or the message is not this member's to settle any more."""
        return self.verb is not None

    @property
    def is_over(self) -> bool:
        """The engine's: whether its lease, or what stands for one, may have gone by now."""
        return self._session.is_over(self)

    @property
    def may_be_again(self) -> bool:
        """The engine's: whether this may be another delivery of a message that was here before."""
        return bool(self._session.source.may_be_again(self.received))

    def belongs_to(self, session: Session) -> bool:
        """Whether this delivery came from `session`."""
        return self._session is session

    def count_from(self, attempt: int) -> None:
        """Set the number of this attempt: the handler is called again without a redelivery."""
        self.counted = attempt

    async def begin(self) -> bool:
        """The engine's: note that its handler begins, where that counts; False if it is lost."""
        return await self._session.begin(self)

    async def ack(self) -> None:
        """Done: never delivered to this group again."""
        if self.verb is None:
            self.done()
        else:
            self._settle("ack", lambda: self._session.ack(self))

    def done(self) -> None:
        """The engine's: `ack`, unless a verb has been used."""
        if self.verb is None:
            self.verb = "ack"
            self._session.ack(self)

    async def nack(self, delay: float | timedelta = 0.0, *, counted: bool = True) -> None:
        """A failed attempt: delivered to this group again, not before `delay` (seconds).

        The next delivery shows `attempt + 1`; with `counted=False` the same attempt. The wait
        survives the end of this process, except for broadcast: there it is in its memory. Raises
        `ConfigurationError` for what is no delay; the delivery is unsettled then.
        """
        seconds = check_delay(delay)
        attempt = self.attempt + (1 if counted else 0)
        self._settle("nack", lambda: self._session.nack(self, seconds, attempt))

    async def reject(
        self,
        reason: str = "rejected",
        *,
        error: BaseException | None = None,
        topic: str | None = None,
        traceback: bool = True,
    ) -> None:
        """Never again: to the dead letters `{topic}.{group}.dlq` (or `topic`), with the reason.

        The letter says which `error` it was, with the end of its traceback unless that is off.
        """
        check_reason(reason)
        if topic is not None:
            check_topic(topic)
        self._settle("reject", lambda: self._session.reject(self, reason, error, topic, traceback))

    async def release(self) -> None:
        """Not an attempt: given back at once, to any member, with the same `attempt`."""
        self._settle("release", lambda: self._session.release(self))

    async def stop(self, reason: str = "stopped") -> None:
        """Hold up its key until `Subscription.restart`: ordered subscriptions only.

        The message stays unsettled at the head of its lane; other keys go on. It comes back when
        the lane is restarted, or to whoever owns the partition after this member. Raises
        `StateError` where there are no lanes.
        """
        if not self._session.ordered:
            raise StateError("only an ordered subscription has lanes that can be stopped")
        check_reason(reason)
        self._settle("stop", lambda: self._session.stop(self, reason))

    async def reply(
        self,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Answer a request: whoever awaits `Broker.request` gets `payload`.

        Replying is not settling. A request that is delivered again may be answered again; the
        first answer wins. Raises `StateError` for a message that is not a request, and what
        `Broker.publish` raises.
        """
        return await self._session.requests.reply(self, payload, headers=headers, timeout=timeout)

    async def refuse(self, reason: str) -> None:
        """The middleware's: if this is a request, tell whoever asked that it was rejected."""
        await self._session.requests.refuse(self, reason)

    def restart(self) -> None:
        """The engine's: take back a `stop`."""
        self._session.restart(self)

    def wait_out(self) -> None:
        """The engine's: be handed out at the time that `Received.not_before` says."""
        self._session.wait_out(self)

    async def extend(self) -> None:
        """Still working: the lease begins anew.

        The engine does this by itself unless the subscription has `auto_extend=False`.
        """
        if self.verb is None:
            await self._session.extend([self])

    def give_back(self, delay: float) -> None:
        """The engine's: a failed attempt, unless a verb has been used; never raises."""
        if self.verb is not None:
            return
        try:
            self._settle("nack", lambda: self._session.nack(self, delay, self.attempt + 1))
        except Exception:
            self._session.abandon(self)

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
        if self.verb == "lapsed" and verb in ("ack", "nack"):
            settle()  # too late: the session notes it, should the message come back here
        if self.verb in (verb, "lapsed"):
            return
        raise AlreadySettled(f"cannot {verb} {self.message.id}: already settled by {self.verb}")
