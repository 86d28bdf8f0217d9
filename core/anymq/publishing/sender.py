"""`Sender`: the publishing side of a connection, from payloads to receipts."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

from ..driver.base import Driver
from ..driver.clock import Clock
from ..driver.options import ConnectOptions
from ..driver.records import Record
from ..errors import Closed, ConfigurationError, UnsupportedOperation
from ..identity import scope_of, unique_id
from ..message import Message, Receipt
from ..middleware.chain import Publish, PublishMiddleware, compose
from ..topic import Topic, as_topic
from ..url import URL
from ..wire.cloudevents import encode
from .declarations import Declarations
from .encoder import RecordEncoder
from .options import stating
from .publisher import NO_ERROR, Publisher, check_loop, receipt_of

MAX_ENCODERS = 1024
"""Topics whose encoders are remembered."""
MAX_DELAY = timedelta(days=366)
"""The longest delay of a message."""

Stated = tuple[str | None, str | None, str | None]
"""The correlation id, causation id and content type that the publisher states."""

_sending: ContextVar[tuple[float, float | None]] = ContextVar("anymq-publish")
"""The timeout and the due time of the publish whose middleware is running."""

# Builds a `Receipt` on the path of every message; and `id`, which parameters shadow.
_new, _identity = tuple.__new__, builtins.id


class Sender:
    """Checks and encodes payloads, runs the publish middleware, and awaits confirmations."""

    def __init__(
        self,
        driver: Driver,
        url: URL,
        *,
        options: ConnectOptions,
        source: str,
        middleware: Sequence[PublishMiddleware],
        declarations: Declarations,
        translate: Callable[[BaseException, str], BaseException],
        clock: Clock,
    ) -> None:
        self.timeout = options.publish_timeout
        """Seconds that a publish has, unless it states its own."""
        self.max_body = min(options.max_body, driver.max_body)
        """The most bytes of a body."""
        self.declarations = declarations
        self.publisher = Publisher(
            driver, translate=translate, declare=declarations.redeclare, clock=clock
        )
        self.encoders: dict[object, RecordEncoder] = {}
        """By topic name, or by the identity of a `Topic`, the encoder of its records."""
        self.is_closed = False
        self._driver = driver
        self._url = url
        self._source = source
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        inner: Publish = self._send_from_middleware
        self.middleware = compose(middleware, inner) if middleware else None

    def check(self) -> None:
        """Raise `Closed`, or `StateError` in another event loop than the connection's."""
        if self.is_closed:
            raise Closed(f"the broker {self._url} is closed")
        check_loop(self._loop)

    def encoder(self, topic: str | Topic[Any]) -> RecordEncoder:
        """Return the encoder of `topic`; raises as `check` does."""
        self.check()
        # By identity, because an encoder keeps its topic, and hashing a topic is expensive.
        key = topic if isinstance(topic, str) else _identity(topic)
        encoder = self.encoders.get(key)
        if encoder is None:
            named = as_topic(topic)
            self.declarations.learn(named)
            if len(self.encoders) >= MAX_ENCODERS:
                self.encoders.clear()
            encoder = self.encoders[key] = RecordEncoder(
                named,
                self._driver.binding,
                source=self._source,
                max_body=self.max_body,
                where=str(self._url),
            )
        return encoder

    def due(self, delay: float | timedelta | None, deliver_at: datetime | None) -> float | None:
        """Return the due time of a message, in seconds since the epoch; None for at once."""
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
        if wait > MAX_DELAY.total_seconds():
            raise ConfigurationError(f"a message can be delayed by {MAX_DELAY} at most")
        support = self._driver.capabilities.delayed_publish
        if not support:
            raise UnsupportedOperation(f"{self._url} cannot delay: {support.note}")
        return now + wait if wait > 0 else None

    async def send(
        self, message: Message, timeout: float | None = None, due: float | None = None
    ) -> Receipt:
        """Publish one message, through the publish middleware."""
        seconds = await self._declared(message.topic, timeout)
        if self.middleware is None:
            return await self._send(message, seconds, due)
        token = _sending.set((seconds, due))
        try:
            return await self.middleware(message)
        finally:
            _sending.reset(token)

    async def send_many(
        self,
        encoder: RecordEncoder,
        payloads: Sequence[Any],
        *,
        key: str | None,
        keys: Sequence[str] | None,
        ids: Sequence[str] | None,
        headers: Mapping[str, str] | None,
        stated: Stated,
        timeout: float | None,
        due: float | None,
    ) -> list[Receipt | Exception]:
        """Publish messages of one topic, each through the publish middleware."""
        now = datetime.now(UTC)
        messages = [
            stating(
                encoder.message(
                    payload,
                    key if keys is None else keys[index],
                    None if ids is None else ids[index],
                    headers,
                    None,
                    now,
                ),
                *stated,
            )
            for index, payload in enumerate(payloads)
        ]
        if self.middleware is not None:
            return await self._send_each(messages, timeout, due)
        return await self.send_records(
            [self._record(message) for message in messages], timeout, due
        )

    async def send_records(
        self, records: Sequence[Record], timeout: float | None, due: float | None
    ) -> list[Receipt | Exception]:
        """Publish records of one topic together, without middleware."""
        topic = records[0].topic
        try:
            seconds = await self._declared(topic, timeout)
        except Exception as error:
            return [error] * len(records)
        if due is not None:
            for record in records:
                record.deliver_at = due
        outcomes = await self.publisher.submit_many(records, seconds)
        if NO_ERROR.issuperset(map(type, outcomes)):
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

    async def _send_each(
        self, messages: Sequence[Message], timeout: float | None, due: float | None
    ) -> list[Receipt | Exception]:
        pending = [asyncio.ensure_future(self.send(item, timeout, due)) for item in messages]
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

    async def _declared(self, topic: str, timeout: float | None) -> float:
        """Make `topic` ready, and return the seconds that are left for the publish."""
        seconds = self.timeout if timeout is None else timeout
        if topic not in self.declarations.ready:
            return await self.declarations.declare_within(topic, seconds)
        return seconds

    async def _send_from_middleware(self, message: Message) -> Receipt:
        return await self._send(message, *_sending.get())

    async def _send(self, message: Message, seconds: float, due: float | None) -> Receipt:
        record = self._record(message)
        record.deliver_at = due
        position = await self.publisher.submit(record, seconds)
        return receipt_of(message.id, message.topic, position)

    def _record(self, message: Message) -> Record:
        unique = unique_id(scope_of(message.source), message.id)
        return encode(message, self._driver.binding, unique=unique)
