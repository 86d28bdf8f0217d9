"""Every exception that nats-py exports means something to anymq."""

import inspect
import ssl
from types import ModuleType

import nats.aio.errors
import nats.errors
import nats.js.errors
import pytest

from anymq import errors
from anymq_nats import NatsDriver
from anymq_nats.errors import NoPubAck, NotPermitted, NotServed, TooLarge, api_error


def _exported(module: ModuleType) -> list[type[BaseException]]:
    return [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, BaseException) and found.__module__ == module.__name__
    ]


@pytest.mark.parametrize("module", [nats.errors, nats.js.errors])
def test_every_exception_is_in_the_table_itself(module: ModuleType) -> None:
    assert [found for found in _exported(module) if found not in NatsDriver.errors] == []


def test_the_old_names_are_subclasses_of_mapped_ones() -> None:
    base = nats.errors.Error
    for found in _exported(nats.aio.errors):
        parents = [parent for parent in found.__mro__[1:] if parent not in (base, Exception)]
        assert parents[0] in NatsDriver.errors or found.__mro__[1] is base, found


def _meaning(error: BaseException) -> type[BaseException]:
    return type(errors.translate(error, NatsDriver.errors, doing="publish", where="nats://h"))


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (ConnectionRefusedError(), errors.ConnectionLost),
        (TimeoutError(), errors.ConnectionLost),
        (ssl.SSLCertVerificationError("self-signed"), errors.AccessDenied),
        (ssl.SSLError("wrong version"), errors.ConnectionLost),
        (nats.errors.Error("nats: 'Authorization Violation'"), errors.AccessDenied),
        (nats.errors.Error("nats: maximum connections exceeded"), errors.TransientError),
        (NoPubAck(), errors.PublishTimeout),
        (NotPermitted("permissions violation"), errors.AccessDenied),
        (NotServed("orders"), errors.TransientError),
        (TooLarge(9, 8), errors.MessageTooLarge),
        (nats.js.errors.NoStreamResponseError(), errors.NotFound),
        (api_error({"code": 404, "err_code": 10059}), errors.NotFound),
        (api_error({"code": 503, "err_code": 10077}), errors.Throttled),
        (api_error({"code": 500, "err_code": 10047}), errors.Throttled),
        (api_error({"code": 400, "err_code": 10054}), errors.MessageTooLarge),
        (api_error({"code": 503, "err_code": 10076}), errors.ConfigurationError),
        (api_error({"code": 503, "err_code": 10008}), errors.TransientError),
        (api_error({"code": 400, "err_code": 10065}), errors.ConfigurationError),
    ],
)
def test_what_a_failure_means(error: BaseException, meaning: type[BaseException]) -> None:
    assert _meaning(error) is meaning
