"""The error table: errors of redis-py and of the server, by class and by code."""

from __future__ import annotations

from redis import exceptions

from anymq.driver import (
    AccessDenied,
    AnymqError,
    ConfigurationError,
    ConnectionLost,
    ErrorTable,
    MessageTooLarge,
    NotFound,
    PermanentError,
    StateError,
    Throttled,
    TransientError,
    UnsupportedOperation,
)

_BY_CODE: dict[str, type[AnymqError]] = {
    "BUSY": TransientError,
    "CLUSTERDOWN": TransientError,
    "CROSSSLOT": UnsupportedOperation,
    "LOADING": TransientError,
    "MASTERDOWN": TransientError,
    "MISCONF": Throttled,
    "MOVED": UnsupportedOperation,
    "NOAUTH": AccessDenied,
    "NOGROUP": NotFound,
    "NOPERM": AccessDenied,
    "NOREPLICAS": Throttled,
    "NOSCRIPT": TransientError,
    "OOM": Throttled,
    "READONLY": TransientError,
    "TRYAGAIN": TransientError,
    "UNBLOCKED": TransientError,
    "WRONGPASS": AccessDenied,
    "WRONGTYPE": ConfigurationError,
}

_BY_WORDS: tuple[tuple[str, type[AnymqError]], ...] = (
    ("unknown command", UnsupportedOperation),
    ("ACL failure in script", AccessDenied),
    ("exceeds maximum allowed size", MessageTooLarge),
    ("too large to be stored", MessageTooLarge),
    ("DB index is out of range", ConfigurationError),
    ("no such key", NotFound),
)


def code_of(error: BaseException) -> str:
    """Return the first word of a server's error, for example `NOGROUP`."""
    code = getattr(error, "status_code", None)
    return str(code) if code else str(error).partition(" ")[0]


def _response(error: BaseException) -> type[AnymqError]:
    """Return the class by the error's code or text: redis-py has classes for some codes only."""
    known = _BY_CODE.get(code_of(error))
    if known is not None:
        return known
    text = str(error)
    return next((cls for words, cls in _BY_WORDS if words in text), PermanentError)


def _connection(error: BaseException) -> type[AnymqError]:
    return Throttled if "max number of clients" in str(error) else ConnectionLost


ERRORS: ErrorTable = {
    exceptions.RedisError: PermanentError,
    exceptions.ConnectionError: _connection,
    exceptions.TimeoutError: ConnectionLost,
    exceptions.AuthenticationError: AccessDenied,
    exceptions.AuthorizationError: AccessDenied,
    exceptions.AuthenticationWrongNumberOfArgsError: AccessDenied,
    exceptions.ExternalAuthProviderError: AccessDenied,
    exceptions.BusyLoadingError: TransientError,
    exceptions.MaxConnectionsError: Throttled,
    exceptions.InvalidResponse: ConnectionLost,
    exceptions.ResponseError: _response,
    exceptions.NoScriptError: TransientError,
    exceptions.OutOfMemoryError: Throttled,
    exceptions.ExecAbortError: PermanentError,
    exceptions.ReadOnlyError: TransientError,
    exceptions.NoPermissionError: AccessDenied,
    exceptions.ModuleError: PermanentError,
    exceptions.DataError: ConfigurationError,
    exceptions.PubSubError: PermanentError,
    exceptions.WatchError: TransientError,
    exceptions.LockError: StateError,
    exceptions.LockNotOwnedError: StateError,
    exceptions.ChildDeadlockedError: StateError,
    exceptions.ClusterError: TransientError,
    exceptions.ClusterDownError: TransientError,
    exceptions.MasterDownError: TransientError,
    exceptions.TryAgainError: TransientError,
    exceptions.AskError: UnsupportedOperation,
    exceptions.MovedError: UnsupportedOperation,
    exceptions.ClusterCrossSlotError: UnsupportedOperation,
    exceptions.RedisClusterException: UnsupportedOperation,
    exceptions.SlotNotCoveredError: UnsupportedOperation,
    exceptions.CrossSlotTransactionError: UnsupportedOperation,
    exceptions.InvalidPipelineStack: UnsupportedOperation,
    exceptions.IncorrectPolicyType: UnsupportedOperation,
    OSError: ConnectionLost,
    TimeoutError: ConnectionLost,
}
"""The class of `anymq.errors` for each exception. An unlisted class has that of its base class."""
