"""Handlers built from an application's functions by their annotations."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from ..payload import UnknownType, known_types, unknown_type
from ..tasks import fault
from ..topic import Topic
from ..wire.cloudevents import STRUCTURED
from .delivery import Delivery, Handler
from .options import Unknown
from .signature import AnyFunction, Function, Wants, check_returns, name_of, wants

if TYPE_CHECKING:
    from .batch import Batch

Returned = Callable[[Delivery, Any], Awaitable[None]]
"""What happens with the value that a handler returns; if it raises, the handler has failed."""


def adapt(
    function: AnyFunction,
    topic: Topic[Any],
    batch: Batch | None = None,
    unknown: Unknown = "reject",
    returned: Returned | None = None,
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
        return _ignoring(adapt(function, topic, batch, returned=returned))
    asked = wants(function, topic, batch)
    if returned is not None:
        return _using(function, asked, returned)
    check_returns(function, None, reply=False)
    if batch is not None:
        return _by_batch(function, asked, batch)
    if asked.payload is not None and _is_only(function, asked.payload):
        return _of_payload(function, asked)

    async def handler(delivery: Delivery) -> None:
        payload = asked.decode(delivery)
        message = delivery.message if asked.messages else None
        try:
            await function(**asked.arguments(delivery, message, payload))
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    return handler


def by_type(handlers: Sequence[tuple[AnyFunction, Returned | None]], topic: Topic[Any]) -> Function:
    """Return one function for several, each of which gets the messages of its own types.

    A message without a type, or of a type that no function takes, raises `UnknownType`. Raises
    `ConfigurationError` if two functions take the same type, or one takes any type.
    """
    table: dict[str, Handler] = {}
    takers: dict[str, str] = {}
    for function, returned in handlers:
        name = f"{function.__module__}.{name_of(function)}"
        types = known_types(wants(function, topic).type)
        if types is None:
            raise ConfigurationError(
                f"the handler {name} takes messages of any type, so another handler of its group "
                f"on {topic.name} would take messages of the same type: {_SHARE}"
            )
        for type, kind in types.items():
            taker = f"{name} ({kind.__module__}.{kind.__qualname__})"
            if type in takers:
                raise ConfigurationError(
                    f"two handlers of one group on {topic.name} take messages of the same type "
                    f"{type!r}: {takers[type]} and {taker}; {_SHARE}"
                )
            takers[type] = taker
        table |= dict.fromkeys(types, adapt(function, topic, returned=returned))

    async def dispatch(delivery: Delivery) -> None:
        kind = delivery.message.type or ""
        handler = table.get(kind)
        if handler is None:
            raise unknown_type(kind, table)
        await handler(delivery)

    return dispatch


_SHARE = (
    "handlers of one group share its messages by type, so annotate each with classes that no other "
    "has, or give it a group of its own"
)


def _using(function: AnyFunction, asked: Wants, returned: Returned) -> Handler:
    """Return a handler whose return value is used before the message is acknowledged."""

    async def handler(delivery: Delivery) -> None:
        payload = asked.decode(delivery)
        message = delivery.message if asked.messages else None
        try:
            value = await function(**asked.arguments(delivery, message, payload))
            await returned(delivery, value)
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    return handler


def _ignoring(handler: Handler) -> Handler:
    async def ignoring(delivery: Delivery) -> None:
        with contextlib.suppress(UnknownType):
            await handler(delivery)

    return ignoring


def _of_payload(function: AnyFunction, asked: Wants) -> Handler:
    """Return a handler for the most common case: a function of the payload alone."""
    plain = asked.type is bytes

    async def handler(delivery: Delivery) -> None:
        body = delivery.received.body
        if not plain:
            payload = asked.decode(delivery)
        else:
            payload = delivery.message.body if STRUCTURED in body else body
        try:
            await function(payload)
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    return handler


def _is_only(function: AnyFunction, parameter: str) -> bool:
    """Whether a function has no other parameter, and takes it by position."""
    found = list(inspect.signature(function).parameters.values())
    return len(found) == 1 and found[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def _by_batch(function: AnyFunction, asked: Wants, batch: Batch) -> Handler:
    async def run(deliveries: Sequence[Delivery], payloads: Sequence[Any]) -> None:
        messages = [delivery.message for delivery in deliveries] if asked.messages else None
        try:
            await function(**asked.arguments(deliveries, messages, payloads))
        except Exception:
            raise
        except BaseException as error:
            raise fault(error, "the handler") from error

    from .batch import Collector

    collector = Collector(batch, run)

    async def handler(delivery: Delivery) -> None:
        await collector.join(delivery, asked.decode(delivery))

    return handler
