"""The table of errors: SQLite's by result code, the operating system's by `errno`."""

from __future__ import annotations

import errno
import sqlite3

from anymq.driver import (
    AccessDenied,
    AnymqError,
    ConfigurationError,
    ErrorTable,
    MessageTooLarge,
    PermanentError,
    Throttled,
    TransientError,
)

RECORD_ERRORS = (sqlite3.DataError, sqlite3.IntegrityError, OverflowError, UnicodeError)
"""Errors caused by the contents of one record. All others concern the database."""

_BY_CODE: dict[int, type[AnymqError]] = {
    sqlite3.SQLITE_BUSY: Throttled,
    sqlite3.SQLITE_LOCKED: Throttled,
    sqlite3.SQLITE_PROTOCOL: Throttled,
    sqlite3.SQLITE_FULL: Throttled,
    sqlite3.SQLITE_NOMEM: Throttled,
    sqlite3.SQLITE_IOERR: TransientError,
    sqlite3.SQLITE_INTERRUPT: TransientError,
    sqlite3.SQLITE_ABORT: TransientError,
    sqlite3.SQLITE_SCHEMA: TransientError,
    sqlite3.SQLITE_PERM: AccessDenied,
    sqlite3.SQLITE_READONLY: AccessDenied,
    sqlite3.SQLITE_CANTOPEN: AccessDenied,
    sqlite3.SQLITE_AUTH: AccessDenied,
    sqlite3.SQLITE_TOOBIG: MessageTooLarge,
}

_BY_ERRNO: dict[int, type[AnymqError]] = {
    errno.EACCES: AccessDenied,
    errno.EPERM: AccessDenied,
    errno.EROFS: AccessDenied,
    errno.ENOENT: ConfigurationError,
    errno.ENOTDIR: ConfigurationError,
    errno.EISDIR: ConfigurationError,
    errno.ENAMETOOLONG: ConfigurationError,
    errno.ENOSPC: Throttled,
    errno.EDQUOT: Throttled,
}


def primary_code(error: BaseException) -> int:
    """Return SQLite's primary result code of `error`; SQLITE_ERROR if it has none."""
    code: int = getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR
    return code & 0xFF


def is_busy(error: BaseException) -> bool:
    """Whether `error` says that another connection has locked the file."""
    return isinstance(error, BlockingIOError) or primary_code(error) == sqlite3.SQLITE_BUSY


def _sqlite(error: BaseException) -> type[AnymqError]:
    return _BY_CODE.get(primary_code(error), PermanentError)


def _os(error: BaseException) -> type[AnymqError]:
    code = error.errno if isinstance(error, OSError) else None
    return _BY_ERRNO.get(code or 0, TransientError)


ERRORS: ErrorTable = {
    sqlite3.Error: _sqlite,
    sqlite3.Warning: PermanentError,
    MemoryError: Throttled,
    BlockingIOError: Throttled,
    OSError: _os,
    OverflowError: PermanentError,
    TimeoutError: TransientError,
    UnicodeError: PermanentError,
}
"""Error classes by exception; the subclasses of `sqlite3.Error` are distinguished by code."""
