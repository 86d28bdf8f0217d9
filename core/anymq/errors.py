"""The errors that anymq raises.

::

    AnymqError
    ├── ConfigurationError (ValueError)   the program or its settings must change
    │   ├── InvalidURL
    │   ├── UnknownScheme
    │   ├── MissingDependency
    │   └── UnsupportedOperation
    ├── BrokerError                       the broker or the network failed
    │   ├── TransientError                may succeed if repeated
    │   │   ├── ConnectionLost
    │   │   ├── PublishTimeout
    │   │   ├── RequestTimeout
    │   │   └── Throttled
    │   └── PermanentError                will not succeed if repeated
    │       ├── AccessDenied
    │       ├── NotFound
    │       ├── RequestFailed
    │       └── MessageTooLarge
    └── StateError                        the call is not allowed now
        ├── Closed
        └── AlreadySettled

The class of an error decides whether a retry is useful. `Reject`, `RetryAfter` and `StopLane` are
not errors of the library; a handler raises them to settle its delivery.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any


class AnymqError(Exception):
    """The base of every error anymq raises."""


class ConfigurationError(AnymqError, ValueError):
    """The program, a URL or a setting is wrong; repeating the call will not help."""


class InvalidURL(ConfigurationError):
    """The connection URL is malformed, or has an unknown option or a bad value."""


class UnknownScheme(ConfigurationError):
    """No installed adapter serves this URL scheme."""


class MissingDependency(ConfigurationError, ImportError):
    """The adapter is known, but its client library is not installed."""


class UnsupportedOperation(ConfigurationError):
    """The backend cannot do this and anymq cannot emulate it."""


class BrokerError(AnymqError):
    """A failure of the broker or the network; `__cause__` is the client library's error."""


class TransientError(BrokerError):
    """A failure after which the same call may succeed."""


class ConnectionLost(TransientError):
    """The broker could not be reached, or the connection broke."""


class PublishTimeout(TransientError):
    """The broker did not confirm in time.

    The message may have been stored nevertheless. If the topic could not be declared in time, the
    text states that nothing was sent.
    """


class RequestTimeout(TransientError):
    """No reply arrived in time. The request may have been handled nevertheless."""


class Throttled(TransientError):
    """The broker is out of memory or disk, or over quota, and refuses work for now."""


class PermanentError(BrokerError):
    """A failure after which the same call will fail again."""


class AccessDenied(PermanentError):
    """The credentials are wrong, or do not permit the operation."""


class NotFound(PermanentError):
    """The topic, queue, stream or group does not exist, and anymq may not create it."""


class RequestFailed(PermanentError):
    """The request was rejected by its handler, or the reply is not of the requested type."""


class MessageTooLarge(PermanentError):
    """The message exceeds a limit of anymq or of the broker."""


class StateError(AnymqError):
    """The call is not allowed in the object's present state."""


class Closed(StateError):
    """The broker or subscription has been closed."""


class AlreadySettled(StateError):
    """The delivery has been settled by another method."""


class Reject(Exception):
    """Raised by a handler to dead-letter its delivery with this reason, without a retry."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = check_reason(reason)


class Unreadable(Reject):
    """Raised if the body does not validate. Its traceback may quote the body, and is not logged."""


class RetryAfter(Exception):
    """Raised by a handler to have its delivery redelivered after `delay`, as a failed attempt.

    `delay` is in seconds, or a timedelta. With `counted=False` the delivery does not count as an
    attempt.
    """

    def __init__(
        self,
        delay: float | timedelta,
        reason: str = "retry requested by the handler",
        *,
        counted: bool = True,
    ) -> None:
        super().__init__(reason)
        self.delay = check_delay(delay)
        self.reason = check_reason(reason)
        self.counted = counted


class StopLane(Exception):
    """Raised by a handler of an ordered subscription to stop its key until it is restarted."""

    def __init__(self, reason: str = "stopped by the handler") -> None:
        super().__init__(reason)
        self.reason = check_reason(reason)


MAX_DELAY = timedelta(days=366)
"""The longest delay of a retry."""


def check_delay(delay: float | timedelta) -> float:
    """Return `delay` in seconds, at least 0; raises `ConfigurationError` for any other value."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigurationError(f"a delay is in seconds, or a timedelta, not {delay!r}")
    if math.isnan(seconds) or seconds > MAX_DELAY.total_seconds():
        raise ConfigurationError(f"a delay is at most {MAX_DELAY.days} days, not {delay!r}")
    return max(0.0, seconds)


def check_reason(reason: str) -> str:
    """Return `reason`; raises `ConfigurationError` if it is not a str."""
    if not isinstance(reason, str):
        raise ConfigurationError(f"a reason is text, not {type(reason).__name__}")
    return reason


def text_of(error: BaseException) -> str:
    """Return the text of `error`, or a substitute if its `__str__` raises."""
    try:
        return str(error) or type(error).__name__
    except Exception as failed:
        return f"{type(error).__name__} (its text cannot be made: {type(failed).__name__})"


Meaning = type[AnymqError] | Callable[[Any], type[AnymqError]]
ErrorTable = Mapping[type[BaseException], Meaning]
"""The anymq error for each exception of a client library: a class, or a function that returns one.
"""


def translate(error: BaseException, table: ErrorTable, *, doing: str, where: str) -> BaseException:
    """Return the anymq error for a client library's `error`, or `error` itself.

    The most specific class in `table` wins. Errors of anymq are returned unchanged. So are
    exceptions without an entry, because an unmapped exception is a defect. `where` is the masked
    URL.
    """
    if isinstance(error, AnymqError):
        return error
    for cls in type(error).__mro__:
        meaning = table.get(cls)
        if meaning is None:
            continue
        kind: type[AnymqError] = meaning if isinstance(meaning, type) else _ask(meaning, error)
        translated = kind(f"{doing} failed on {where}: {text_of(error)}")
        translated.__cause__ = error
        return translated
    return error


def _ask(meaning: Callable[[Any], type[AnymqError]], error: BaseException) -> type[AnymqError]:
    """Return the class for `error`; `TransientError` if `meaning` raises."""
    try:
        return meaning(error)
    except Exception:
        return TransientError
