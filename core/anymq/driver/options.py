"""`ConnectOptions`, and the parsing of URL options into dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from ..errors import ConfigurationError, InvalidURL
from ..names import check_topic
from ..url import URL

T = TypeVar("T")

MAX_BODY = 1_000_000
"""The largest body by default, in bytes."""


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Options that every URL accepts.

    `declare=false` leaves topics and groups to the operator. `source` is the CloudEvents source of
    published messages (None: the application's name, or `anymq`), and `reply_topic` the topic of
    replies to their requests. Times are in seconds.
    """

    declare: bool = True
    allow_insecure_auth: bool = False
    source: str | None = None
    reply_topic: str = "anymq.replies"
    connect_timeout: float = 10.0
    publish_timeout: float = 10.0
    max_body: int = MAX_BODY

    def __post_init__(self) -> None:
        check_topic(self.reply_topic)


def split_options(url: URL, adapter: type[T]) -> tuple[ConnectOptions, T]:
    """Return the common and the adapter's options of `url`.

    Raises `InvalidURL` for an unknown option, with the list of valid ones, and for a bad value.
    """
    common = {item.name for item in fields(ConnectOptions)}
    own = {item.name for item in fields(adapter)} if adapter is not None else set()  # type: ignore[arg-type]
    for key in url.query:
        if key not in common and key not in own:
            valid = sorted(common | own)
            import difflib

            close = difflib.get_close_matches(key, valid, n=1)
            raise InvalidURL(
                f"unknown option {key!r} in {url.scheme}://…"
                + (f" (did you mean {close[0]!r}?)" if close else "")
                + f"; the options are {', '.join(valid)}"
            )
    return (
        _build(ConnectOptions, {key: v for key, v in url.query.items() if key in common}, url),
        _build(adapter, {key: v for key, v in url.query.items() if key in own}, url),
    )


def _build(cls: type[T], values: Mapping[str, str], url: URL) -> T:
    if not values:
        return cls()
    # Imported here, because it takes longer than the rest of connecting.
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter[T](cls).validate_python(dict(values))
    except ValidationError as error:
        # The value is not quoted, because it may be a secret.
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if not key:  # From `__post_init__`.
            text = first["msg"].removeprefix("Value error, ")
            raise InvalidURL(f"{url.scheme}://…: {text}") from None
        raise InvalidURL(f"option {key!r} of {url.scheme}://…: {first['msg']}") from None
    except ConfigurationError as error:
        raise InvalidURL(f"{url.scheme}://…: {error}") from None
