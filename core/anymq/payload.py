"""Payloads to bodies and back: pydantic models, dataclasses, TypedDicts, dict, str, bytes."""

from __future__ import annotations

import types
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, PydanticUserError, TypeAdapter
from pydantic_core import PydanticSerializationError, to_json

from .errors import ConfigurationError, Reject
from .message import Message
from .topic import Topic

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"


def encode_payload(payload: Any) -> tuple[bytes, str]:
    """Return the body and content type of `payload`; raises `ConfigurationError` if it has none."""
    if isinstance(payload, bytes):
        return payload, BINARY
    if isinstance(payload, str):
        return payload.encode(), TEXT
    if isinstance(payload, (bytearray, memoryview)):
        return bytes(payload), BINARY
    try:
        if isinstance(payload, BaseModel):
            return payload.__pydantic_serializer__.to_json(payload), JSON
        return to_json(payload), JSON
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise ConfigurationError(
            f"a {type(payload).__name__} cannot be published: {error}"
        ) from error


def decode_payload(message: Message, annotation: Any) -> Any:
    """Return the body of `message` as what `annotation` asks for.

    Where it is a union of classes and the message's type names one of them, that one is taken.
    Raises `Reject` if the body does not validate: the message can never be handled, whoever
    retries. The reason says what is wrong and where, without quoting the body.
    """
    if annotation is bytes:
        return message.body
    if annotation is Message:
        return message
    try:
        if annotation is str:
            return message.body.decode()
        return _adapter(_choose(annotation, message.type)).validate_json(message.body)
    except UnicodeDecodeError as error:
        raise Reject(f"invalid payload: not UTF-8 text ({error.reason})") from error
    except ValueError as error:
        raise Reject(f"invalid payload: {_explain(error)}") from error


def check_annotation(annotation: Any) -> None:
    """Raise `ConfigurationError` if `decode_payload` could never serve `annotation`."""
    if annotation not in (bytes, str, Message):
        _adapter(annotation)


def check_payload(payload: Any, topic: Topic[Any]) -> None:
    """Raise `ConfigurationError` if `payload` is not of the topic's type."""
    expected: Any = topic.payload
    if expected is None or expected is Any:
        return
    try:
        fits = isinstance(payload, expected)
    except TypeError:  # TypedDict and parametrised generics have no isinstance
        try:
            _adapter(expected).validate_python(payload)
            fits = True
        except ValueError:
            fits = False
    if not fits:
        name = getattr(expected, "__name__", str(expected))
        raise ConfigurationError(
            f"topic {topic.name!r} carries {name}, not {type(payload).__name__}"
        )


def type_name(payload: Any, topic: str) -> str:
    """Return the CloudEvents type of `payload`: its class's name, or the topic for plain data."""
    kind = type(payload)
    return topic if kind.__module__ == "builtins" else kind.__name__


@lru_cache(maxsize=512)
def _adapter(annotation: Hashable) -> TypeAdapter[Any]:
    kind: Any = annotation
    try:
        return TypeAdapter(kind)
    except PydanticUserError as error:
        raise ConfigurationError(f"{annotation} is no type of payload: {error}") from error


@lru_cache(maxsize=2048)
def _choose(annotation: Any, type_: str | None) -> Any:
    if type_ is not None and get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            if getattr(member, "__name__", None) == type_:
                return member
    return annotation


def _explain(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return type(error).__name__
    found = errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in found[:3]]
    return "; ".join(lines) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
