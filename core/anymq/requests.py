"""`Requests`: asking, and getting the answer, over any backend.

All requesters share one reply topic, which each process reads as broadcast, from its first request
on. A request says in two extension attributes of CloudEvents where its reply goes, `replyto` (the
topic) and `replyinbox` (the process); they travel with retries. The reply carries the inbox, and
the id of the request as its cause. Whoever reads a reply for another inbox drops it. A requester
that dies leaves nothing behind but replies, for as long as the topic keeps them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from .consuming.delivery import Delivery
from .errors import (
    AnymqError,
    Closed,
    ConfigurationError,
    PublishTimeout,
    Reject,
    RequestFailed,
    RequestTimeout,
    StateError,
)
from .ids import new_id
from .logs import logger
from .message import Message, Receipt
from .middleware.acknowledge import Acknowledge
from .names import check_topic
from .payload import check_annotation, decode_payload
from .topic import Topic, as_topic
from .wire.dead_letter_headers import text

if TYPE_CHECKING:
    from .broker import Broker
    from .consuming.subscription import Subscription

log = logger("anymq.requests")

REPLY_TO = "ce-replyto"
INBOX = "ce-replyinbox"
ERROR = "ce-replyerror"

KEPT = timedelta(hours=1)
REFUSAL_TIMEOUT = 5.0


class MakeMessage(Protocol):
    """`Broker`'s own: the message that publishing `payload` would send, checked."""

    def __call__(
        self,
        topic: Topic[Any],
        payload: Any,
        key: str | None,
        headers: Mapping[str, str] | None,
        id: str | None,
        type: str | None,
        /,
    ) -> Message: ...


class Requests:
    """The requests of one broker connection, and its replies to those of others.

    `message` and `send` (with a timeout, None for the default) are the broker's. `own` is called
    with the subscription to the reply topic, which is closed here: after those whose handlers may
    still be waiting for a reply. `existing` is told of a topic that is used, and never made, here.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        *,
        message: MakeMessage,
        send: Callable[[Message, float | None], Awaitable[Receipt]],
        own: Callable[[Subscription], None],
        existing: Callable[[str], None],
    ) -> None:
        self.late = 0
        """How many replies came that nobody waited for any more."""
        self._broker = broker
        self._topic = Topic(topic, retention=KEPT)
        self._inbox = new_id()
        self._message = message
        self._send = send
        self._own = own
        self._existing = existing
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._opening = asyncio.Lock()
        self._replies: Subscription | None = None

    async def request(
        self,
        topic: str | Topic[Any],
        payload: Any,
        *,
        key: str | None,
        headers: Mapping[str, str] | None,
        timeout: float,
        response: Any,
    ) -> Any:
        """Publish `payload` and return the first reply, see `Broker.request`."""
        if timeout <= 0:
            raise ConfigurationError("request: timeout must be positive")
        if response is not None:
            check_annotation(response)
        message = self._message(as_topic(topic), payload, key, headers, None, None)
        where = {REPLY_TO: self._topic.name, INBOX: self._inbox}
        request = replace(message, headers={**message.headers, **where})
        waiter: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = waiter
        try:
            async with asyncio.timeout(timeout):
                await self._listen()
                await self._send(request, timeout)
                reply = await waiter
        except (TimeoutError, PublishTimeout) as error:
            raise RequestTimeout(
                f"no reply to the request to {message.topic} within {timeout:g} s"
            ) from error
        finally:
            del self._waiting[request.id]
        return _result(reply, message.topic, response)

    async def reply(
        self,
        delivery: Delivery,
        payload: Any,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish `payload` as the reply to `delivery`, see `Delivery.reply`."""
        return await self._answer(delivery, payload, headers, {}, timeout)

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Tell whoever asked that `delivery` was rejected, if it is a request; never raises."""
        if not self._is_request(delivery.message):
            return
        try:
            await self._answer(delivery, b"", None, {ERROR: text(reason)}, REFUSAL_TIMEOUT)
        except AnymqError as error:
            log.warning("the rejection of %s was not replied: %s", delivery.message.id, error)

    async def aclose(self) -> None:
        """Stop reading replies; whoever still waits for one gets `Closed`."""
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(Closed("the broker was closed before a reply came"))
        if self._replies is not None:
            await self._replies.aclose()

    async def _answer(
        self,
        delivery: Delivery,
        payload: Any,
        headers: Mapping[str, str] | None,
        extra: Mapping[str, str],
        timeout: float | None,
    ) -> Receipt:
        request = delivery.message
        if not self._is_request(request):
            raise StateError(f"{request.id} from {request.topic} is not a request: no reply to it")
        target = Topic(request.headers[REPLY_TO])
        self._existing(target.name)
        message = self._message(target, payload, None, headers, None, None)
        reply = replace(
            message,
            headers={**message.headers, INBOX: request.headers[INBOX], **extra},
            correlation_id=request.correlation_id or request.id,
            causation_id=request.id,
        )
        return await self._send(reply, timeout)

    def _is_request(self, message: Message) -> bool:
        """Whether `message` wants its reply where replies go: a stranger cannot choose a topic."""
        own, where = self._topic.name, message.headers.get(REPLY_TO, "")
        return is_request(message) and (where == own or where.startswith(f"{own}."))

    async def _listen(self) -> None:
        """Read the reply topic from now on, unless that is so already."""
        async with self._opening:
            if self._replies is not None and not self._replies.closing:
                return
            replies = self._broker.subscribe(
                self._topic, group=None, handler=self._receive, middleware=[Acknowledge()]
            )
            self._own(replies)
            await replies.__aenter__()
            self._replies = replies

    async def _receive(self, delivery: Delivery) -> None:
        reply = delivery.message
        if reply.headers.get(INBOX) != self._inbox:
            return
        waiter = self._waiting.get(reply.causation_id or "")
        if waiter is None or waiter.done():
            self.late += 1
            log.debug("the reply %s to %s came late", reply.id, reply.causation_id)
        else:
            waiter.set_result(reply)


def is_request(message: Message) -> bool:
    """Whether somebody waits, or waited, for a reply to `message`."""
    where = message.headers.get(REPLY_TO)
    if where is None or INBOX not in message.headers:
        return False
    try:
        check_topic(where)
    except ConfigurationError:
        return False
    return True


def _result(reply: Message, topic: str, response: Any) -> Any:
    """Return what `reply` says, as `response` asks for; raises `RequestFailed`."""
    error = reply.headers.get(ERROR)
    if error is not None:
        raise RequestFailed(f"the request to {topic} was rejected: {error}")
    if response is None:
        return reply
    try:
        return decode_payload(reply, response)
    except Reject as signal:
        raise RequestFailed(f"the reply from {topic} is no {response}: {signal}") from signal
