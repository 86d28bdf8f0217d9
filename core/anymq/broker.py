"""`Broker`: one connection to one broker, for publishing, subscribing and administration."""

from __future__ import annotations

import asyncio
import builtins
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from datetime import datetime, timedelta
from itertools import count
from logging import WARNING
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .consuming.context import ConsumerContext
from .consuming.handlers import adapt
from .consuming.options import SubscribeOptions, Unknown, check_start
from .consuming.signature import Function
from .driver.base import Driver
from .driver.capabilities import Capabilities
from .driver.clock import Clock
from .driver.listener import Listener
from .driver.options import ConnectOptions
from .driver.records import NO_HEADERS, Duplicate
from .driver.source import Reader
from .driver.specs import MAX_BYTES, Start, SubscribeSpec
from .errors import (
    Closed,
    ConfigurationError,
    ConnectionLost,
    NotFound,
    UnsupportedOperation,
    translate,
)
from .logs import logger
from .message import Message, Receipt
from .middleware.chain import Middleware, PublishMiddleware
from .middleware.default import DEFAULT_CHAIN, Chain
from .names import check_headers
from .native_names import NativeNames
from .publishing.declarations import Declarations
from .publishing.options import NOT_STATED, stating
from .publishing.publisher import check_loop, receipt_of
from .publishing.sender import Sender
from .requests import Requests
from .store_pool import StorePool
from .tasks import fault, supervise
from .topic import Topic, as_topic, dead_letter_topic
from .url import URL

if TYPE_CHECKING:
    from .consuming.batch import Batch
    from .consuming.fetcher import OpenSource
    from .consuming.subscription import Subscription
    from .operating.admin import Admin

log = logger("anymq")

T = TypeVar("T")
R = TypeVar("R")

# `Receipt(…)` and `id(…)` without a Python call, because they run for every message. In `publish`
# the name `id` is a parameter.
_new, _identity = tuple.__new__, builtins.id

PUBLISH_CLOSE_SECONDS = 5.0
"""Seconds that closing waits for queued publishes."""
DRIVER_CLOSE_SECONDS = 3.0
"""Seconds that closing waits for the driver."""
DESCRIBE_TIMEOUT = 5.0
"""Seconds to find out whether a dead-letter topic exists."""
SUBSCRIBE_TIMEOUT = 60.0
"""Seconds for one attempt to open a subscription."""


class Broker:
    """A connection to one broker, opened by `connect`.

    It may be used by many tasks of one event loop, but not by other threads.
    """

    def __init__(
        self,
        driver: Driver,
        url: URL,
        *,
        options: ConnectOptions,
        name: str,
        source: str,
        names: NativeNames,
        publish_middleware: tuple[PublishMiddleware, ...],
        clock: Clock,
    ) -> None:
        self._driver = driver
        self._url = url
        self._options = options
        self._name = name
        self._source = source
        self._names = names
        self._members = count(1)
        self._clock = clock
        self._declarations = Declarations(
            driver, names=names, create=options.declare, translate=self._translate
        )
        self._sender = Sender(
            driver,
            url,
            options=options,
            source=source,
            middleware=publish_middleware,
            declarations=self._declarations,
            translate=self._translate,
            clock=clock,
        )
        # Parts of the sender, on the path of every message.
        self._encoders = self._sender.encoders
        self._ready = self._declarations.ready
        self._submit = self._sender.publisher.submit
        self._has_middleware = self._sender.middleware is not None
        self._subscriptions: set[Subscription] = set()
        self._stores = StorePool()
        self._closed: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._admin: Admin | None = None
        self._requests = Requests(self._sender, options.reply_topic, subscribe=self._subscribe_own)
        self._context = ConsumerContext(
            driver=driver,
            clock=clock,
            stores=self._stores,
            replies=self._requests,
            translate=self._translate,
            declare=self._declarations.declare,
        )

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
    def name(self) -> str:
        """The name of this client, `NAME-HOST-PID-RANDOM`, which no other has.

        It begins with the `name` of `connect` or of the app. The members of its groups have names
        that begin with it, and brokers that show a client's name show it.
        """
        return self._name

    @property
    def source(self) -> str:
        """The CloudEvents source of the messages that it publishes."""
        return self._source

    @property
    def reply_topic(self) -> str:
        """The topic of the replies to its requests."""
        return self._options.reply_topic

    @property
    def max_body(self) -> float:
        """The most bytes of a body that it publishes: the URL's `max_body`, or the adapter's."""
        return self._sender.max_body

    @property
    def capabilities(self) -> Capabilities:
        """The abilities of this backend, with their caveats."""
        return self._driver.capabilities

    @property
    def admin(self) -> Admin:
        """The administration of topics, groups, replay and dead letters."""
        self._check_open()
        if self._admin is None:
            from .operating.admin import Admin

            self._admin = Admin(
                self._driver,
                declarations=self._declarations,
                publisher=self._sender.publisher,
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
        """The client library's own object, for features that anymq does not cover."""
        return self._driver.native

    @property
    def stores(self) -> StorePool:
        """The open idempotency stores of this broker."""
        return self._stores

    async def ping(self) -> None:
        """Return after one answered round trip; raises `ConnectionLost` and the like."""
        self._check_open()
        try:
            async with asyncio.timeout(self._options.connect_timeout):
                await self._driver.ping()
        except TimeoutError as error:
            raise ConnectionLost(
                f"ping failed on {self._url}: no answer within {self._options.connect_timeout:g} s"
            ) from error
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
        """Publish `payload` and return once the broker has stored it durably.

        Messages of one `key` are stored in the order of their publishes. With `delay` (seconds, or
        a timedelta) or `deliver_at` (an aware datetime) the message is stored at once, and
        delivered at that time, never earlier, up to a year ahead.

        `id` identifies the event within the broker's `source` (default: a new UUIDv7). Another
        publish with the same id is a duplicate, even with another payload. `Idempotency` skips it;
        some brokers do not store it, and then `Receipt.duplicate` is True.

        `type` is the CloudEvents type (default: the payload's class). A message published inside a
        handler inherits the correlation id, and its causation id is the id of the handled message.
        `correlation_id` and `causation_id` (the CloudEvents extensions `correlationid` and
        `causationid`) override that. `content_type` describes the body, and does not change how
        the payload is encoded.

        Raises `PublishTimeout` after `timeout` seconds (default: the URL's `publish_timeout`,
        10 s); the message may or may not have been stored then. Raises `ConfigurationError` for a
        bad name, key, header or payload, and `MessageTooLarge`, before anything is sent. Raises
        `AccessDenied` and other classes of `BrokerError` for errors of the broker, and `Closed`
        after `aclose`.
        """
        encoder = self._encoders.get(topic if isinstance(topic, str) else _identity(topic))
        if encoder is None or self._closed is not None:
            encoder = self._sender.encoder(topic)
        due = None
        if delay is not None or deliver_at is not None:
            due = self._sender.due(delay, deliver_at)
        stated = correlation_id, causation_id, content_type
        if self._has_middleware or stated != NOT_STATED:
            message = stating(encoder.message(payload, key, id, headers, type), *stated)
            return await self._sender.send(message, timeout, due)
        checked = check_headers(headers) if headers else NO_HEADERS
        record = encoder.record(payload, key, id, checked, type)
        record.deliver_at = due
        seconds = self._options.publish_timeout if timeout is None else timeout
        if record.topic not in self._ready:
            seconds = await self._declarations.declare_within(record.topic, seconds)
        position = await self._submit(record, seconds)
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
        """Publish `payloads` in order; return the receipt of each, or the error of one not stored.

        `key` is one key for all, or a function of the payload; `id` is a function of the payload.
        All input is checked before the first message is sent, so bad input raises and publishes
        nothing. The rest is as in `publish`.
        """
        sender = self._sender
        encoder = sender.encoder(topic)
        due = sender.due(delay, deliver_at)
        keys = [key(payload) for payload in payloads] if callable(key) else None
        ids = [id(payload) for payload in payloads] if id else None
        if not payloads:
            return []
        one = None if callable(key) else key
        stated = correlation_id, causation_id, content_type
        if sender.middleware is not None or stated != NOT_STATED:
            return await sender.send_many(
                encoder,
                payloads,
                key=one,
                keys=keys,
                ids=ids,
                headers=headers,
                stated=stated,
                timeout=timeout,
                due=due,
            )
        checked = check_headers(headers) if headers else NO_HEADERS
        records = encoder.records(payloads, one, keys, ids, checked)
        return await sender.send_records(records, timeout, due)

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
        """Publish `payload` and return the first reply that a handler sends with `Delivery.reply`.

        With `response`, a payload type, return the reply's payload, otherwise its `Message`. All
        groups of the topic receive the request, and the first reply counts. Replies are published
        to the topic in the URL's `reply_topic` (default `anymq.replies`), and kept there for an
        hour. Every requesting process reads all of them, so give a service with many requests a
        reply topic of its own.

        Raises `RequestTimeout` if no reply arrives within `timeout` seconds; the request may have
        been handled nevertheless. Raises `RequestFailed` if the handler's group has rejected the
        request, with its reason, or if the reply is not a `response`. Raises the errors of
        `publish` as well.
        """
        self._sender.check()
        reply: Message | R = await self._requests.request(
            topic, payload, key=key, headers=headers, timeout=timeout, response=response
        )
        return reply

    @property
    def late_replies(self) -> int:
        """The number of replies that arrived after their requests had ended."""
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
        """Return a subscription to `topic`; enter it to start consuming, see `Subscription`.

        Members of one `group` share its messages, and groups are independent. With `group=None`
        (broadcast) every subscriber receives every message. `start` is the start position of a
        *new* group: `earliest` (default for a group), `latest` (default for broadcast), an aware
        datetime, or a position (`receipt.position`, `delivery.position`), whose message is the
        first.

        Without `handler`, iterate and settle each delivery. A `handler` runs up to `concurrency`
        times at once, wrapped by `middleware` (first outermost; default `[Acknowledge(),
        DeadLetter(), Retry(), Deadline()]`, as around an app's handler). Without a `Retry`, a
        failed message is redelivered indefinitely. With a `batch` the handler takes lists, see
        `Batch`. A handler of a union of classes receives the messages of their CloudEvents types.
        A message of another type is rejected with the reason, or skipped with `unknown="ignore"`.

        `ordered` guarantees the order of each key across all members of the group, see
        `Subscription`. At most as many members as the topic has partitions receive messages.

        `ack_deadline` is the lease in seconds. By default anymq renews the leases of unsettled
        deliveries, in handlers or buffered. So it only determines, on backends with leases, when
        the messages of a crashed consumer are redelivered. With `auto_extend=False` it limits every
        unsettled delivery.

        `prefetch` fixes the number of messages held unsettled at a time. By default it starts with
        one for each handler that runs, so that members which start together share a backlog, and
        grows with the rate at which messages are handled. `prefetch_bytes` (default 32 MiB) bounds
        the bytes held.

        Raises `ConfigurationError` here, or when entered. Entering also raises errors of the broker
        and of the stores of the middleware, after retrying transient ones for the URL's
        `connect_timeout`.
        """
        options = SubscribeOptions(
            topic=as_topic(topic),
            group=group,
            start=start,
            concurrency=concurrency,
            ordered=ordered,
            batch=batch,
            ack_deadline=ack_deadline,
            prefetch=prefetch,
            prefetch_bytes=prefetch_bytes,
            auto_extend=auto_extend,
            middleware=middleware,
            unknown=unknown,
            drain_timeout=drain_timeout,
        )
        return self.subscribe_with(options, handler=handler)

    def subscribe_with(
        self, options: SubscribeOptions, *, handler: Function | None = None
    ) -> Subscription:
        """Return a subscription with `options`, as `subscribe` does."""
        self._check_open()
        subscription = self._subscription(options, handler)
        self._subscriptions.add(subscription)
        return subscription

    def _subscribe_own(self, options: SubscribeOptions, handler: Function) -> Subscription:
        """Return an internal subscription, which its owner closes."""
        self._check_open()
        return self._subscription(options, handler)

    def _subscription(self, options: SubscribeOptions, handler: Function | None) -> Subscription:
        self._check_supported(options)
        if handler is None and options.batch is not None:
            raise ConfigurationError("a batch needs a handler; this subscription has none")
        if handler is None and options.middleware is not None:
            raise ConfigurationError("middleware wraps a handler; this subscription has none")
        self._declarations.learn(options.topic)
        links = () if handler is None else options.middleware
        chain = Chain(DEFAULT_CHAIN if links is None else links)
        wrapped = None
        if handler is not None:
            wrapped = chain.around(adapt(handler, options.topic, options.batch, options.unknown))
        from .consuming.subscription import Subscription  # a publisher needs none of it

        member = f"{self._name}-{next(self._members)}"
        return Subscription(
            options,
            self._context,
            member=member,
            open_source=self._opener(options, chain, member),
            open_timeout=self._options.connect_timeout,
            handler=wrapped,
            deadline=chain.deadline,
            limit=chain.limit,
            on_close=self._subscriptions.discard,
        )

    def _check_supported(self, options: SubscribeOptions) -> None:
        """Raise `UnsupportedOperation` for options that this backend cannot serve."""
        self._check_start(options.first)
        if options.ordered and not (support := self.capabilities.ordered):
            raise UnsupportedOperation(f"{self._url} cannot serve ordered=True: {support.note}")

    def _check_start(self, start: Start) -> None:
        check_start(start)
        if start in ("earliest", "latest"):
            return
        if not (support := self.capabilities.replay):
            raise UnsupportedOperation(f"{self._url} cannot replay: {support.note}")

    def _opener(self, options: SubscribeOptions, chain: Chain, member: str) -> OpenSource:
        """Return the function that opens the sources of a subscription, one after the other."""
        topic, group = options.topic.name, options.group
        stores = chain.stores
        letters = chain.letter_topics or [dead_letter_topic(topic, group)]

        async def open_source(generation: int, position: object, listener: Listener) -> Reader:
            while stores:
                await self._stores.check(stores[-1])
                stores.pop()
            if generation == 1:
                await self._declarations.declare(topic)
            else:
                await self._redeclare_consumed(topic)
            spec = SubscribeSpec(
                topic=self._declarations.spec(topic),
                group=group,
                native_group=self._native_group(topic, group),
                start=options.first,
                ack_deadline=options.ack_deadline,
                prefetch=options.prefetch or max(100, 2 * options.workers),
                first=options.prefetch or options.workers,
                prefetch_bytes=options.prefetch_bytes or MAX_BYTES,
                member=member if generation == 1 else f"{member}.{generation}",
                create=self._options.declare and f"{topic}.{group}" not in self._names,
                ordered=options.ordered and group is not None,
                position=position,
            )
            if generation == 1:
                for name in letters:
                    await self._check_letter_topic(name)
            try:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT):
                    return await self._driver.subscribe(spec, listener)
            except TimeoutError as error:
                raise ConnectionLost(
                    f"subscribe to {topic} (group {group}) failed on {self._url}: no answer within "
                    f"{SUBSCRIBE_TIMEOUT:g} s"
                ) from error

        return open_source

    async def aclose(self) -> None:
        """Drain the subscriptions, finish queued publishes, and disconnect.

        Handlers that still run may publish and await replies. If a handler calls this, closing
        starts and the call returns at once, because closing waits for that handler. Subscriptions
        drain concurrently, each within its `drain_timeout` + 5 s. Then the reply subscription,
        queued publishes (5 s) and the driver (3 s) are closed, also if the broker is dead. A second
        call does nothing more.
        """
        if self._closed is None:
            # A context of its own, so that the task does not count as the caller's handler.
            close = self._close(asyncio.current_task())
            self._closed = supervise(close, name="anymq-close", context=Context())
        if not any(item.is_handling_caller() for item in self._subscriptions):
            await asyncio.shield(self._closed)

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        closing = (item.close_for(caller) for item in list(self._subscriptions))
        for outcome in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("closing a subscription on %s failed", self._url, exc_info=outcome)
        self._sender.is_closed = True
        await self._requests.aclose()
        await self._sender.publisher.aclose(PUBLISH_CLOSE_SECONDS)
        await self._stores.aclose()
        try:
            async with asyncio.timeout(DRIVER_CLOSE_SECONDS):
                await self._driver.aclose()
        except Exception as raw:
            log.warning("%s", self._translate(raw, "closing"))

    async def _redeclare_consumed(self, topic: str) -> None:
        """Declare a topic again for a subscription that reopens its source.

        Another program may have recreated the topic with other settings. The subscription consumes
        it nevertheless.
        """
        try:
            await self._declarations.redeclare(topic)
        except ConfigurationError as error:
            log.rarely((topic, "otherwise"), WARNING, "%s; consuming continues", error)

    async def _check_letter_topic(self, letters: str) -> None:
        """Log a warning if a dead-letter topic is missing that anymq may not create."""
        spec = self._declarations.spec(letters)
        if spec.create:
            return
        try:
            async with asyncio.timeout(DESCRIBE_TIMEOUT):
                await self._driver.describe_topic(spec)
        except Exception as raw:
            error = self._translate(raw, f"describing {letters}")
            if isinstance(error, NotFound):
                log.warning(
                    "dead-letter topic %s does not exist, and anymq may not create it: create it; "
                    "until then, rejected messages stay unsettled in their consumer",
                    spec.native,
                )
            else:
                log.debug("%s", error)

    def _native_group(self, topic: str, group: str | None) -> str:
        return self._names.group(topic, group)

    def _translate(self, error: BaseException, doing: str) -> BaseException:
        return translate(error, self._driver.errors, doing=doing, where=str(self._url))

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Closed(f"the broker {self._url} is closed")
        check_loop(self._loop)
