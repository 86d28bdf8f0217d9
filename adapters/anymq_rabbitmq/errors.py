"""The error table: classes of anymq for the exceptions of the client library."""

from __future__ import annotations

import asyncio
import ssl

from aio_pika import exceptions as pika
from aiormq import exceptions as amqp
from pamqp import exceptions as codec

from anymq.driver import (
    AccessDenied,
    AnymqError,
    ConnectionLost,
    ErrorTable,
    MessageTooLarge,
    NotFound,
    PermanentError,
    Throttled,
    TransientError,
    UnsupportedOperation,
)

from .client.fetcher import ConsumerCancelled


def _closed(error: BaseException) -> type[AnymqError]:
    """Return the class of a connection that the server has closed, by the server's code."""
    match error.args[:1]:
        case (530,):
            return AccessDenied
        case (540,):
            return UnsupportedOperation
        case (502 | 503,):
            return PermanentError
        case _:
            return ConnectionLost


def _not_found(error: BaseException) -> type[AnymqError]:
    # The server's report of a queue whose node is down or starting.
    return TransientError if "down or inaccessible" in str(error) else NotFound


def _precondition(error: BaseException) -> type[AnymqError]:
    text = str(error)
    if "larger than" in text and "size" in text:
        return MessageTooLarge
    if "delivery acknowledgement" in text and "timed out" in text:
        return ConnectionLost  # The consumer timeout: the messages are redelivered.
    if "unknown delivery tag" in text:
        return TransientError
    return PermanentError


ERRORS: ErrorTable = {
    # The connection.
    amqp.AMQPError: TransientError,
    amqp.AMQPConnectionError: ConnectionLost,
    amqp.AuthenticationError: AccessDenied,
    amqp.ProbableAuthenticationError: AccessDenied,
    amqp.IncompatibleProtocolError: PermanentError,
    amqp.ProtocolSyntaxError: ConnectionLost,
    amqp.InvalidFrameError: ConnectionLost,
    amqp.ConnectionClosed: _closed,
    amqp.ConnectionNotAllowed: AccessDenied,
    amqp.ConnectionNotImplemented: UnsupportedOperation,
    amqp.ConnectionSyntaxError: PermanentError,
    amqp.ConnectionCommandInvalid: PermanentError,
    amqp.ConnectionFrameError: ConnectionLost,
    amqp.ConnectionChannelError: ConnectionLost,
    amqp.ConnectionUnexpectedFrame: ConnectionLost,
    amqp.ConnectionResourceError: Throttled,
    amqp.ConnectionInternalError: TransientError,
    # A channel.
    amqp.AMQPChannelError: TransientError,
    amqp.ChannelClosed: ConnectionLost,
    amqp.ChannelAccessRefused: AccessDenied,
    amqp.ChannelNotFoundEntity: _not_found,
    amqp.ChannelLockedResource: TransientError,
    amqp.ChannelPreconditionFailed: _precondition,
    amqp.DuplicateConsumerTag: TransientError,
    amqp.ChannelInvalidStateError: ConnectionLost,
    amqp.MethodNotImplemented: UnsupportedOperation,
    # A message.
    amqp.DeliveryError: Throttled,
    amqp.PublishError: NotFound,
    pika.MessageProcessError: PermanentError,
    pika.QueueEmpty: TransientError,
    # The codec and the operating system.
    codec.PAMQPException: ConnectionLost,
    ssl.SSLCertVerificationError: AccessDenied,
    asyncio.TimeoutError: ConnectionLost,
    OSError: ConnectionLost,
    ConsumerCancelled: ConnectionLost,
}
