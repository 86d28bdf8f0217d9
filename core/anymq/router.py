"""`Router`: handlers of one part of an application, which an `App` includes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar, Unpack, overload

from .consuming.signature import AnyFunction, Function, name_of
from .errors import ConfigurationError
from .subscriber import (
    Declaration,
    Returning,
    SubscriberSettings,
    check_settings,
)
from .topic import Topic, as_topic

F = TypeVar("F", bound=Function)
A = TypeVar("A", bound=AnyFunction)
R = TypeVar("R")


class Handlers(ABC):
    """The part that `App` and `Router` have in common: registering handlers."""

    @abstractmethod
    def _add(self, declarations: Sequence[Declaration]) -> None:
        """Register all of `declarations`, or raise `ConfigurationError` and register none."""

    @overload
    def subscriber(
        self,
        topic: str | Topic[Any],
        *,
        group: str | None,
        to: None = None,
        reply: Literal[False] = False,
        **settings: Unpack[SubscriberSettings],
    ) -> Callable[[F], F]: ...

    @overload
    def subscriber(
        self,
        topic: str | Topic[Any],
        *,
        group: str | None,
        to: Topic[R],
        reply: bool = False,
        **settings: Unpack[SubscriberSettings],
    ) -> Returning[R]: ...

    @overload
    def subscriber(
        self,
        topic: str | Topic[Any],
        *,
        group: str | None,
        to: str | None = None,
        reply: bool = False,
        **settings: Unpack[SubscriberSettings],
    ) -> Callable[[A], A]: ...

    def subscriber(
        self,
        topic: str | Topic[Any],
        *,
        group: str | None,
        to: str | Topic[Any] | None = None,
        reply: bool = False,
        **settings: Unpack[SubscriberSettings],
    ) -> Any:
        """Register the decorated async function as handler of `topic` for `group`.

        The annotations of the function select its arguments: the payload, the `Delivery`, the
        `Message`. The settings, with their defaults:

        - `start=None`, `concurrency=1`, `ordered=False`, `batch=None`, `ack_deadline=30.0`,
          `prefetch=None`, `prefetch_bytes=None`, `unknown="reject"`: as in `Broker.subscribe`.
        - `acknowledge=Acknowledge()`, `dead_letter=DeadLetter()`, `kill_switch=None`,
          `retry=Retry()`, `idempotency=None`, `rate_limit=None`, `deadline=Deadline()`: the chain,
          outermost first. Pass None to omit one. With `retry=None` the first failure dead-letters
          the message.
        - `middleware=()`: runs inside that chain, after the middleware of the app and the routers.

        With `to`, a topic, the payload that the function returns is published before the message
        is acknowledged; None publishes nothing. It has the key of the handled message, whose
        correlation it carries on, and an id that follows from that message: a redelivery
        publishes the same event again, and consumers with `Idempotency` skip it. With `reply=True`
        the returned value, None as well, answers the message if it is a request. If publishing
        fails, the handler has failed, and is retried.

        Several handlers of one topic and group share its messages by CloudEvents type. Each handles
        the types of the classes in its annotation, and all must be registered with equal options.

        Raises `ConfigurationError` at once for a bad topic, group, setting or signature.
        """
        stated = check_settings(settings, "a handler")
        target, result = as_topic(topic), None if to is None else as_topic(to)

        def register(function: A) -> A:
            self._add(
                [
                    Declaration(
                        function=function,
                        topic=target,
                        group=group,
                        to=result,
                        reply=reply,
                        settings=stated,
                    )
                ]
            )
            return function

        return register

    def include(
        self, router: Router, *, prefix: str = "", **defaults: Unpack[SubscriberSettings]
    ) -> None:
        """Register the handlers of `router`, which then takes no more.

        `prefix` is put before the names of their topics, `to` included. `defaults` count where
        neither a handler nor its router states the setting; `middleware` is used in addition, and
        runs before that of the router. A router may be included several times, with different
        prefixes or in several apps.

        Raises `ConfigurationError` and includes nothing if a handler is registered already, or
        cannot share the messages of its group with the others.
        """
        if not isinstance(router, Router):
            raise ConfigurationError(f"include takes a Router, not {type(router).__name__}")
        if router is self:
            raise ConfigurationError("a router cannot include itself")
        stated = check_settings(defaults, "include()")
        self._add([item.within(prefix, stated) for item in router.declarations])
        router.close()


class Router(Handlers):
    """Handlers of one part of an application, in a file of its own; it has no broker.

    ::

        router = anymq.Router(retry=Retry(attempts=10))

        @router.subscriber("orders", group="billing")
        async def bill(order: OrderPlaced) -> None: ...

        app.include(router)                   # in the file of the app

    `prefix` is put before the names of topics in its decorators, for example `"shop."`. `defaults`
    are the settings of handlers that state none, as in `App.subscriber`; `middleware` wraps all of
    its handlers, inside that of the app. Routers may include routers.
    """

    def __init__(self, *, prefix: str = "", **defaults: Unpack[SubscriberSettings]) -> None:
        self._prefix = prefix
        self._defaults = check_settings(defaults, "a Router")
        self._declarations: list[Declaration] = []
        self._closed = False

    @property
    def declarations(self) -> Sequence[Declaration]:
        """Internal. The handlers with the prefix and the defaults of this router."""
        return tuple(self._declarations)

    def close(self) -> None:
        """Internal. Take no more handlers: those of an included router would not run."""
        self._closed = True

    def _add(self, declarations: Sequence[Declaration]) -> None:
        if self._closed:
            name = name_of(declarations[0].function) if declarations else "a router"
            raise ConfigurationError(
                f"the router has been included already, so {name} would not run: register "
                "handlers before, in modules that are imported before"
            )
        added = [item.within(self._prefix, self._defaults) for item in declarations]
        for item in added:
            item.subscriber()
        self._declarations += added
