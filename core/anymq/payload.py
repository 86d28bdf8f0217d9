"""Payloads to bodies and back: pydantic models, dataclasses, TypedDicts, dict, str, bytes."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from .errors import ConfigurationError, Reject
from .message import Message
from .topic import Topic

if TYPE_CHECKING:
    from pydantic import TypeAdapter

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"


def encode_payload(payload: Any) -> tuple[bytes, str]:
    """Return the body and content type of `payload`; raises `ConfigurationError` if it has none."""
    encode, content_type = encoder_of(payload)
    return payload if encode is None else encode(payload), content_type


def encoder_of(payload: Any) -> tuple[Callable[[Any], bytes] | None, str]:
    """Return what makes bodies of payloads of this class, None if they are some; and their content
    type."""
    if isinstance(payload, bytes):
        return None, BINARY
    if isinstance(payload, str):
        return _text, TEXT
    if isinstance(payload, (bytearray, memoryview)):
        return bytes, BINARY
    return _json_encoder(), JSON


def _text(payload: str) -> bytes:
    try:
        return payload.encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"a str cannot be published: {error}") from error


@cache
def _json_encoder() -> Callable[[Any], bytes]:
    # Imported when first needed, as below: it takes longer than all of anymq.
    from pydantic_core import PydanticSerializationError, SchemaSerializer, to_json

    def encode(payload: Any) -> bytes:
        try:
            serializer = getattr(payload, "__pydantic_serializer__", None)
            if isinstance(serializer, SchemaSerializer):
                return serializer.to_json(payload)
            return to_json(payload)
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise ConfigurationError(
                f"a {type(payload).__name__} cannot be published: {error}"
            ) from error

    return encode


def decode_payload(message: Message, annotation: Any) -> Any:
    """Return the body of `message` as what `annotation` asks for.

    Where it is a union of classes and the message's type names one of them, that one is taken.
    Raises `Reject` if the body does not validate: the message can never be handled, whoever
    retries. The reason says what is wrong and where, without quoting the body.
    """
    if annotation is Message:
        return message
    return decode_body(message.body, _choose(annotation, message.type))


def is_union(annotation: Any) -> bool:
    """Whether the message's type may have a say in what its body is decoded as."""
    return get_origin(annotation) in (Union, types.UnionType)


def decode_body(body: bytes, annotation: Any) -> Any:
    """As `decode_payload`, for what is no union."""
    if annotation is bytes:
        return body
    try:
        if annotation is str:
            return body.decode()
        return _adapter(annotation).validate_json(body)
    except UnicodeDecodeError as error:
        raise Reject(f"invalid payload: not UTF-8 text ({error.reason})") from error
    except ValueError as error:
        raise Reject(f"invalid payload: {_explain(error)}") from error


def check_annotation(annotation: Any) -> None:
    """Raise `ConfigurationError` if `decode_payload` could never serve `annotation`."""
    if annotation not in (bytes, str, Message):
        _adapter(annotation)


def fits_by_class(topic: Topic[Any]) -> bool:
    """Whether the class of a payload alone says if it is of the topic's type."""
    expected: Any = topic.payload
    if expected is None or expected is Any:
        return True
    try:
        isinstance(object(), expected)
    except TypeError:
        return False
    return True


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
    from pydantic import PydanticUserError, TypeAdapter

    kind: Any = annotation
    try:
        return TypeAdapter(kind)
    except PydanticUserError as error:
        raise ConfigurationError(f"{annotation} is no type of payload: {error}") from error


@lru_cache(maxsize=2048)
def _choose(annotation: Any, type_: str | None) -> Any:
    if type_ is not None and is_union(annotation):
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
