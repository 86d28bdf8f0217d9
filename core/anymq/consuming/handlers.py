"""Handlers built from an application's functions by their annotations."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin, get_type_hints

from ..errors import ConfigurationError
from ..message import Message
from ..payload import (
    UnknownType,
    check_annotation,
    decode_body,
    decode_payload,
    is_union,
    known_types,
    unknown_type,
)
from ..tasks import fault
from ..topic import Topic
from ..wire.cloudevents import STRUCTURED
from .delivery import Delivery, Handler
from .options import Unknown

if TYPE_CHECKING:
    from .batch import Batch

Function = Callable[..., Awaitable[None]]


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


def adapt(
    function: Function, topic: Topic[Any], batch: Batch | None = None, unknown: Unknown = "reject"
) -> Handler:
    """Return a handler that calls `function` with the arguments of its annotations.

    A parameter annotated `Delivery` or `Message` gets that. One other parameter gets the payload,
    decoded to its annotation, or to the topic's type where it has none. A parameter with a default
    keeps it if another one takes the payload. A body that does not validate is rejected before the
    function is called. With a `batch`, each argument is a list. With `unknown="ignore"`, a message
    whose type the payload's union does not contain is acked without the function. Raises
    `ConfigurationError` for any other signature.
    """
    if unknown not in ("reject", "ignore"):
        raise ConfigurationError("unknown is 'reject' or 'ignore'")
    if unknown == "ignore":
        return _ignoring(adapt(function, topic, batch))
    name = getattr(function, "__qualname__", repr(function))
    if not _is_async(function):
        raise ConfigurationError(f"the handler {name} must be an async function")
    _check_returns(function, name)
    wants = _wants(function, name, topic, batch)
    if batch is not None:
        return _by_batch(function, wants, batch)
    if wants.payload is not None and _is_only(function, wants.payload):
        return _of_payload(function, wants)

    async def handler(delivery: Delivery) -> None:
        payload = wants.decode(delivery)
        message = delivery.message if wants.messages else None
        try:
            await function(**wants.arguments(delivery, message, payload))
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    return handler


def payload_type(function: Function, topic: Topic[Any], batch: Batch | None) -> Any:
    """Return the type that `adapt` decodes payloads to; None if `function` takes none."""
    return _wants(function, getattr(function, "__qualname__", repr(function)), topic, batch).type


def by_type(functions: Sequence[Function], topic: Topic[Any]) -> Function:
    """Return one function for several, each of which gets the messages of its own types.

    A message without a type, or of a type that no function takes, raises `UnknownType`. Raises
    `ConfigurationError` if two functions take the same type, or one takes any type.
    """
    table: dict[str, Handler] = {}
    for function in functions:
        name = getattr(function, "__qualname__", repr(function))
        types = known_types(_wants(function, name, topic, None).type)
        if types is None or not table.keys().isdisjoint(types):
            raise ConfigurationError(
                f"the handler {name} of {topic.name} and another of its group take messages of "
                "the same type: handlers of one group share its messages by type, so annotate each "
                "with classes that no other has, or give it a group of its own"
            )
        table |= dict.fromkeys(types, adapt(function, topic))

    async def dispatch(delivery: Delivery) -> None:
        kind = delivery.message.type or ""
        handler = table.get(kind)
        if handler is None:
            raise unknown_type(kind, table)
        await handler(delivery)

    return dispatch


def _ignoring(handler: Handler) -> Handler:
    async def ignoring(delivery: Delivery) -> None:
        with contextlib.suppress(UnknownType):
            await handler(delivery)

    return ignoring


def _of_payload(function: Function, wants: Wants) -> Handler:
    """Return a handler for the most common case: a function of the payload alone."""
    plain = wants.type is bytes

    async def handler(delivery: Delivery) -> None:
        body = delivery.received.body
        if not plain:
            payload = wants.decode(delivery)
        else:
            payload = delivery.message.body if STRUCTURED in body else body
        try:
            await function(payload)
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    return handler


def _is_only(function: Function, parameter: str) -> bool:
    """Whether a function has no other parameter, and takes it by position."""
    found = list(inspect.signature(function).parameters.values())
    return len(found) == 1 and found[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def _by_batch(function: Function, wants: Wants, batch: Batch) -> Handler:
    async def run(deliveries: Sequence[Delivery], payloads: Sequence[Any]) -> None:
        messages = [delivery.message for delivery in deliveries] if wants.messages else None
        try:
            await function(**wants.arguments(deliveries, messages, payloads))
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    from .batch import Collector

    collector = Collector(batch, run)

    async def handler(delivery: Delivery) -> None:
        await collector.join(delivery, wants.decode(delivery))

    return handler


def _wants(function: Function, name: str, topic: Topic[Any], batch: Batch | None) -> Wants:
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


def _has_default(function: Function, parameter: str) -> bool:
    found = inspect.signature(function).parameters[parameter]
    return found.default is not inspect.Parameter.empty


def _check_returns(function: Function, name: str) -> None:
    """Raise `ConfigurationError` if a handler is annotated to return a value: no caller gets it."""
    returned = inspect.signature(function).return_annotation
    if returned not in (inspect.Parameter.empty, None, "None", Any, "Any", object, NoReturn):
        raise ConfigurationError(
            f"the handler {name} returns a value, which no caller would get; annotate it -> None, "
            "and answer a request with `await delivery.reply(value)`"
        )


def _is_async(function: Any) -> bool:
    call = getattr(function, "__call__", None)  # noqa: B004
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def _parameters(function: Function, name: str) -> list[tuple[str, Any]]:
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
