"""The error classes of all exceptions that the driver can raise."""

from __future__ import annotations

import errno
import inspect
import sqlite3

import pytest

from anymq.errors import (
    AccessDenied,
    AnymqError,
    ConfigurationError,
    MessageTooLarge,
    PermanentError,
    Throttled,
    TransientError,
    translate,
)
from anymq_sqlite.errors import ERRORS

EXPORTED = [
    item
    for _, item in inspect.getmembers(sqlite3, inspect.isclass)
    if issubclass(item, BaseException)
]


def meaning(error: BaseException) -> type[BaseException]:
    return type(translate(error, ERRORS, doing="publish", where="sqlite:///x.db"))


def coded(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("something")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize("kind", EXPORTED)
def test_every_exception_of_sqlite3_is_mapped(kind: type[BaseException]) -> None:
    assert issubclass(meaning(kind("x")), AnymqError)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_BUSY, Throttled),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Throttled),
        (sqlite3.SQLITE_FULL, Throttled),
        (sqlite3.SQLITE_IOERR_WRITE, TransientError),
        (sqlite3.SQLITE_READONLY_DBMOVED, AccessDenied),
        (sqlite3.SQLITE_CANTOPEN_ISDIR, AccessDenied),
        (sqlite3.SQLITE_TOOBIG, MessageTooLarge),
        (sqlite3.SQLITE_CORRUPT, PermanentError),
        (sqlite3.SQLITE_NOTADB, PermanentError),
    ],
)
def test_the_code_decides(code: int, expected: type[AnymqError]) -> None:
    assert meaning(coded(code)) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.ENOENT, ConfigurationError),
        (errno.EISDIR, ConfigurationError),
        (errno.ENOSPC, Throttled),
        (errno.EAGAIN, Throttled),
        (errno.EIO, TransientError),
    ],
)
def test_errors_of_the_operating_system(code: int, expected: type[AnymqError]) -> None:
    assert meaning(OSError(code, "x")) is expected
