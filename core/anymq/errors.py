"""Every error anymq raises.

::

    AnymqError
    ├── ConfigurationError (ValueError)   the program or its settings must change
    │   ├── InvalidURL
    │   ├── UnknownScheme
    │   ├── MissingDependency
    │   └── UnsupportedOperation
    ├── BrokerError                       the broker or the network said so
    │   ├── TransientError                may succeed if repeated
    │   │   ├── ConnectionLost
    │   │   ├── PublishTimeout
    │   │   ├── RequestTimeout
    │   │   └── Throttled
    │   └── PermanentError                will not
    │       ├── AccessDenied
    │       ├── NotFound
    │       ├── RequestFailed
    │       └── MessageTooLarge
    └── StateError                        the caller broke the rules
        ├── Closed
        └── AlreadySettled

Whether to retry is the class, not a method. `Reject`, `RetryAfter` and `StopLane` are not errors of
the library: a handler raises them to say what becomes of its delivery.
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
    """The connection URL cannot be understood, or carries an unknown or bad option."""


class UnknownScheme(ConfigurationError):
    """No installed adapter serves this URL scheme."""


class MissingDependency(ConfigurationError, ImportError):
    """The adapter is known, but its client library is not installed."""


class UnsupportedOperation(ConfigurationError):
    """The backend cannot do this and anymq cannot emulate it."""


class BrokerError(AnymqError):
    """Something the broker or the network said; `__cause__` is the client library's error."""


class TransientError(BrokerError):
    """May succeed if repeated."""


class ConnectionLost(TransientError):
    """The broker could not be reached, or the connection broke."""


class PublishTimeout(TransientError):
    """The broker did not confirm in time. The message may have been stored all the same, unless the
    text says that nothing was sent: then the topic could not be made ready."""


class RequestTimeout(TransientError):
    """Nobody replied in time. The request may have been handled all the same."""


class Throttled(TransientError):
    """The broker refuses work for now: out of memory, out of disk, over quota."""


class PermanentError(BrokerError):
    """Will not succeed if repeated."""


class AccessDenied(PermanentError):
    """Wrong credentials, or no right to do this."""


class NotFound(PermanentError):
    """The topic, queue, stream or group does not exist (and was not to be created)."""


class RequestFailed(PermanentError):
    """The request was rejected by its handler, or the reply is not what was asked for."""


class MessageTooLarge(PermanentError):
    """The message is over a limit of anymq or of the broker."""


class StateError(AnymqError):
    """The caller broke the rules of the interface."""


class Closed(StateError):
    """The broker or subscription has been closed."""


class AlreadySettled(StateError):
    """The delivery was already settled with another verb."""


class Reject(Exception):
    """Raise in a handler, from any depth: never again, to the dead letters with this reason."""

    def __init__(self, reason: str = "rejected by the handler") -> None:
        super().__init__(reason)
        self.reason = check_reason(reason)


class Unreadable(Reject):
    """The body does not validate: its error may quote the body, so its traceback is not logged."""


class RetryAfter(Exception):
    """Raise in a handler, from any depth: failed attempt, deliver again after `delay`.

    `delay` is in seconds, or a timedelta. With `counted=False` it is no attempt: the message was
    only not ready to be handled.
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
    """Raise in a handler of an ordered subscription: hold up this key, until it is restarted."""

    def __init__(self, reason: str = "stopped by the handler") -> None:
        super().__init__(reason)
        self.reason = check_reason(reason)


LONGEST_DELAY = timedelta(days=366)


def check_delay(delay: float | timedelta) -> float:
    """Return `delay` in seconds, at least 0; raises `ConfigurationError` for what is no delay."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise ConfigurationError(f"a delay is in seconds, or a timedelta, not {delay!r}")
    if math.isnan(seconds) or seconds > LONGEST_DELAY.total_seconds():
        raise ConfigurationError(f"a delay is at most {LONGEST_DELAY.days} days, not {delay!r}")
    return max(0.0, seconds)


def check_reason(reason: str) -> str:
    """Return `reason`; raises `ConfigurationError` if it is no text."""
    if not isinstance(reason, str):
        raise ConfigurationError(f"a reason is text, not {type(reason).__name__}")
    return reason


def text_of(error: BaseException) -> str:
    """Return what `error` says, or that it cannot say it: its `str` may raise itself."""
    try:
        return str(error) or type(error).__name__
    except Exception as failed:
        return f"{type(error).__name__} (its text cannot be made: {type(failed).__name__})"


Meaning = type[AnymqError] | Callable[[Any], type[AnymqError]]
ErrorTable = Mapping[type[BaseException], Meaning]

"""What each exception of a client library means: a class, or a function of the exception."""


def translate(error: BaseException, table: ErrorTable, *, doing: str, where: str) -> BaseException:
    """Return the anymq error for a client library's `error`, or `error` itself.

    The most specific class in `table` wins. Errors of anymq pass through unchanged, and so does
    what the table does not name: an unmapped exception is a defect and must be seen as one.
    `where` is the masked URL.
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
    """Return what `error` means; if that cannot be told, it may pass."""
    try:
        return meaning(error)
    except Exception:
        return TransientError
