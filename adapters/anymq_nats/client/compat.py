"""The names of nats-py that the adapter needs, and the choice between the two clients."""

from __future__ import annotations

from typing import Literal

from nats.aio.client import Client
from nats.aio.subscription import Subscription

from anymq.driver import ConfigurationError, Parts, check_parts, logger

from .plain import PlainClient
from .transport import ClientFactory

_log = logger("anymq.nats")

PUBLIC_PARTS: Parts = {
    Client: (
        "close",
        "connect",
        "connected_server_version",
        "flush",
        "force_reconnect",
        "is_closed",
        "is_connected",
        "max_payload",
        "new_inbox",
        "pending_data_size",
        "publish",
        "request",
        "subscribe",
    ),
    Subscription: ("drain", "unsubscribe"),
}
"""The public names that both clients use: without one of them, `connect` fails."""


def private_parts() -> Parts:
    """Return the private names that `internals` and `parser` use."""
    try:
        from nats.aio.transport import TcpTransport
        from nats.protocol.parser import Parser
    except ImportError as error:
        return {Client: (f"module {error.name}",)}  # one that no release has
    return {
        Client: (
            "_connect_command",
            "_connect_to_server",
            "_error_cb",
            "_flush_pending",
            "_flusher_task",
            "_ping_interval_task",
            "_pongs",
            "_process_op_err",
            "_process_pong",
            "_ps",
            "_reading_task",
            "_reconnection_task",
            "_remove_sub",
            "_server_info",
            "_transport",
            "ssl_context",
        ),
        Subscription: ("_id",),
        TcpTransport: ("_io_writer",),
        Parser: ("parse", "reset"),
    }


def choose_client(
    wanted: Literal["fast", "plain"], *, encrypt: bool, tls_first: bool
) -> ClientFactory:
    """Return `FastClient` if it is wanted and fits the installed nats-py, else `PlainClient`.

    A warning names the missing parts and the tested range of nats-py. Raises `ConfigurationError`
    if the connection must be encrypted and `PlainClient` could not ensure that.
    """
    reason = ""
    if wanted == "fast":
        try:
            check_parts(private_parts(), distribution="anymq")
        except ConfigurationError as error:
            reason = f"{error}; "
        else:
            from .internals import FastClient  # imports private modules of nats-py

            return FastClient
    if encrypt and not tls_first:
        raise ConfigurationError(
            f"{reason}the plain client cannot insist on encryption: use tls_first=true, "
            "and handshake_first in the server's configuration"
        )
    if reason:
        _log.warning("%susing the plain client, which is slower", reason)
    return PlainClient
