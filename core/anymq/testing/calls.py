"""`Calls`: the calls of an app's handler functions, and the failures that a test injects."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..app import App
from ..consuming.delivery import Delivery
from ..errors import ConfigurationError
from ..message import Message
from ..subscriber import Subscriber
from ..topic import Topic, as_topic
from .errors import HandlerErrors

Function = Callable[..., Awaitable[Any]]
HandlerName = Function | str | tuple[str | Topic[Any], str | None]
"""A handler: the function, its name, or its topic and group."""


@dataclass(slots=True, eq=False)
class Failure:
    """An error with which the next calls of some handlers fail."""

    handlers: Sequence[Subscriber]
    named: str
    make: Callable[[], Exception]
    times: int
    left: int


class Calls:
    """The calls of each handler of `app`, and the failures of the next ones."""

    def __init__(self, app: App, errors: HandlerErrors) -> None:
        self._app = app
        self._errors = errors
        self._payloads: dict[int, list[Any]] = {}
        self._failures: list[Failure] = []

    def watch(self, item: Subscriber) -> Subscriber:
        """Return `item` with a function that notes each call, or fails instead."""
        function = item.function
        payloads = self._payloads.setdefault(id(item), [])

        @functools.wraps(function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            self._fail(item)
            payloads.append(_payload([*args, *kwargs.values()]))
            return await function(*args, **kwargs)

        return replace(item, function=call)

    def of(self, handler: HandlerName) -> Sequence[Any]:
        """Return the payloads of the calls of `handler`, oldest first."""
        found = [self._payloads.get(id(item), []) for item in self._find(handler)]
        return [payload for payloads in found for payload in payloads]

    def fail_next(
        self, handler: HandlerName, error: Exception | type[Exception] | None, times: int
    ) -> None:
        """Have the next `times` calls of `handler` fail with `error`."""
        if error is None:
            error = RuntimeError("injected by fail_next")
        if times < 1:
            raise ConfigurationError("fail_next: times must be at least 1")
        if isinstance(error, type) and issubclass(error, Exception):
            make: Callable[[], Exception] = error
        elif isinstance(error, Exception):
            make = functools.partial(error.with_traceback, None)
        else:
            raise ConfigurationError(
                f"fail_next: error is an Exception or a class of it, not {error!r}"
            )
        handlers = self._find(handler)
        self._failures.append(Failure(handlers, _named(handler), make, times, times))

    def check_used(self) -> None:
        """Raise `AssertionError` if calls that should have failed were never made."""
        unused = [
            f"{item.left} of {item.times} failures of {item.named}"
            for item in self._failures
            if item.left
        ]
        if unused:
            raise AssertionError(f"fail_next: the handlers were not called for {'; '.join(unused)}")

    def _fail(self, item: Subscriber) -> None:
        for failure in self._failures:
            if failure.left and any(item is other for other in failure.handlers):
                failure.left -= 1
                error = failure.make()
                self._errors.inject(error)
                raise error

    def _find(self, handler: HandlerName) -> Sequence[Subscriber]:
        """Return the handlers that `handler` names; raises `ConfigurationError` if there is none.

        A function may have been registered several times.
        """
        handlers = self._app.subscribers
        if isinstance(handler, tuple):
            wanted = (as_topic(handler[0]).name, handler[1])
            found = [item for item in handlers if (item.topic.name, item.group) == wanted]
        elif isinstance(handler, str):
            found = [item for item in handlers if handler in _names(item.function)]
            if any(item.function != found[0].function for item in found):
                raise ConfigurationError(
                    f"the app has several handlers named {handler!r}: pass the function, or its "
                    "topic and group"
                )
        else:
            found = [item for item in handlers if item.function == handler]
        if not found:
            raise ConfigurationError(_unknown(handler, handlers))
        return found


def _payload(arguments: Sequence[Any]) -> Any:
    """Return the payload among the arguments of a handler; without one, the first argument."""
    for argument in arguments:
        one = argument[0] if isinstance(argument, list) and argument else argument
        if not isinstance(one, Delivery | Message):
            return argument
    return arguments[0] if arguments else None


def _names(function: Function) -> tuple[str, str]:
    name = getattr(function, "__name__", type(function).__name__)
    return name, getattr(function, "__qualname__", name)


def _named(handler: HandlerName) -> str:
    if isinstance(handler, tuple):
        return f"the group {handler[1]!r} on {as_topic(handler[0]).name!r}"
    return repr(handler if isinstance(handler, str) else _names(handler)[1])


def _unknown(handler: HandlerName, handlers: Sequence[Subscriber]) -> str:
    """Return the message about a handler that the app does not have."""
    known = [_names(item.function)[0] for item in handlers]
    text = f"the app has no handler {_named(handler)}"
    if isinstance(handler, tuple):
        known = [f"({item.topic.name!r}, {item.group!r})" for item in handlers]
        close = difflib.get_close_matches(f"({as_topic(handler[0]).name!r}, {handler[1]!r})", known)
    else:
        close = difflib.get_close_matches(_named(handler).strip("'"), known)
    if close:
        return f"{text}; did you mean {close[0]}?"
    return f"{text}; it has {', '.join(known) or 'none'}"
