"""The parts of the client libraries that this package uses beyond their documented interfaces.

The core checks them at `connect`. If a release of a client lacks one of them, it raises a
`ConfigurationError` that names the tested range.
"""

from __future__ import annotations

import aio_pika
from aio_pika.abc import UnderlayConnection
from aiormq import Channel, Connection
from aiormq.connection import TransportFactory
from pamqp import commands

CLIENT_PARTS: dict[type, tuple[str, ...]] = {
    aio_pika.Connection: ("connect", "kwargs", "transport"),
    UnderlayConnection: ("connection",),
    Connection: ("_transport_factory", "connection_tune", "server_properties"),
    Channel: ("closing", "number", "rpc"),
    TransportFactory: ("create",),
    commands.Exchange.Declare: ("validate",),
    commands.Exchange.Delete: ("validate",),
    commands.Exchange.Bind: ("validate",),
    commands.Queue.Bind: ("validate",),
}
"""Classes of aio-pika, aiormq and pamqp, each with the attributes that `client` needs."""

CLIENT_LOGGERS = ("aio_pika", "aiormq")
"""The loggers of the client libraries."""
