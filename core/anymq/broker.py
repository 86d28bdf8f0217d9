"""`Broker`: the portable type over a driver."""

from __future__ import annotations

import asyncio
import builtins
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context as NoContext
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from logging import WARNING
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from .consuming.delivery import current
from .consuming.handlers import Function, Unknown, adapt
from .consuming.settlement import Context
from .consuming.subscription import Subscription
from .driver.base import Driver
from .driver.capabilities import Capabilities
from .driver.clock import Clock
from .driver.options import ConnectOptions
from .driver.records import NO_HEADERS, Duplicate, Record
from .driver.source import Reader
from .driver.specs import MAX_BYTES, Start, SubscribeSpec
from .driver.store import Store
from .errors import (
    Closed,
    ConfigurationError,
    ConnectionLost,
    MessageTooLarge,
    NotFound,
    UnsupportedOperation,
    translate,
)
from .identity import scope_of, unique_id
from .ids import new_id
from .logs import logger
from .message import Message, Receipt
from .middleware import (
    DEFAULT_CHAIN,
    Middleware,
    Publish,
    PublishMiddleware,
    compose,
    letter_topics_of,
    shorten,
    stores_of,
)
from .middleware.deadline import longer_deadline
from .names import check_group, check_headers, check_id, check_key
from .payload import check_payload, encode_payload, type_name
from .publishing.declarations import Topics
from .publishing.encoder import Outlet
from .publishing.options import NOT_STATED, stating
from .publishing.publisher import FINE, Publisher, check_loop, receipt_of
from .requests import Requests
from .store_pool import Stores
from .tasks import fault, supervise
from .topic import Topic, as_topic, dead_letter_topic
from .url import URL
from .wire.cloudevents import encode

if TYPE_CHECKING:
    from .consuming.batch import Batch
    from .operating.admin import Admin

log = logger("anymq")

_sending: ContextVar[tuple[float, float | None]] = ContextVar("anymq-publish")
"""The timeout and the due time of the publish whose middleware is running."""

T = TypeVar("T")
R = TypeVar("R")

# What `Receipt(…)` and `id(…)` do, where every message passes, and where `id` is a parameter.
_new, _identity = tuple.__new__, builtins.id

CLOSE_GRACE = 5.0
DRIVER_GRACE = 3.0
LOOK = 5.0
SUBSCRIBE_TIMEOUT = 60.0
LONGEST_NATIVE = 240
MOST_OUTLETS = 1024
LONGEST_DELAY = timedelta(days=366)


class Broker:
    """A connection to one broker: publish, subscribe.

    Made by `connect`. Safe to use from many tasks of one event loop; not from other threads.
    """

    def __init__(
        self,
        driver: Driver,
        url: URL,
        *,
        options: ConnectOptions,
        source: str,
        names: dict[str, str],
        publish_middleware: tuple[PublishMiddleware, ...],
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._url = url
        self._options = options
        self._max_body = min(options.max_body, driver.max_body)
        self._source = source
        self._names = names
        self._clock = clock
        self._topics = Topics(
            driver, names=names, create=options.declare, translate=self._translate
        )
        self._subscriptions: set[Subscription] = set()
        self._stores = Stores()
        self._closed: asyncio.Task[None] | None = None
        self._shut = False
        """Whether publishing has ended as well: handlers that drain may still publish."""
        self._loop = asyncio.get_running_loop()
        self._publisher = Publisher(
            driver, translate=self._translate, declare=self._topics.redeclare, clock=clock
        )
        self._admin: Admin | None = None
        self._requests = Requests(
            self,
            options.reply_topic,
            message=self._message,
            send=self._dispatch,
            own=self._subscriptions.discard,
            existing=self._topics.learn_existing,
        )
        self._outlets: dict[object, Outlet] = {}
        send: Publish = self._send
        self._publish = compose(publish_middleware, send) if publish_middleware else None

    def __repr__(self) -> str:
        return f"<Broker {self._url}{' closed' if self._closed else ''}>"

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_closed", True) is None:
            _warn(f"unclosed {self!r}", ResourceWarning, source=self)

    @property
    def url(self) -> URL:
        """The URL of this connection; its text never shows the password."""
        return self._url

    @property
    def capabilities(self) -> Capabilities:
        """What this backend can do, and how."""
        return self._driver.capabilities

    @property
    def admin(self) -> Admin:
        """Topics, groups, lag, replay, dead letters: looking and operating."""
        self._check_open()
        if self._admin is None:
            from .operating.admin import Admin

            self._admin = Admin(
                self._driver,
                topics=self._topics,
                publisher=self._publisher,
                group_name=self._native_group,
                check_start=self._check_start,
                translate=self._translate,
                clock=self._clock,
                timeout=self._options.publish_timeout,
            )
        return self._admin

    @property
    def driver(self) -> Driver:
        """The adapter's driver; for tests and tools, not for applications."""
        return self._driver

    @property
    def native(self) -> Any:
        """The client library's own object: the way out to what anymq does not cover."""
        return self._driver.native

    @property
    def stores(self) -> Stores:
        """The idempotency stores this broker has open."""
        return self._stores

    async def ping(self) -> None:
        """Return after one answered round trip; raises `ConnectionLost` and the like."""
        self._check_open()
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                await self._driver.ping()
        except TimeoutError as error:
            raise ConnectionLost(f"{self._url} does not answer") from error
        except BaseException as raw:
            raise self._translate(fault(raw, "the client library"), "ping") from raw

    async def publish(
        self,
        topic: str | Topic[T],
        payload: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        type: str | None = None,
        delay: float | timedelta | None = None,
        deliver_at: datetime | None = None,
        timeout: float | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        content_type: str | None = None,
    ) -> Receipt:
        """Publish `payload` and return once the broker has it durably.

        Messages of one `key` keep the order in which their publishes were made. With `delay`
        (seconds, or a timedelta) or `deliver_at` (an aware datetime) the broker keeps the message
        from all groups until then: durably, never early, for up to a year. `id` names this event
        among those of the broker's `source` (default: a new UUIDv7). Another publish with the same
        id is a repetition, whatever its payload: `Idempotency` skips it, some brokers do not store
        it, and `Receipt.duplicate` says so. `type` is the CloudEvents type (default: the payload's
        class). Inside a handler the correlation id is carried on and the delivery named as cause,
        unless `correlation_id` and `causation_id` (the CloudEvents extensions `correlationid` and
        `causationid`) say otherwise. `content_type` describes the body as it is sent: it changes
        nothing of how the payload is encoded.

        Raises `PublishTimeout` after `timeout` seconds (default: the URL's `publish_timeout`,
        10 s): then the message may or may not have been stored. Raises `ConfigurationError` for
        a bad name, key, header or payload and `MessageTooLarge` before anything is sent,
        `AccessDenied` and other `BrokerError` as the broker says, `Closed` after `aclose`.
        """
        outlet = self._outlets.get(topic if isinstance(topic, str) else _identity(topic))
        if outlet is None or self._closed is not None:
            outlet = self._outlet(topic)
        due = None
        if delay is not None or deliver_at is not None:
            due = self._due(delay, deliver_at)
        stated = correlation_id, causation_id, content_type
        if self._publish is not None or stated != NOT_STATED:
            message = self._message(outlet.topic, payload, key, headers, id, type)
            return await self._dispatch(stating(message, *stated), timeout, due)
        checked = check_headers(headers) if headers else NO_HEADERS
        record = outlet.record(payload, key, id, checked, type)
        record.deliver_at = due
        seconds = self._options.publish_timeout if timeout is None else timeout
        if record.topic not in self._topics.ready:
            seconds = await self._topics.declare_within(record.topic, seconds)
        position = await self._publisher.submit(record, seconds)
        if position.__class__ is Duplicate:
            return receipt_of(record.id, record.topic, position)
        return _new(Receipt, (record.id, record.topic, position, False))

    async def publish_many(
        self,
        topic: str | Topic[T],
        payloads: Sequence[T],
        *,
        key: Callable[[T], str] | str | None = None,
        id: Callable[[T], str] | None = None,
        headers: Mapping[str, str] | None = None,
        delay: float | timedelta | None = None,
        deliver_at: datetime | None = None,
        timeout: float | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
        content_type: str | None = None,
    ) -> list[Receipt | Exception]:
        """Publish `payloads` in order; return for each its receipt, or the error that kept it out.

        `key` is one key for all, or a function of the payload; so is `id`, where there is a natural
        one. Everything is checked before the first message is sent: bad input raises and publishes
        nothing. The rest is as in `publish`.
        """
        outlet = self._outlet(topic)
        due = self._due(delay, deliver_at)
        keys = [key(payload) for payload in payloads] if callable(key) else None
        ids = [id(payload) for payload in payloads] if id else None
        if not payloads:
            return []
        stated = correlation_id, causation_id, content_type
        if self._publish is not None or stated != NOT_STATED:
            now = datetime.now(UTC)
            messages = [
                self._message(
                    outlet.topic,
                    payload,
                    keys[index] if keys is not None else cast("str | None", key),
                    headers,
                    ids[index] if ids is not None else None,
                    None,
                    now,
                )
                for index, payload in enumerate(payloads)
            ]
            messages = [stating(message, *stated) for message in messages]
            if self._publish is not None:
                return await self._dispatch_many(messages, timeout, due)
            sent = [self._record(message, due) for message in messages]
            return await self._send_many(sent, timeout, due)
        one = None if callable(key) else key
        checked = check_headers(headers) if headers else NO_HEADERS
        records = outlet.records(payloads, one, keys, ids, checked)
        return await self._send_many(records, timeout, due)

    @overload
    async def request(
        self,
        topic: str | Topic[T],
        payload: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        response: None = None,
    ) -> Message: ...

    @overload
    async def request(
        self,
        topic: str | Topic[T],
        payload: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        response: builtins.type[R],
    ) -> R: ...

    async def request(
        self,
        topic: str | Topic[T],
        payload: T,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
        response: builtins.type[R] | None = None,
    ) -> Message | R:
        """Publish `payload` and return the first reply that a handler gives with `Delivery.reply`.

        With `response`, a payload type, the reply's payload is returned, otherwise its `Message`.
        All groups of the topic get the request; the first reply wins. Replies travel over the topic
        that the URL's `reply_topic` names (default `anymq.replies`), kept there for an hour, and
        read by every process that makes requests: give services that make many one of their own.

        Raises `RequestTimeout` when none has come after `timeout` seconds: the request may have
        been handled all the same. Raises `RequestFailed` when the handler's group has rejected the
        request, with its reason, or when the reply is not a `response`; and what `publish` raises.
        """
        self._check_publishing()
        reply: Message | R = await self._requests.request(
            topic, payload, key=key, headers=headers, timeout=timeout, response=response
        )
        return reply

    @property
    def late_replies(self) -> int:
        """How many replies to this connection's requests came when nobody waited any more."""
        return self._requests.late

    def subscribe(
        self,
        topic: str | Topic[Any],
        *,
        group: str | None,
        handler: Function | None = None,
        start: Start | None = None,
        concurrency: int = 1,
        ordered: bool = False,
        batch: Batch | None = None,
        ack_deadline: float = 30.0,
        prefetch: int | None = None,
        prefetch_bytes: int | None = None,
        auto_extend: bool = True,
        middleware: Sequence[Middleware] | None = None,
        unknown: Unknown = "reject",
        drain_timeout: float = 20.0,
    ) -> Subscription:
        """Return a subscription to `topic`: enter it to begin, see `Subscription`.

        Members of one `group` share its messages; groups are independent; `group=None` is
        broadcast, every subscriber gets every message. `start` says where a *new* group begins:
        `earliest` (default for a group), `latest` (default for broadcast), an aware datetime, or a
        position (`receipt.position`, `delivery.position`), whose message is the first.

        Without `handler`, iterate and settle each delivery. With one, `concurrency` copies of it
        run, wrapped by `middleware` (first outermost; default `[Acknowledge(), DeadLetter(),
        Retry(), Deadline()]`, as around an app's handler; without a `Retry`, what fails is repeated
        for ever); with a `batch` it takes lists, see `Batch`. `ordered` keeps the order of each key
        over all members of the group, see `Subscription`; how far it can be shared is up to the
        topic's partitions. A handler of a union of classes gets the messages of their CloudEvents
        types; one of another type is rejected with the reason, or passed over with
        `unknown="ignore"`.
        `ack_deadline` is the lease in seconds: of a crashed consumer's messages on the backends
        that have leases, and of every unsettled delivery if `auto_extend` is off; otherwise the
        engine extends all it holds, in handlers or buffered. `prefetch` fixes how many messages are
        held unsettled at a time; by default that adapts to the handler: it begins with one for
        each handler that runs, so that members which start together share a backlog, and grows as
        fast as messages are handled. `prefetch_bytes` (default 32 MiB) bounds the size of all that
        is held.

        Raises `ConfigurationError` here, or when entered; entering also raises what the broker, or
        a store of the middleware, says. What may pass is tried for the URL's `connect_timeout`.
        """
        self._check_open()
        target = as_topic(topic)
        if group is not None:
            check_group(group)
        if len(dead_letter_topic(target.name, group)) > LONGEST_NATIVE:
            raise ConfigurationError(
                f"topic {target.name!r} and group {group!r} are too long together"
            )
        if ack_deadline <= 0:
            raise ConfigurationError("ack_deadline must be positive")
        if start is None:
            start = "earliest" if group is not None else "latest"
        self._check_start(start)
        if ordered and not (support := self.capabilities.ordered):
            raise UnsupportedOperation(f"{self._url} cannot keep order: {support.note}")
        if ordered and not auto_extend:
            raise ConfigurationError("an ordered subscription keeps its partitions: auto_extend")
        if batch is not None and handler is None:
            raise ConfigurationError("a batch needs a handler; this subscription has none")
        if middleware is not None and handler is None:
            raise ConfigurationError("middleware wraps a handler; this subscription has none")
        self._topics.learn(target)
        wrapped, stores, deadline = None, list[str | Store](), None
        letters = [dead_letter_topic(target.name, group)]
        if handler is not None:
            chain = DEFAULT_CHAIN if middleware is None else middleware
            wrapped = shorten(chain, adapt(handler, target, batch, unknown))
            stores = stores_of(chain)
            letters = letter_topics_of(chain) or letters
            deadline = longer_deadline(chain)
        member = new_id()
        places = concurrency * (batch.size if batch else 1)
        native_group = self._native_group(target.name, group)

        async def open_source(generation: int) -> Reader:
            while stores:
                await self._stores.check(stores[-1])
                stores.pop()
            if generation == 1:
                await self._topics.declare(target.name)
            else:
                await self._redeclare_consumed(target.name)
            spec = SubscribeSpec(
                topic=self._topics.spec(target.name),
                group=group,
                native_group=native_group,
                start=start,
                ack_deadline=ack_deadline,
                prefetch=prefetch or max(100, 2 * places),
                first=prefetch or places,
                prefetch_bytes=prefetch_bytes or MAX_BYTES,
                member=f"{member}-{generation}",
                create=self._options.declare and f"{target.name}.{group}" not in self._names,
                ordered=ordered and group is not None,
                place=subscription.place,
            )
            if generation == 1:
                for name in letters:
                    await self._look_for(name)
            try:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                    return await self._driver.subscribe(spec, subscription.listener)
            except TimeoutError as error:
                raise ConnectionLost(f"subscribing on {self._url} did not end in time") from error

        subscription = Subscription(
            open_source=open_source,
            context=Context(
                driver=self._driver,
                topic=target.name,
                group=group,
                ack_deadline=ack_deadline,
                auto_extend=auto_extend,
                clock=self._clock,
                stores=self._stores,
                requests=self._requests,
                translate=self._translate,
                declare=self._topics.declare,
                ordered=ordered,
                member=member,
            ),
            clock=self._clock,
            handler=wrapped,
            concurrency=concurrency,
            batch_size=batch.size if batch else 1,
            prefetch=prefetch,
            prefetch_bytes=prefetch_bytes,
            drain_timeout=drain_timeout,
            open_timeout=self._options.connect_timeout,
            on_close=self._subscriptions.discard,
            deadline=deadline,
        )
        self._subscriptions.add(subscription)
        return subscription

    async def aclose(self) -> None:
        """Close: drain the subscriptions, let publishes finish, disconnect.

        Handlers that are still at work may publish, and await replies. Called by one of them, it
        begins to close and returns: it cannot wait for its caller. Ends within the longest
        `drain_timeout` + 5 s per subscription (they drain side by side), and some seconds for the
        connection, also when the broker is dead. Calling it twice is harmless.
        """
        if self._closed is None:
            # In a context of its own: the task is nobody's handler.
            close = self._close(asyncio.current_task())
            self._closed = supervise(close, name="anymq-close", context=NoContext())
        if not any(item.is_handling_caller() for item in self._subscriptions):
            await asyncio.shield(self._closed)

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        closing = (item.close_for(caller) for item in list(self._subscriptions))
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("closing a subscription failed", exc_info=outcome)
        self._shut = True
        await self._requests.aclose()
        await self._publisher.aclose(CLOSE_GRACE)
        await self._stores.aclose()
        try:
            async with asyncio.timeout(DRIVER_GRACE):
                await self._driver.aclose()
        except Exception as raw:
            log.warning("closing %s: %s", self._url, self._translate(raw, "closing"))

    async def _redeclare_consumed(self, topic: str) -> None:
        """Make a topic ready once more for a subscription that has had it already.

        Another program may have made it anew, otherwise: what it has is consumed all the same.
        """
        try:
            await self._topics.redeclare(topic)
        except ConfigurationError as error:
            log.rarely((topic, "otherwise"), WARNING, "%s; consuming goes on", error)

    async def _look_for(self, letters: str) -> None:
        """Say now, not at the first failure, that a topic which is not ours to make is missing."""
        spec = self._topics.spec(letters)
        if spec.create:
            return
        try:
            async with asyncio.timeout(LOOK):
                await self._driver.describe_topic(spec)
        except Exception as raw:
            error = self._translate(raw, f"looking for {letters}")
            if isinstance(error, NotFound):
                log.warning(
                    "there is no topic %s for dead letters, and it may not be made here: until it "
                    "is there, what is rejected waits in the memory of its consumer",
                    spec.native,
                )
            else:
                log.debug("%s", error)

    def _native_group(self, topic: str, group: str | None) -> str:
        return self._names.get(f"{topic}.{group}", f"{topic}.{group}")

    def _check_start(self, start: Start) -> None:
        if start in ("earliest", "latest"):
            return
        if isinstance(start, datetime):
            if start.tzinfo is None:
                raise ConfigurationError(f"start needs a time zone: {start!r}")
        elif not isinstance(start, str) or not start:
            raise ConfigurationError(
                f"start is 'earliest', 'latest', a datetime or a position, not {start!r}"
            )
        if not (support := self.capabilities.replay):
            raise UnsupportedOperation(f"{self._url} cannot replay: {support.note}")

    # Publishing.

    def _outlet(self, topic: str | Topic[Any]) -> Outlet:
        if self._shut:
            raise Closed(f"the broker {self._url} is closed")
        check_loop(self._loop)
        # By identity, as an outlet keeps its topic: hashing one takes as long as all the rest.
        key = topic if isinstance(topic, str) else _identity(topic)
        outlet = self._outlets.get(key)
        if outlet is None:
            named = as_topic(topic)
            self._topics.learn(named)
            if len(self._outlets) >= MOST_OUTLETS:
                self._outlets.clear()
            outlet = self._outlets[key] = Outlet(
                named,
                self._driver.binding,
                source=self._source,
                max_body=self._max_body,
                where=str(self._url),
            )
        return outlet

    def _message(
        self,
        topic: Topic[Any],
        payload: Any,
        key: str | None,
        headers: Mapping[str, str] | None,
        id: str | None,
        type: str | None,
        now: datetime | None = None,
    ) -> Message:
        self._check_publishing()
        check_payload(payload, topic)
        body, content_type = encode_payload(payload)
        if len(body) > self._max_body:
            raise MessageTooLarge(
                f"the body is {len(body)} bytes; "
                f"at most {self._max_body} are allowed on {self._url}"
            )
        if type is not None:
            check_key(type)
        self._topics.learn(topic)
        cause = current.get()
        return Message(
            id=new_id() if id is None else check_id(id),
            topic=topic.name,
            body=body,
            key=check_key(key) if key is not None else None,
            headers=MappingProxyType(check_headers(headers)) if headers else NO_HEADERS,
            content_type=content_type,
            type=type or type_name(payload, topic.name),
            source=self._source,
            time=now or datetime.now(UTC),
            correlation_id=(cause.message.correlation_id or cause.message.id) if cause else None,
            causation_id=cause.message.id if cause else None,
        )

    def _due(self, delay: float | timedelta | None, deliver_at: datetime | None) -> float | None:
        """Return when a message is due, in seconds since the epoch; None for at once."""
        if delay is None and deliver_at is None:
            return None
        if delay is not None and deliver_at is not None:
            raise ConfigurationError("give a delay or deliver_at, not both")
        now = self._clock.now()
        if deliver_at is not None:
            if deliver_at.tzinfo is None:
                raise ConfigurationError(f"deliver_at needs a time zone: {deliver_at!r}")
            wait = deliver_at.timestamp() - now
        else:
            wait = delay.total_seconds() if isinstance(delay, timedelta) else float(delay or 0)
            if not wait >= 0:
                raise ConfigurationError(f"delay must not be negative: {delay!r}")
        if wait > LONGEST_DELAY.total_seconds():
            raise ConfigurationError(f"a message can be delayed by {LONGEST_DELAY} at most")
        support = self._driver.capabilities.delayed_publish
        if not support:
            raise UnsupportedOperation(f"{self._url} cannot delay: {support.note}")
        return now + wait if wait > 0 else None

    async def _dispatch(
        self, message: Message, timeout: float | None, due: float | None = None
    ) -> Receipt:
        seconds = self._options.publish_timeout if timeout is None else timeout
        if message.topic not in self._topics.ready:
            seconds = await self._topics.declare_within(message.topic, seconds)
        if self._publish is None:
            return await self._send(message, (seconds, due))
        token = _sending.set((seconds, due))
        try:
            return await self._publish(message)
        finally:
            _sending.reset(token)

    async def _dispatch_many(
        self, messages: Sequence[Message], timeout: float | None, due: float | None
    ) -> list[Receipt | Exception]:
        """Let each message pass through the publish middleware by itself."""
        pending = [
            asyncio.ensure_future(self._dispatch(message, timeout, due)) for message in messages
        ]
        try:
            outcomes = await asyncio.gather(*pending, return_exceptions=True)
        except asyncio.CancelledError:
            for future in pending:
                future.cancel()
            raise
        results: list[Receipt | Exception] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Exception):
                raise outcome
            results.append(outcome)
        return results

    async def _send_many(
        self, records: Sequence[Record], timeout: float | None, due: float | None
    ) -> list[Receipt | Exception]:
        """Send records of one topic together: with no middleware, nobody asks for a task each."""
        seconds = self._options.publish_timeout if timeout is None else timeout
        topic = records[0].topic
        if topic not in self._topics.ready:
            try:
                seconds = await self._topics.declare_within(topic, seconds)
            except Exception as error:
                return [error] * len(records)
        if due is not None:
            for record in records:
                record.deliver_at = due
        outcomes = await self._publisher.submit_many(records, seconds)
        if FINE.issuperset(map(type, outcomes)):
            return [
                _new(Receipt, (record.id, topic, outcome, False))
                for record, outcome in zip(records, outcomes, strict=True)
            ]
        results: list[Receipt | Exception] = []
        for record, outcome in zip(records, outcomes, strict=True):
            if not isinstance(outcome, BaseException):
                results.append(receipt_of(record.id, topic, outcome))
            elif isinstance(outcome, Exception):
                results.append(outcome)
            else:
                raise outcome
        return results

    def _record(self, message: Message, due: float | None) -> Record:
        record = encode(
            message, self._driver.binding, unique=unique_id(scope_of(message.source), message.id)
        )
        record.deliver_at = due
        return record

    async def _send(
        self, message: Message, sending: tuple[float, float | None] | None = None
    ) -> Receipt:
        seconds, due = sending or _sending.get()
        position = await self._publisher.submit(self._record(message, due), seconds)
        return receipt_of(message.id, message.topic, position)

    def _translate(self, error: BaseException, doing: str) -> BaseException:
        return translate(error, self._driver.errors, doing=doing, where=str(self._url))

    def _check_publishing(self) -> None:
        if self._shut:
            raise Closed(f"the broker {self._url} is closed")
        check_loop(self._loop)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Closed(f"the broker {self._url} is closed")
        check_loop(self._loop)
