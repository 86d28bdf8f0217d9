"""Turning an application's function into a handler, by its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, get_type_hints

from .batch import Batch
from .delivery import Delivery
from .errors import ConfigurationError
from .message import Message
from .middleware import Handler
from .payload import check_annotation, decode_payload
from .topic import Topic

Function = Callable[..., Awaitable[None]]


def adapt(function: Function, topic: Topic[Any], batch: Batch | None = None) -> Handler:
    """Return a handler that calls `function` with what its annotations ask for.

    A parameter annotated `Delivery` or `Message` gets that; one other parameter gets the
    payload, decoded as its annotation says (by the topic's type where it has none). A body that
    does not validate is rejected before the function is called. Raises `ConfigurationError`
    for anything else.
    """
    name = getattr(function, "__qualname__", repr(function))
    if not _is_async(function):
        raise ConfigurationError(f"the handler {name} must be an async function")
    delivery_at: list[str] = []
    message_at: list[str] = []
    payload_at: list[tuple[str, Any]] = []
    for parameter, annotation in _parameters(function, name):
        if annotation is Delivery:
            delivery_at.append(parameter)
        elif annotation is Message:
            message_at.append(parameter)
        else:
            payload_at.append((parameter, annotation))
    if len(payload_at) > 1:
        names = ", ".join(parameter for parameter, _ in payload_at)
        raise ConfigurationError(
            f"the handler {name} asks for more than one payload ({names}); annotate the "
            "others as Delivery or Message"
        )
    if payload_at and payload_at[0][1] is inspect.Parameter.empty:
        payload_at = [(payload_at[0][0], topic.payload or Any)]
    for _, annotation in payload_at:
        check_annotation(annotation)

    async def handler(delivery: Delivery) -> None:
        arguments: dict[str, Any] = {}
        for parameter, annotation in payload_at:
            arguments[parameter] = decode_payload(delivery.message, annotation)
        for parameter in delivery_at:
            arguments[parameter] = delivery
        for parameter in message_at:
            arguments[parameter] = delivery.message
        await function(**arguments)

    return handler


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
