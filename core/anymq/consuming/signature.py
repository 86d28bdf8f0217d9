"""`Wants`: the arguments that a handler function asks for, read from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Never, NoReturn, get_args, get_origin, get_type_hints

from ..errors import ConfigurationError
from ..message import Message
from ..payload import check_annotation, decode_body, decode_payload, is_union, members_of
from ..topic import Topic
from ..wire.cloudevents import STRUCTURED
from .delivery import Delivery

if TYPE_CHECKING:
    from .batch import Batch

Function = Callable[..., Awaitable[None]]
"""A handler that returns nothing."""
AnyFunction = Callable[..., Awaitable[Any]]
"""A handler."""

_NOTHING = (inspect.Parameter.empty, None, NoneType, "None", Any, "Any", object, NoReturn, Never)
"""The annotations of a handler that returns nothing to use."""


@dataclass(frozen=True, slots=True)
class Wants:
    """The parameters of a handler function, by argument, and the type of its payload."""

    deliveries: Sequence[str]
    messages: Sequence[str]
    payload: str | None
    type: Any

    def decode(self, delivery: Delivery) -> Any:
        """Return the payload; raises `Reject` if the body does not validate."""
        if self.payload is None:
            return None
        if is_union(self.type):
            return decode_payload(delivery.message, self.type)
        body = delivery.received.body
        if STRUCTURED in body:
            body = delivery.message.body
        return decode_body(body, self.type)

    def arguments(self, delivery: Any, message: Any, payload: Any) -> dict[str, Any]:
        """Return the keyword arguments: of one delivery, or lists of a batch."""
        arguments = dict.fromkeys(self.deliveries, delivery)
        arguments |= dict.fromkeys(self.messages, message)
        if self.payload is not None:
            arguments[self.payload] = payload
        return arguments


def name_of(function: AnyFunction) -> str:
    """Return the name of a handler, for errors and logs."""
    return getattr(function, "__qualname__", repr(function))


def is_same(one: AnyFunction, other: AnyFunction) -> bool:
    """Whether both are one function, or one method of the same object."""
    if inspect.ismethod(one) and inspect.ismethod(other):
        return one.__self__ is other.__self__ and one.__func__ is other.__func__
    return one is other


def wants(function: AnyFunction, topic: Topic[Any], batch: Batch | None = None) -> Wants:
    """Return what `function` asks for; raises `ConfigurationError` if it cannot be a handler."""
    name = name_of(function)
    if not _is_async(function):
        raise ConfigurationError(f"the handler {name} must be an async function")
    deliveries: list[str] = []
    messages: list[str] = []
    payloads: list[tuple[str, Any]] = []
    for parameter, annotation in _parameters(function, name):
        one = _one(annotation, f"{parameter!r} of the handler {name}", topic, batch)
        if one is Delivery:
            deliveries.append(parameter)
        elif one is Message:
            messages.append(parameter)
        else:
            payloads.append((parameter, one))
    if len(payloads) > 1:
        payloads = [item for item in payloads if not _has_default(function, item[0])] or payloads
    if len(payloads) > 1:
        names = ", ".join(parameter for parameter, _ in payloads)
        raise ConfigurationError(
            f"the handler {name} asks for more than one payload ({names}); annotate the "
            "others as Delivery or Message"
        )
    if batch is not None and not (deliveries or messages or payloads):
        raise ConfigurationError(f"the handler {name} takes no list, but has a batch")
    if not payloads:
        return Wants(deliveries, messages, None, None)
    ((payload, kind),) = payloads
    if kind is inspect.Parameter.empty:
        kind = topic.payload or Any
    check_annotation(kind)
    return Wants(deliveries, messages, payload, kind)


def _one(annotation: Any, what: str, topic: Topic[Any], batch: Batch | None) -> Any:
    """Return the type of the argument for one message: the item of the list in a batch."""
    is_list = get_origin(annotation) is list
    if batch is None:
        if is_list and annotation != topic.payload:
            raise ConfigurationError(
                f"{what} is a list: pass batch=Batch(…); or, if the body of one message is a "
                f"list, declare it with Topic({topic.name!r}, {annotation})"
            )
        return annotation
    if annotation in (list, inspect.Parameter.empty):
        return inspect.Parameter.empty
    if not is_list:
        raise ConfigurationError(f"{what} must be a list: the handler has a batch")
    return get_args(annotation)[0]


def _has_default(function: AnyFunction, parameter: str) -> bool:
    found = inspect.signature(function).parameters[parameter]
    return found.default is not inspect.Parameter.empty


def check_returns(function: AnyFunction, to: Topic[Any] | None, *, reply: bool) -> None:
    """Raise `ConfigurationError` if the annotated return value does not suit its use.

    `to` is the topic that it is published to. With `reply` it answers requests. Without either, no
    caller would get it.
    """
    name, returned = name_of(function), _returned(function)
    if to is None and not reply:
        if returned not in _NOTHING:
            raise ConfigurationError(
                f"the handler {name} returns a value, which no caller would get; annotate it "
                "-> None, or state its use: to=TOPIC publishes it, reply=True answers a request"
            )
        return
    if to is None or returned is inspect.Parameter.empty:
        return
    if returned in (None, NoneType, NoReturn, Never) and not reply:
        raise ConfigurationError(
            f"the handler {name} returns nothing that could be published to {to.name}"
        )
    kinds = [kind for kind in members_of(returned) if kind is not NoneType]
    if not all(_may_be(kind, to.payload) for kind in kinds):
        raise ConfigurationError(
            f"the handler {name} returns {_shown(returned)}, but topic {to.name!r} carries "
            f"{_shown(to.payload)}"
        )


def returned_type(function: AnyFunction) -> Any:
    """Return the annotation of what `function` returns; None if that says nothing."""
    returned = _returned(function)
    return None if returned in _NOTHING else returned


def _returned(function: AnyFunction) -> Any:
    returned = inspect.signature(function).return_annotation
    if not isinstance(returned, str):
        return returned
    try:
        return get_type_hints(function).get("return", inspect.Parameter.empty)
    except Exception:  # `wants` reports annotations that cannot be resolved.
        return returned


def _may_be(kind: Any, expected: Any) -> bool:
    """Whether values of `kind` may be `expected`; True if that shows only when they are there."""
    if expected in (None, Any) or kind in (Any, object):
        return True
    try:
        return issubclass(kind, expected)
    except TypeError:  # TypedDict and parametrised generics have no issubclass.
        return True


def _shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _parameters(function: AnyFunction, name: str) -> list[tuple[str, Any]]:
    try:
        hints = get_type_hints(function)
    except Exception as error:
        raise ConfigurationError(
            f"the annotations of the handler {name} cannot be resolved: {error}"
        ) from error
    found: list[tuple[str, Any]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ConfigurationError(f"the handler {name} has positional-only parameters")
        if parameter.default is not parameter.empty and parameter.name not in hints:
            continue
        found.append((parameter.name, hints.get(parameter.name, parameter.empty)))
    return found
