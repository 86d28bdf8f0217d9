"""`TestBroker`: runs an app on the memory backend, on a virtual clock."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any, Self, TypeVar, Unpack

from ..app import App
from ..broker import Broker
from ..driver.clock import REAL
from ..errors import AnymqError, NotFound
from ..logs import logger
from ..message import Message, Receipt
from ..middleware import DeadLetter
from ..native_names import NativeNames
from ..operating.letter import Letter
from ..publishing.options import PublishOptions
from ..subscriber import Subscriber
from ..topic import Topic, as_topic, dead_letter_topic
from ..url import masked
from . import memory, real
from .attempts import Attempt
from .calls import Calls, HandlerName
from .clock import VirtualClock
from .errors import HandlerErrors
from .recorder import Recorder

T = TypeVar("T")

log = logger("anymq.testing")

POLL_SECONDS = 0.2
"""Seconds between two polls of a real broker."""


class TestBroker:
    """An app under test: its real handlers and middleware, on a private memory broker.

    ::

        async with TestBroker(app) as broker:
            await broker.publish("orders", OrderPlaced(...))
            await broker.drain()
            assert broker.published("invoices")[0].key == "o-17"
            await broker.advance(60)              # 60 s of virtual time: backoff, delays

    Nothing is patched; the app is started with another URL, and with middleware that observes. With
    `url`, the same test runs on a real broker, where time is real and `advance(60)` takes a minute.
    There the topics and groups of the app get names that no other test uses, and are deleted at the
    end; those in the app's `names` keep theirs. With `isolate=False` all keep their names, and the
    messages that they hold already. Options come from that URL alone, and not from the environment
    or a file, which are about the broker in production.

    Leaving raises the errors of handlers that `drain` has not raised, and `AssertionError` if
    failures of `fail_next` were not used, unless the test has failed already.
    """

    __test__ = False

    def __init__(self, app: App, *, url: str | None = None, isolate: bool = True) -> None:
        self._app = app
        self._url = url
        # It begins at the real time, because handlers compute times of delivery from that.
        self._clock = None if url else VirtualClock(time.time())
        self._prefix = f"test-{secrets.token_hex(5)}." if url and isolate else ""
        self._names = NativeNames(app.names, prefix=self._prefix)
        self._errors = HandlerErrors()
        self._calls = Calls(app, self._errors)
        self._recorder = Recorder(self._errors)

    async def __aenter__(self) -> Self:
        try:
            await self._app.start(
                url=self._url or "memory://",
                clock=self._clock or REAL,
                isolated=True,
                names=self._names,
                watch=self._watch,
            )
        except BaseException:
            await self._clean_up(failed=True)
            raise
        return self

    async def __aexit__(self, failure: type[BaseException] | None, *_: object) -> None:
        closing = asyncio.ensure_future(self._app.aclose())
        while self._clock is not None and not closing.done():
            await self._clock.advance(self._clock.poll)
        try:
            await closing
        finally:
            await self._clean_up(failed=failure is not None)
        if failure is None:
            self._errors.raise_unexpected()
            self._calls.check_used()

    async def _clean_up(self, *, failed: bool) -> None:
        """Delete the topics of this test."""
        if self._url is None or not self._prefix:
            return
        try:
            await real.delete_topics(self._url, self._names)
        except AnymqError as error:
            if not failed:
                raise
            log.warning("the topics %s* of a failed test remain: %s", self._prefix, error)

    def __repr__(self) -> str:
        where = self._url or "memory://"
        if self._clock is None or not self._app.subscriptions:
            return f"<TestBroker on {masked(where)}>"
        busy = memory.is_busy(self.broker, self._app.subscriptions, self._clock)
        return f"<TestBroker on {where}{': messages are due, call drain()' if busy else ''}>"

    def _watch(self, item: Subscriber) -> Subscriber:
        return self._recorder.watch(self._calls.watch(item))

    @property
    def broker(self) -> Broker:
        """The broker the app runs on."""
        return self._app.broker

    async def publish(
        self, topic: str | Topic[T], payload: T, **options: Unpack[PublishOptions]
    ) -> Receipt:
        """Publish as another service would. The arguments are those of `Broker.publish`."""
        return await self.broker.publish(topic, payload, **options)

    # Time.

    async def drain(self, timeout: float = 10.0) -> None:
        """Return when the handlers have handled every message that is due.

        A message that waits for a retry stays; `advance` the time for it. Raises `TimeoutError`
        after `timeout` real seconds. On a real broker it polls the statistics of the app's groups.
        For broadcast handlers it only knows of messages that have arrived.

        Then it raises, as it is, the error that a handler has raised since the last `drain`: the
        first of a message, and an `ExceptionGroup` of the errors of several messages. Errors that
        the test expects (`expect_errors`) or causes (`fail_next`) are not raised, nor are
        `Reject`, `RetryAfter` and `StopLane`.
        """
        __tracebackhide__ = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle()
        except TimeoutError as late:
            self._errors.raise_unexpected()
            running = ", ".join(map(repr, self._recorder.running)) or "none; messages are due"
            raise TimeoutError(f"not idle within {timeout:g} s; running: {running}") from late
        self._errors.raise_unexpected()

    async def advance(self, seconds: float, *, timeout: float = 10.0) -> None:
        """Let `seconds` of the app's time pass, then `drain` within `timeout` real seconds."""
        __tracebackhide__ = True
        if self._clock is None:
            await asyncio.sleep(seconds)
        else:
            await self._clock.advance(seconds)
        await self.drain(timeout)

    async def _idle(self) -> None:
        quiet = 0
        while self._clock is None and quiet < 2:
            busy = [await real.is_busy(self.broker, item) for item in self._app.subscriptions]
            overdue = self._prefix and self._recorder.is_overdue(REAL.now())
            quiet = 0 if overdue or any(busy) else quiet + 1
            await asyncio.sleep(POLL_SECONDS)
        while self._clock is not None:
            await self._clock.settle()
            if not memory.is_busy(self.broker, self._app.subscriptions, self._clock):
                return
            await asyncio.sleep(0)

    # Faults.

    def expect_errors(self, *types: type[Exception]) -> None:
        """Have `drain` no longer raise the errors of handlers, or only those not of `types`."""
        self._errors.expect(types or (Exception,))

    def fail_next(
        self,
        handler: HandlerName,
        error: Exception | type[Exception] | None = None,
        *,
        times: int = 1,
    ) -> None:
        """Have the next `times` calls of `handler` raise `error` before the function runs.

        The error is a `RuntimeError` by default. `handler` is the function, its name, or its topic
        and group. `drain` does not raise these errors; they are retried, or dead-lettered, as any
        other. Raises `ConfigurationError` for a handler that the app does not have.
        """
        self._calls.fail_next(handler, error, times)

    def duplicate_all(self) -> None:
        """Deliver every message twice from now on, to prove that handlers are idempotent.

        Each group gets a message once more after it has handled it, as if the process had ended
        just before its acknowledgement. It is the same attempt, and the next message of its key
        waits for it. Messages that are not acknowledged (retried, rejected) are not repeated.
        """
        self._recorder.duplicates = True

    # Observations.

    def published(self, topic: str | Topic[Any]) -> Sequence[Message]:
        """Return the messages on `topic`, oldest first.

        Raises `NotFound` for a name that no handler of the app reads and to which nothing was
        published, because it may be misspelt. Pass the `Topic` of one that may be empty.
        """
        name = as_topic(topic).name
        found = self._on(name)
        if found is None and not isinstance(topic, Topic) and name not in self._known():
            raise NotFound(
                f"there is no topic {name!r}: no handler of the app reads it, and nothing was "
                "published to it; pass its Topic if it may stay empty"
            )
        return found or []

    def deliveries(
        self, topic: str | Topic[Any], *, id: str | None = None, group: str | None = None
    ) -> Sequence[Attempt]:
        """Return each attempt of the app's handlers at messages of `topic`, in their order.

        With `id` these are the attempts at one message, with `group` those of one group. Raises
        `NotFound` if no handler of the app reads the topic (for the group).
        """
        name = as_topic(topic).name
        self._check_read(name, group)
        return [
            attempt
            for attempt in self._recorder.attempts
            if attempt.topic == name
            and (id is None or attempt.message.id == id)
            and (group is None or attempt.group == group)
        ]

    def handled(self, handler: HandlerName) -> Sequence[Any]:
        """Return the payloads with which `handler` was called, oldest first.

        `handler` is as in `fail_next`. Calls that failed count, except those that `fail_next`
        prevented. For a handler without a payload it is the `Delivery` or `Message`, for one with
        a batch the list.
        """
        return self._calls.of(handler)

    def dead_letters(
        self, topic: str | Topic[Any], *, group: str | None = None
    ) -> Sequence[Letter]:
        """Return the dead letters of `topic`, oldest first: those of one group, or by group.

        Letters that were redriven or dropped are left out. Raises `NotFound` if there are none and
        no handler of the app reads the topic (for the group).
        """
        name = as_topic(topic).name
        readers = [item.group for item in self._app.subscribers if item.topic.name == name]
        groups = dict.fromkeys(readers if group is None else [group])
        found = [letter for item in groups for letter in self._letters(name, item)]
        if not found:
            self._check_read(name, group)
        return found

    def _letters(self, topic: str, group: str | None) -> list[Letter]:
        stored_in = self._letters_of(topic, group)
        if self._real is not None:
            return real.letters(self._real, topic, group, stored_in, self._names)
        native = self._names.topic(stored_in)
        return memory.letters(self.broker, topic, group, stored_in, native)

    def _check_read(self, topic: str, group: str | None) -> None:
        """Raise `NotFound` if no handler reads `topic`, or none for `group` if it is stated."""
        readers = [item.group for item in self._app.subscribers if item.topic.name == topic]
        if not readers or group not in (None, *readers):
            of = "" if group is None else f" for the group {group!r}"
            raise NotFound(f"no handler of the app reads {topic!r}{of}")

    def _known(self) -> set[str]:
        """Return the topics that the app reads, and those of their dead letters."""
        readers = self._app.subscribers
        return {item.topic.name for item in readers} | {
            self._letters_of(item.topic.name, item.group) for item in readers
        }

    def _letters_of(self, topic: str, group: str | None) -> str:
        """Return the topic of the dead letters of `group` on `topic`."""
        for item in self._app.subscribers:
            if (item.topic.name, item.group) == (topic, group):
                for link in item.options.middleware or ():
                    if isinstance(link, DeadLetter) and link.topic:
                        return link.topic
        return dead_letter_topic(topic, group)

    def _on(self, topic: str) -> list[Message] | None:
        """Return the messages on `topic`; None if it does not exist."""
        if self._real is not None:
            return real.read(self._real, topic, self._names)
        return memory.read(self.broker, topic, self._names.topic(topic))

    @property
    def _real(self) -> str | None:
        """The URL, unless it is that of a memory broker."""
        return None if self.broker.url.scheme == "memory" else self._url
