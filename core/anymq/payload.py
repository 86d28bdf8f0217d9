"""Encoding and decoding of payloads: pydantic models, dataclasses, TypedDicts, dict, str, bytes."""

from __future__ import annotations

import types
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any, Protocol, Union, get_args, get_origin

from typing_extensions import is_typeddict

from .errors import ConfigurationError, Reject, Unreadable
from .topic import Topic

if TYPE_CHECKING:
    from pydantic import TypeAdapter

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BINARY = "application/octet-stream"
MASKED = b"*****"
"""The text that pydantic writes for a secret."""
JSON_TYPES = (dict, list, int, float, bool, type(None))
_INSIDE = {"dict": "values_schema", "list": "items_schema", "set": "items_schema"}


class Encoded(Protocol):
    """The parts of a `Message` that decoding needs."""

    @property
    def topic(self) -> str: ...
    @property
    def body(self) -> bytes: ...
    @property
    def type(self) -> str | None: ...


def encode_payload(payload: Any) -> tuple[bytes, str]:
    """Return the body and content type of `payload`.

    Raises `ConfigurationError` if it cannot be encoded.
    """
    encode, content_type = encoder_of(payload)
    return payload if encode is None else encode(payload), content_type


def encoder_of(payload: Any) -> tuple[Callable[[Any], bytes] | None, str]:
    """Return the encoder for payloads of this class, and their content type.

    The encoder is None for bytes, which are bodies already.
    """
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
    # Imported on first use, as below, because it takes longer than all of anymq.
    from pydantic_core import PydanticSerializationError, SchemaSerializer, to_json

    def encode(payload: Any) -> bytes:
        try:
            serializer = getattr(payload, "__pydantic_serializer__", None)
            if isinstance(serializer, SchemaSerializer):
                # By alias, because its class reads aliases.
                body = serializer.to_json(payload, by_alias=True)
            else:
                body = to_json(payload)
            if b"null" in body or b"NaN" in body or b"Infinity" in body or MASKED in body:
                _check_kept(payload)
            kind: Any = type(payload)
            if kind not in JSON_TYPES and _is_loose(kind):
                _check_round_trip(payload, body, kind)
            return body
        except (PydanticSerializationError, UnicodeEncodeError) as error:
            raise ConfigurationError(
                f"a {type(payload).__name__} cannot be published: {error}"
            ) from error

    return encode


def _check_kept(payload: Any) -> None:
    """Raise `ConfigurationError` if `payload` has a value that JSON would change."""
    from pydantic import SecretBytes, SecretStr

    dump = getattr(payload, "model_dump", None)
    left: list[Any] = [dump() if callable(dump) else payload]
    while left:
        value = left.pop()
        if isinstance(value, float) and not isfinite(value):
            raise ConfigurationError(
                f"a {type(payload).__name__} cannot be published: JSON has no {value}"
            )
        if isinstance(value, (SecretStr, SecretBytes)):
            raise ConfigurationError(
                f"a {type(payload).__name__} cannot be published: it has a {type(value).__name__}"
                ", which would arrive as asterisks; give the field a serializer, or publish a str"
            )
        if isinstance(value, Mapping):
            left += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            left += value
        elif is_dataclass(value) and not isinstance(value, type):
            left += (getattr(value, item.name, None) for item in fields(value))
        elif callable(dump := getattr(value, "model_dump", None)):
            left.append(dump())


@lru_cache(maxsize=512)
def _is_loose(kind: type) -> bool:
    """Whether a field of the class accepts any type: `Any`, a bare `dict` or `list`."""
    try:
        left: list[Any] = [_adapter(kind).core_schema]
    except ConfigurationError:
        return False
    while left:
        node = left.pop()
        if isinstance(node, list):
            left += node
        elif isinstance(node, dict):
            inside = _INSIDE.get(node.get("type", ""))
            if "serialization" in node:
                continue
            if node.get("type") == "any" or (inside is not None and inside not in node):
                return True
            left += node.values()
    return False


def _check_round_trip(payload: Any, body: bytes, kind: Any) -> None:
    """Raise `ConfigurationError` if `kind`, the class of `payload`, decodes `body` differently.

    JSON has no times and no tuples. A field without a type would decode them as text and lists.
    """
    adapter, name = _adapter(kind), kind.__name__
    try:
        again = adapter.validate_json(body, by_alias=True, by_name=True)
    except ValueError as error:
        raise ConfigurationError(
            f"a {name} cannot be published: its class does not validate it: {_explain(error)}"
        ) from error
    before, after = adapter.dump_python(payload), adapter.dump_python(again)
    if before != after:
        changed = [
            repr(field)
            for field in (before if isinstance(before, dict) else ())
            if before[field] != after.get(field)
        ]
        where = f"the field {', '.join(changed)}" if changed else "it"
        raise ConfigurationError(
            f"a {name} cannot be published: {where} would be decoded as another type; annotate its "
            "type, give it a serializer, or use types that JSON has"
        )


class UnknownType(Reject):
    """Raised if the handler does not accept the message's type."""


def decode_payload(message: Encoded, annotation: Any) -> Any:
    """Return the body of `message`, decoded as `annotation`.

    For a union of classes, the message's type selects the class, and an unknown type raises
    `UnknownType`. A message without a type is decoded as the class that validates it. Raises
    `Reject` if the body does not validate, because a retry would fail again. The reason names the
    fields and their errors, without quoting the body.
    """
    if is_union(annotation):
        annotation = _choose(annotation, message)
    return decode_body(message.body, annotation)


def is_union(annotation: Any) -> bool:
    """Whether `annotation` is a union, so that the message's type may select the class."""
    return get_origin(annotation) in (Union, types.UnionType)


def members_of(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or `annotation` alone."""
    return get_args(annotation) if is_union(annotation) else (annotation,)


def decode_body(body: bytes, annotation: Any) -> Any:
    """Decode `body` as `annotation`, which is not a union; raises `Reject`."""
    if annotation is bytes:
        return body
    try:
        if annotation is str:
            return body.decode()
        return _adapter(annotation).validate_json(body, by_alias=True, by_name=True)
    except UnicodeDecodeError as error:
        raise Unreadable(f"invalid payload: not UTF-8 text ({error.reason})") from error
    except ValueError as error:
        raise Unreadable(f"invalid payload: {_explain(error)}") from error


def check_annotation(annotation: Any) -> None:
    """Raise `ConfigurationError` if `decode_payload` cannot decode to `annotation`."""
    if annotation in (bytes, str):
        return
    try:
        _adapter(annotation)
    except TypeError as error:  # It has no hash.
        raise ConfigurationError(f"{annotation!r} is not a payload type") from error


def fits_by_class(topic: Topic[Any]) -> bool:
    """Whether `isinstance` decides if a payload is of the topic's type."""
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
        adapter = _adapter(expected)
        try:
            adapter.validate_python(payload)
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
    return topic if kind.__module__ == "builtins" else names_of(kind)[0]


def names_of(kind: Any) -> tuple[str, ...]:
    """Return the CloudEvents types of the class `kind`; it is published with the first.

    The default is the class's name. The attribute `__event_type__` precedes it: a str, or a tuple
    of several.
    """
    own: str | tuple[str, ...] | None = vars(kind).get("__event_type__")
    name = kind.__name__
    if own is None:
        return (name,)
    return ((own,) if isinstance(own, str) else tuple(own)) + (name,)


@lru_cache(maxsize=512)
def known_types(annotation: Hashable) -> Mapping[str, Any] | None:
    """Return the classes in `annotation` by CloudEvents type; None if it accepts any type.

    Classes of the application and unions of them have types; `dict`, `str`, `Any`, TypedDicts and
    the like accept any type.
    """
    kinds = [member for member in members_of(annotation) if member is not type(None)]
    if not all(_has_type(kind) for kind in kinds):
        return None
    return {name: kind for kind in kinds for name in names_of(kind)}


def _has_type(kind: Any) -> bool:
    """Whether messages of the class `kind` have a type of their own: not those of plain data."""
    is_class = isinstance(kind, type) and kind.__module__ != "builtins"
    return is_class and not is_typeddict(kind)


def is_untyped(message: Encoded) -> bool:
    """Whether `message` has no type, or the type of plain data, which is the topic's name."""
    kind, topic = message.type, message.topic
    return (
        kind is None or kind == topic or (topic.endswith(".dlq") and topic.startswith(f"{kind}."))
    )


@lru_cache(maxsize=512)
def _adapter(annotation: Hashable) -> TypeAdapter[Any]:
    from pydantic import PydanticUserError, TypeAdapter

    kind: Any = annotation
    try:
        return TypeAdapter(kind)
    except PydanticUserError as error:
        raise ConfigurationError(f"{annotation} is not a payload type: {error}") from error


def _choose(annotation: Any, message: Encoded) -> Any:
    known = known_types(annotation)
    kind = message.type or ""
    if known is not None and kind in known:
        return known[kind]
    if known is None:
        named = (one for one in get_args(annotation) if getattr(one, "__name__", None) == kind)
        return next(named, annotation)
    if is_untyped(message):
        return annotation
    raise unknown_type(kind, known)


def unknown_type(kind: str, known: Iterable[str]) -> UnknownType:
    """Return the error for a message whose type is not in `known`."""
    return UnknownType(f"unknown type {kind[:100]!r}: the handler takes {', '.join(known)}")


def _explain(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return type(error).__name__
    found = errors(include_url=False, include_input=False, include_context=False)
    lines = [f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg']}" for item in found[:3]]
    return "; ".join(lines) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
