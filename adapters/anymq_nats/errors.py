"""The error table for exceptions of nats-py, and the exceptions that this adapter adds."""

from __future__ import annotations

import ssl
from typing import Any

import nats.errors
import nats.js.errors

from anymq.driver import (
    AccessDenied,
    AnymqError,
    BrokerError,
    Closed,
    ConfigurationError,
    ConnectionLost,
    ErrorTable,
    MessageTooLarge,
    NotFound,
    PermanentError,
    PublishTimeout,
    Throttled,
    TransientError,
)


class NoPubAck(nats.errors.TimeoutError):
    """The server did not confirm a publish in time; it may have stored the message."""

    def __str__(self) -> str:
        return "nats: no confirmation from the stream in time"


class TooLarge(nats.errors.MaxPayloadError):
    """A message and its headers exceed the server's `max_payload`."""

    def __init__(self, size: int, limit: int, reserve: int = 0) -> None:
        self.size, self.limit, self.reserve = size, limit, reserve

    def __str__(self) -> str:
        return (
            f"nats: {self.size} bytes with headers; the server's max_payload is {self.limit}, of "
            f"which {self.reserve} are left free for the headers of retries and dead letters "
            "(raise max_payload in its configuration)"
        )


class NotPermitted(nats.errors.AuthorizationError):
    """The server refused this user a publish or a subscription."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def api_error(error: dict[str, Any]) -> nats.js.errors.APIError:
    """Return the exception for an error in an answer of JetStream's API."""
    try:
        nats.js.errors.APIError.from_error(error)
    except nats.js.errors.APIError as raised:
        return raised
    return nats.js.errors.APIError(**error)


class NotServed(nats.errors.NoRespondersError):
    """A stream exists but has no leader, for example while a cluster elects one."""

    def __init__(self, subject: str) -> None:
        self.subject = subject

    def __str__(self) -> str:
        return f"nats: the stream of {self.subject!r} has no leader at the moment"


# JetStream's own codes (nats-server, errors.json).
_BY_CODE: dict[int, type[AnymqError]] = {
    10023: Throttled,  # insufficient resources
    10028: Throttled,  # memory resources exceeded
    10047: Throttled,  # storage resources exceeded
    10077: Throttled,  # maximum messages, bytes, … of the stream exceeded
    10002: Throttled,  # resource limits exceeded for account
    10026: Throttled,  # maximum consumers limit reached
    10027: Throttled,  # maximum number of streams reached
    10054: MessageTooLarge,  # message size exceeds maximum allowed
    10097: MessageTooLarge,  # header size exceeds limits
    10039: ConfigurationError,  # JetStream not enabled for account
    10076: ConfigurationError,  # JetStream not enabled
    10035: AccessDenied,  # this account may not do that
}


def _by_text(error: BaseException) -> type[AnymqError]:
    # nats-py raises its base class for every -ERR of the server.
    text = str(error).lower()
    if "authorization" in text or "authentication" in text or "permissions violation" in text:
        return AccessDenied
    if "maximum payload" in text:
        return MessageTooLarge
    if "invalid subject" in text or "invalid connect url" in text or "ssl context" in text:
        return ConfigurationError
    return TransientError


def _api(error: BaseException) -> type[AnymqError]:
    code = getattr(error, "err_code", None)
    if code in _BY_CODE:
        return _BY_CODE[code]
    status = getattr(error, "code", None) or 0
    if isinstance(error, nats.js.errors.NotFoundError):
        return NotFound
    if isinstance(error, nats.js.errors.BadRequestError):
        return ConfigurationError
    return TransientError if status in (0, 408, 409, 429) or status >= 500 else PermanentError


def _tls(error: BaseException) -> type[AnymqError]:
    verified = not isinstance(error, ssl.SSLCertVerificationError)
    return ConnectionLost if verified else AccessDenied


_CORE: ErrorTable = {
    nats.errors.Error: _by_text,
    nats.errors.TimeoutError: ConnectionLost,
    nats.errors.NoRespondersError: TransientError,
    nats.errors.StaleConnectionError: ConnectionLost,
    nats.errors.OutboundBufferLimitError: ConnectionLost,
    nats.errors.UnexpectedEOF: ConnectionLost,
    nats.errors.FlushTimeoutError: ConnectionLost,
    nats.errors.ConnectionClosedError: ConnectionLost,
    nats.errors.SecureConnRequiredError: AccessDenied,
    nats.errors.SecureConnWantedError: AccessDenied,
    nats.errors.SecureConnFailedError: AccessDenied,
    nats.errors.BadSubscriptionError: TransientError,
    nats.errors.BadSubjectError: ConfigurationError,
    nats.errors.BadHeaderError: ConfigurationError,
    nats.errors.SlowConsumerError: TransientError,
    nats.errors.BadTimeoutError: ConfigurationError,
    nats.errors.AuthorizationError: AccessDenied,
    nats.errors.NoServersError: ConnectionLost,
    nats.errors.JsonParseError: PermanentError,
    nats.errors.MaxPayloadError: MessageTooLarge,
    nats.errors.DrainTimeoutError: ConnectionLost,
    nats.errors.ConnectionDrainingError: Closed,
    nats.errors.ConnectionReconnectingError: ConnectionLost,
    nats.errors.InvalidUserCredentialsError: AccessDenied,
    nats.errors.InvalidCallbackTypeError: ConfigurationError,
    nats.errors.ProtocolError: ConnectionLost,
    nats.errors.ServerNotInPoolError: ConnectionLost,
    nats.errors.NotJSMessageError: PermanentError,
    nats.errors.MsgAlreadyAckdError: PermanentError,
}

_JETSTREAM: ErrorTable = {
    nats.js.errors.Error: BrokerError,
    nats.js.errors.APIError: _api,
    nats.js.errors.ServiceUnavailableError: _api,
    nats.js.errors.ServerError: _api,
    nats.js.errors.NotFoundError: _api,
    nats.js.errors.BadRequestError: _api,
    nats.js.errors.ConsumerInvalidResetError: _api,
    nats.js.errors.NoStreamResponseError: NotFound,
    nats.js.errors.TooManyStalledMsgsError: Throttled,
    nats.js.errors.FetchTimeoutError: ConnectionLost,
    nats.js.errors.ConsumerSequenceMismatchError: TransientError,
}

# Of the key-value and object stores, which users of `Broker.native` may use.
_STORES: ErrorTable = {
    nats.js.errors.BucketNotFoundError: NotFound,
    nats.js.errors.BadBucketError: ConfigurationError,
    nats.js.errors.KeyValueError: _api,
    nats.js.errors.KeyDeletedError: NotFound,
    nats.js.errors.KeyNotFoundError: NotFound,
    nats.js.errors.KeyWrongLastSequenceError: PermanentError,
    nats.js.errors.NoKeysError: NotFound,
    nats.js.errors.KeyHistoryTooLargeError: ConfigurationError,
    nats.js.errors.InvalidKeyError: ConfigurationError,
    nats.js.errors.InvalidBucketNameError: ConfigurationError,
    nats.js.errors.InvalidObjectNameError: ConfigurationError,
    nats.js.errors.BadObjectMetaError: PermanentError,
    nats.js.errors.LinkIsABucketError: PermanentError,
    nats.js.errors.DigestMismatchError: PermanentError,
    nats.js.errors.ObjectNotFoundError: NotFound,
    nats.js.errors.ObjectDeletedError: NotFound,
    nats.js.errors.ObjectAlreadyExists: PermanentError,
    nats.js.errors.KeyValueLimitMarkerTTLNotSupportedError: ConfigurationError,
}

ERRORS: ErrorTable = {
    OSError: ConnectionLost,
    TimeoutError: ConnectionLost,
    ssl.SSLError: _tls,
    ssl.SSLCertVerificationError: _tls,
    NoPubAck: PublishTimeout,
    **_CORE,
    **_JETSTREAM,
    **_STORES,
}
