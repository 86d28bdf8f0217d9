"""Every exception that the client library exports has a meaning."""

from __future__ import annotations

import inspect
from typing import cast

import aio_pika.exceptions
import aiormq.exceptions
import pytest
from aiormq.exceptions import (
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    ConnectionNotAllowed,
)

from anymq.errors import (
    AccessDenied,
    AnymqError,
    ConnectionLost,
    MessageTooLarge,
    NotFound,
    PermanentError,
    TransientError,
    translate,
)
from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import protocol
from anymq_rabbitmq.connection import Connection, QueueDown

EXPORTED = sorted(
    {
        value
        for module in (aio_pika.exceptions, aiormq.exceptions)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BaseException)
    },
    key=lambda exported: exported.__name__,
)


@pytest.mark.parametrize("exported", EXPORTED, ids=lambda exported: exported.__name__)
def test_every_exception_is_mapped(exported: type[BaseException]) -> None:
    meaning = RabbitMQDriver.errors.get(exported)
    assert meaning is not None, f"{exported} is not in the table"
    kind = meaning if isinstance(meaning, type) else meaning(exported.__new__(exported))
    assert issubclass(kind, AnymqError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionClosed(320, "CONNECTION_FORCED"), ConnectionLost),
        (ConnectionClosed(530, "NOT_ALLOWED"), AccessDenied),
        (ConnectionNotAllowed("NOT_ALLOWED - vhost x not found"), AccessDenied),
        (ChannelNotFoundEntity("NOT_FOUND - no queue 'x'"), NotFound),
        (ChannelNotFoundEntity("NOT_FOUND - … is down or inaccessible"), TransientError),
        (
            ChannelPreconditionFailed("… message size 20 is larger than configured max size 10"),
            MessageTooLarge,
        ),
        (ChannelPreconditionFailed("… inequivalent arg 'type' for exchange"), PermanentError),
        (
            ChannelPreconditionFailed(
                "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out"
            ),
            ConnectionLost,
        ),
        (ConnectionResetError(104, "reset"), ConnectionLost),
        (TimeoutError(), ConnectionLost),
    ],
)
def test_what_it_means(error: Exception, expected: type[AnymqError]) -> None:
    translated = translate(error, RabbitMQDriver.errors, doing="x", where="amqp://…")
    assert type(translated) is expected
    assert translated.__cause__ is error


async def test_a_queue_that_stays_down_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(connection: Connection, queue: str) -> None:
        raise QueueDown(f"home node of {queue!r} is down or inaccessible")

    monkeypatch.setattr(protocol, "inspect_queue", down)
    monkeypatch.setattr(protocol, "QUEUE_START_TIMEOUT", 0.0)
    with pytest.raises(QueueDown, match=r"'orders\._log' is down .*guarantees"):
        await protocol.require_queue(cast("Connection", None), "orders._log")
