"""`Requests`: request/reply over any backend.

All requesters share one reply topic. Each process reads it as broadcast, from its first request
on. A request names the destination of its reply in two CloudEvents extension attributes, which
retries preserve: `replyto` (the topic) and `replyinbox` (the process). The reply has the inbox, and
the id of the request as its causation id. A process ignores replies for other inboxes. If a
requester dies, only replies remain, for as long as the topic retains them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .consuming.delivery import Delivery
from .consuming.options import SubscribeOptions
from .consuming.signature import Function
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
from .publishing.sender import Sender
from .topic import Topic, as_topic
from .wire.dead_letter_headers import text

if TYPE_CHECKING:
    from .consuming.subscription import Subscription

log = logger("anymq.requests")

REPLY_TO = "ce-replyto"
INBOX = "ce-replyinbox"
ERROR = "ce-replyerror"

RETENTION = timedelta(hours=1)
"""The time for which replies are retained."""
REFUSAL_TIMEOUT = 5.0
"""Seconds to publish the reply that a request was rejected."""


class Requests:
    """The requests of one connection, and its replies to the requests of others.

    `subscribe` opens the subscription to the reply topic. It is closed here, after the
    subscriptions whose handlers may still wait for a reply.
    """

    def __init__(
        self,
        sender: Sender,
        topic: str,
        *,
        subscribe: Callable[[SubscribeOptions, Function], Subscription],
    ) -> None:
        self.late = 0
        """The number of replies that arrived after their requests had ended."""
        self._sender = sender
        self._topic = Topic(topic, retention=RETENTION)
        self._inbox = new_id()
        self._subscribe = subscribe
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
        if response not in (None, Message):
            check_annotation(response)
        message = self._sender.encoder(as_topic(topic)).message(payload, key, None, headers)
        destination = {REPLY_TO: self._topic.name, INBOX: self._inbox}
        request = replace(message, headers={**message.headers, **destination})
        waiter: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = waiter
        try:
            async with asyncio.timeout(timeout):
                await self._listen()
                await self._sender.send(request, timeout)
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
        id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Receipt:
        """Publish `payload` as the reply to `delivery`, see `Delivery.reply`."""
        return await self._answer(delivery, payload, id, headers, {}, timeout)

    async def refuse(self, delivery: Delivery, reason: str) -> None:
        """Reply that `delivery` was rejected, if it is a request; never raises."""
        if not self.is_request(delivery.message):
            return
        try:
            await self._answer(delivery, b"", None, None, {ERROR: text(reason)}, REFUSAL_TIMEOUT)
        except AnymqError as error:
            log.warning(
                "publishing the refusal of request %s from %s failed: %s; its requester times out",
                delivery.message.id,
                delivery.topic,
                error,
            )

    async def aclose(self) -> None:
        """Stop reading replies. Pending requests raise `Closed`."""
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(Closed("the broker was closed before a reply arrived"))
        if self._replies is not None:
            await self._replies.aclose()

    async def _answer(
        self,
        delivery: Delivery,
        payload: Any,
        id: str | None,
        headers: Mapping[str, str] | None,
        extra: Mapping[str, str],
        timeout: float | None,
    ) -> Receipt:
        request = delivery.message
        if not self.is_request(request):
            raise StateError(
                f"message {request.id} from {request.topic} is not a request; it has no reply topic"
            )
        target = Topic(request.headers[REPLY_TO])
        self._sender.declarations.learn_existing(target.name)
        message = self._sender.encoder(target).message(payload, None, id, headers)
        reply = replace(
            message,
            headers={**message.headers, INBOX: request.headers[INBOX], **extra},
            correlation_id=request.correlation_id or request.id,
            causation_id=request.id,
        )
        return await self._sender.send(reply, timeout)

    def is_request(self, message: Message) -> bool:
        """Whether `message` is a request with a reply topic of anymq; others get no reply."""
        own, target = self._topic.name, message.headers.get(REPLY_TO, "")
        return is_request(message) and (target == own or target.startswith(f"{own}."))

    async def _listen(self) -> None:
        """Read the reply topic from now on, unless it is being read."""
        async with self._opening:
            if self._replies is not None and not self._replies.closing:
                return
            options = SubscribeOptions(topic=self._topic, group=None, middleware=(Acknowledge(),))
            replies = self._subscribe(options, self._receive)
            await replies.__aenter__()
            self._replies = replies

    async def _receive(self, delivery: Delivery) -> None:
        reply = delivery.message
        if reply.headers.get(INBOX) != self._inbox:
            return
        waiter = self._waiting.get(reply.causation_id or "")
        if waiter is None or waiter.done():
            self.late += 1
            log.debug("the reply %s to %s arrived late", reply.id, reply.causation_id)
        else:
            waiter.set_result(reply)


def is_request(message: Message) -> bool:
    """Whether `message` is a request."""
    target = message.headers.get(REPLY_TO)
    if target is None or INBOX not in message.headers:
        return False
    try:
        check_topic(target)
    except ConfigurationError:
        return False
    return True


def _result(reply: Message, topic: str, response: Any) -> Any:
    """Return the reply as `response`; raises `RequestFailed`."""
    error = reply.headers.get(ERROR)
    if error is not None:
        raise RequestFailed(f"the request to {topic} was rejected: {error}")
    if response in (None, Message):
        return reply
    try:
        return decode_payload(reply, response)
    except Reject as signal:
        raise RequestFailed(
            f"the reply from {topic} is not a valid {response}: {signal}"
        ) from signal
