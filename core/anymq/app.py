"""`App`: handlers, their shared resources, and the process that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from .broker import Broker
from .connect import Connecting, connect
from .consuming.handlers import adapt, by_type
from .consuming.signature import Function, is_same, name_of
from .driver.clock import REAL, Clock
from .errors import AnymqError, ConfigurationError, StateError
from .event_loop import loop_factory
from .logs import logger
from .message import Receipt
from .middleware import Middleware, PublishMiddleware
from .names import check_attribute
from .native_names import NativeNames
from .publishing.options import PublishOptions
from .router import Handlers
from .serving import Serving
from .subscriber import Declaration, Subscriber, differences
from .topic import Topic, as_topic
from .url import URL

if TYPE_CHECKING:
    from .consuming.subscription import Subscription
    from .driver.checks import Check
    from .health import Health
    from .health.app_reporter import AppReporter, Snapshot
    from .health.report import State
    from .settings import Settings

log = logger("anymq")

T = TypeVar("T")

Lifespan = Callable[["App"], AbstractAsyncContextManager[Any]]


Watch = Callable[[Subscriber], Subscriber]
"""A function that returns what an app starts instead of a handler, see `App.start`."""


class App(Handlers):
    """Handlers bound to topics, with one broker connection.

    ::

        app = anymq.App()                     # the URL from ANYMQ_URL

        @app.subscriber("orders", group="billing", retry=Retry(attempts=5))
        async def bill(order: OrderPlaced, delivery: Delivery) -> None: ...

        app.run()

    `url` defaults to that of the environment, as in `connect`. `name` and `version` are the
    application's. The name is the source of what it publishes, unless `source` or the URL states
    another; and the names of its members at the broker begin with it, see `Broker.name`.
    `lifespan(app)` returns an async context manager, entered before the first delivery and exited
    after the last; open resources shared by handlers there. `middleware` wraps every handler and
    runs inside the whole built-in chain. `publishes` are the topics that the app publishes to:
    documents and graphs of the app name them, and it limits nothing. `drain_timeout` is the time in
    seconds that running handlers have when the app stops.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        name: str | None = None,
        version: str | None = None,
        source: str | None = None,
        names: Mapping[str, str] | None = None,
        lifespan: Lifespan | None = None,
        middleware: Sequence[Middleware] = (),
        publish_middleware: Sequence[PublishMiddleware] = (),
        publishes: Sequence[str | Topic[Any]] = (),
        drain_timeout: float = 20.0,
    ) -> None:
        self._url = url
        self._name = None if name is None else check_attribute("name", name)
        self._version = None if version is None else check_attribute("version", version)
        self._source = source
        self._names = names
        self._lifespan = lifespan
        self._middleware = tuple(middleware)
        self._publish_middleware = tuple(publish_middleware)
        self._publishes = tuple(as_topic(topic) for topic in publishes)
        self._drain_timeout = drain_timeout
        self._subscribers: list[Subscriber] = []
        self._subscriptions: tuple[Subscription, ...] = ()
        self._broker: Broker | None = None
        self._stack: AsyncExitStack | None = None
        self._serving: Serving | None = None
        self._closes_within: float | None = None
        self._started = False
        self._state: State = "stopped"
        self._reporter: AppReporter | None = None
        self.state: dict[str, Any] = {}
        """Resources that the lifespan shares with handlers."""

    @property
    def name(self) -> str | None:
        """The name of the application, if it has one."""
        return self._name

    @property
    def version(self) -> str | None:
        """The version of the application, if it has one."""
        return self._version

    @property
    def url(self) -> URL | None:
        """The broker's URL, as it was given to the app; None leaves it to the environment."""
        return None if self._url is None else URL.parse(self._url)

    @property
    def names(self) -> Mapping[str, str]:
        """The names on the broker that topics and groups are mapped to."""
        return dict(self._names or {})

    @property
    def publishes(self) -> Sequence[Topic[Any]]:
        """The topics that the app says it publishes to."""
        return self._publishes

    @property
    def subscribers(self) -> Sequence[Subscriber]:
        """The registered handlers, in order."""
        return tuple(self._subscribers)

    @property
    def subscriptions(self) -> Sequence[Subscription]:
        """The subscriptions of the handlers in order, to pause them or to change the concurrency.

        Handlers that share a group's messages by type have one subscription, at the index of the
        first. Empty while the app does not run.
        """
        return self._subscriptions

    @property
    def broker(self) -> Broker:
        """The broker, while the app runs; raises `StateError` otherwise."""
        if self._broker is None:
            raise StateError("the app is not running; use its broker inside `async with app`")
        return self._broker

    def _add(self, declarations: Sequence[Declaration]) -> None:
        if self._stack is not None:
            raise StateError("the app is running: register handlers and routers before it starts")
        added: list[Subscriber] = []
        for declaration in declarations:
            item = declaration.subscriber(self._middleware, self._drain_timeout)
            self._check_shares(item, [*self._subscribers, *added])
            added.append(item)
        self._subscribers += added

    def _check_shares(self, item: Subscriber, others: Sequence[Subscriber]) -> None:
        """Raise `ConfigurationError` if `item` cannot share its group's messages with `others`."""
        name, topic, group = name_of(item.function), item.topic.name, item.group
        same = [other for other in others if (other.topic.name, other.group) == (topic, group)]
        if any(is_same(other.function, item.function) for other in same):
            raise ConfigurationError(
                f"the handler {name} is registered twice for {topic} and the group {group}: has "
                "its router been included twice?"
            )
        if group is None or not same:
            return
        by_type([(one.function, one.returned(self.publish)) for one in (*same, item)], item.topic)
        different = differences(item.options, same[0].options)
        if different or item.options.batch is not None:
            they = f"they differ in {', '.join(different)}" if different else "they have one"
            raise ConfigurationError(
                f"the handlers {name_of(same[0].function)} and {name} of {topic} for the group "
                f"{group} share one subscription: register them with equal options, and without "
                f"a batch; {they}"
            )

    async def publish(
        self, topic: str | Topic[T], payload: T, **options: Unpack[PublishOptions]
    ) -> Receipt:
        """Publish on the app's broker; as `Broker.publish`."""
        return await self.broker.publish(topic, payload, **options)

    def settings(self) -> Settings:
        """Return the settings with which the app connects, and the origin of each."""
        from .settings import effective

        return effective(self._url)

    def diagnose(self, *, prefix: str | None = None) -> AsyncGenerator[Check, None]:
        """Yield the checks of the app's broker, as `anymq.diagnose` does."""
        from .diagnosis import PREFIX, diagnose

        return diagnose(self._url, prefix=prefix or PREFIX)

    def connect(self) -> Connecting:
        """Return a connection of its own to the app's broker, as `anymq.connect` does.

        It has the app's URL, names, source and publish middleware, and needs no running app.
        """
        return self._connecting(self._url, REAL, isolated=False)

    def _connecting(
        self, url: str | None, clock: Clock, *, isolated: bool, names: NativeNames | None = None
    ) -> Connecting:
        return connect(
            url,
            name=self._name,
            source=self._source,
            names=self._names if names is None else names,
            publish_middleware=self._publish_middleware,
            clock=clock,
            isolated=isolated,
        )

    async def health(self) -> Health:
        """Return the state of the app: whether it is live and ready, and the reasons if not.

        It asks the broker for an answer, at most every 2 s, and returns within a second.
        """
        return await self._health_reporter.health()

    async def metrics(self) -> str:
        """Return the metrics of the app in the text format of Prometheus, within a second."""
        return await self._health_reporter.metrics()

    @property
    def _health_reporter(self) -> AppReporter:
        if self._reporter is None:
            from .health.app_reporter import AppReporter

            self._reporter = AppReporter(name=self._name, version=self._version, look=self._look)
        return self._reporter

    def _look(self) -> Snapshot:
        from .health.app_reporter import Snapshot

        stopping = self._serving is not None and self._serving.stopping
        state: State = "draining" if stopping and self._state == "running" else self._state
        return Snapshot(state, self._broker, self._subscriptions)

    def run(self, *, health: str | None = None) -> None:
        """Run until SIGINT or SIGTERM, then drain and return. A second signal ends the drain.

        `health` is the address of an endpoint for probes and metrics, such as `:8080`; see
        `anymq.health`. An error that prevents the start is logged in one line, and the process
        exits with code 2. uvloop is used if it is installed.
        """
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self.serve(health=health))
        except AnymqError as error:
            if self._started:
                raise
            log.critical("cannot start: %s", error)
            raise SystemExit(2) from error

    async def serve(
        self,
        *,
        url: str | None = None,
        health: str | None = None,
        signals: bool = True,
        started: Callable[[], None] | None = None,
    ) -> None:
        """Run as `run` does, on the running event loop.

        `url` replaces the app's own. Without `signals` only `stop` stops it. `started` is called
        once every handler listens.
        """
        self._serving = serving = Serving()
        try:
            with serving.signals() if signals else nullcontext():
                async with _health_endpoint(self, health), AsyncExitStack() as stack:
                    await self.start(url=url)
                    stack.push_async_callback(self._drain, serving)
                    if started is not None:
                        started()
                    title = " ".join(filter(None, (self._name or "app", self._version)))
                    handlers = len(self._subscribers)
                    log.info("%s runs %d handlers as %s", title, handlers, self.broker.name)
                    await serving.wait()
        except asyncio.CancelledError:
            # Suppress only the cancellation by a second signal.
            task = asyncio.current_task()
            if not serving.cut_short or task is None or task.uncancel():
                raise
        finally:
            self._serving = None

    async def _drain(self, serving: Serving) -> None:
        seconds = serving.drain_timeout
        if serving.stopping and not serving.cut_short:
            waits = self._drain_timeout if seconds is None else seconds
            log.info("stopping: waiting up to %g s for handlers", waits)
        await self.aclose(drain_timeout=seconds)

    def stop(self, *, drain_timeout: float | None = None) -> None:
        """Have `run` or `serve` drain and return.

        `drain_timeout` replaces that of the app. With 0 handlers are cancelled, also if the app
        drains already.
        """
        if self._serving is not None:
            self._serving.stop(drain_timeout)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def start(
        self,
        *,
        url: str | None = None,
        clock: Clock = REAL,
        isolated: bool = False,
        names: NativeNames | None = None,
        watch: Watch | None = None,
    ) -> None:
        """Connect, enter the lifespan, and start every handler, as `async with app` does.

        `isolated` is as in `connect`. The others are for tests: `url` and `names` replace the app's
        own, and `watch` returns what is started instead of a handler: the same topic and group,
        with more middleware or another function.

        Raises the errors of connecting and subscribing, after closing everything.
        """
        if self._stack is not None:
            raise StateError("the app is running already")
        connecting = self._connecting(url or self._url, clock, isolated=isolated, names=names)
        handlers = [item if watch is None else watch(item) for item in self._subscribers]
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._stopped)
            self._state = "starting"
            self._broker = await stack.enter_async_context(connecting)
            stack.callback(setattr, self, "_broker", None)
            if self._lifespan is not None:
                await stack.enter_async_context(self._lifespan(self))
            self._subscriptions = tuple(self._subscribe(group) for group in _by_group(handlers))
            stack.callback(setattr, self, "_subscriptions", ())
            stack.push_async_callback(self._close_subscriptions)
            entering = (_enter(subscription) for subscription in self._subscriptions)
            for outcome in await asyncio.gather(*entering, return_exceptions=True):
                if outcome is not None:
                    raise outcome
            self._stack = stack.pop_all()
        self._started = True
        self._state = "running"
        for item in self._subscribers:
            log.info(
                "%s listens to %s (group %s, concurrency %d%s)",
                name_of(item.function),
                item.topic.name,
                item.group or "none: broadcast",
                item.options.concurrency,
                ", ordered" if item.options.ordered else "",
            )

    async def aclose(self, *, drain_timeout: float | None = None) -> None:
        """Drain the handlers, exit the lifespan, and disconnect; a second call does nothing.

        `drain_timeout` replaces that of the app.
        """
        stack, self._stack = self._stack, None
        if stack is not None:
            self._state = "draining"
            self._closes_within = drain_timeout
            await stack.aclose()

    async def _close_subscriptions(self) -> None:
        seconds = self._closes_within
        await asyncio.gather(*(item.aclose(drain_timeout=seconds) for item in self._subscriptions))

    async def _stopped(self) -> None:
        self._state = "stopped"
        if self._reporter is not None:
            await self._reporter.aclose()

    def _subscribe(self, group: Sequence[Subscriber]) -> Subscription:
        item = group[0]
        handlers = [(one.function, one.returned(self.publish)) for one in group]
        returned = handlers[0][1]
        function: Function
        if len(group) > 1:
            function = by_type(handlers, item.topic)
        elif returned is not None:
            function = adapt(item.function, item.topic, returned=returned)
        else:
            function = item.function
        return self.broker.subscribe_with(item.options, handler=function)


def _by_group(handlers: Sequence[Subscriber]) -> list[list[Subscriber]]:
    """Return the handlers, grouped if they share one group's messages."""
    groups: list[list[Subscriber]] = []
    for item in handlers:
        for group in groups:
            if _one_group(group[0], item):
                group.append(item)
                break
        else:
            groups.append([item])
    return groups


def _one_group(one: Subscriber, other: Subscriber) -> bool:
    """Whether both receive messages of the same group."""
    return one.group is not None and (one.topic.name, one.group) == (other.topic.name, other.group)


def _health_endpoint(app: App, health: str | None) -> AbstractAsyncContextManager[None]:
    """Return a context in which the health of `app` is served at the address `health`, if any."""
    if health is None:
        return nullcontext()
    from .health.server import serving

    return serving(app, health)


async def _enter(subscription: Subscription) -> None:
    await subscription.__aenter__()
