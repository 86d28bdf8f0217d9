"""Every exception that aiokafka exports means something to anymq."""

from __future__ import annotations

import inspect
import ssl

import pytest

from anymq.errors import (
    AccessDenied,
    AnymqError,
    ConnectionLost,
    MessageTooLarge,
    NotFound,
    TransientError,
    translate,
)
from anymq_kafka.client.compat import kafka
from anymq_kafka.errors import ERRORS

EXPORTED = [
    cls
    for _, cls in inspect.getmembers(kafka, inspect.isclass)
    if issubclass(cls, BaseException)
    and cls.__module__ == kafka.__name__
    # The base of what brokers answer has no number, and so no text; it is never raised.
    and cls is not kafka.BrokerResponseError
]


@pytest.mark.parametrize("cls", EXPORTED, ids=lambda cls: str(cls.__name__))
def test_every_exception_is_mapped(cls: type[BaseException]) -> None:
    error = cls.__new__(cls)
    meaning = translate(error, ERRORS, doing="test", where="kafka://…")
    assert isinstance(meaning, AnymqError)
    if getattr(cls, "retriable", False) and cls is not kafka.UnknownTopicOrPartitionError:
        assert isinstance(meaning, TransientError)


def test_all_of_them_are_looked_at() -> None:
    assert len(EXPORTED) > 90
    assert {getattr(kafka, name) for name in kafka.__all__} <= {
        *EXPORTED,
        kafka.BrokerResponseError,
    }


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (kafka.KafkaConnectionError("gone"), ConnectionLost),
        (ConnectionRefusedError(111, "refused"), ConnectionLost),
        (ssl.SSLCertVerificationError("who?"), AccessDenied),
        (kafka.SaslAuthenticationFailed("no"), AccessDenied),
        (kafka.UnknownTopicOrPartitionError("t"), NotFound),
        (kafka.MessageSizeTooLargeError(), MessageTooLarge),
        (TimeoutError(), TransientError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_matters_most(error: BaseException, meaning: type[AnymqError]) -> None:
    assert type(translate(error, ERRORS, doing="test", where="")) is meaning
