"""`RabbitMQOptions`: the options of an `amqp://` URL; the virtual host of its path, and TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from anymq.driver import URL, ConfigurationError, client_context


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQOptions:
    """The options of the URL of a `RabbitMQDriver`. Times are in seconds."""

    heartbeat: int = 10
    """The interval of heartbeats. A connection without data for twice as long counts as dead."""

    confirm_timeout: float = 10.0
    """The longest wait of a publish for the server's confirmation."""

    request_timeout: float = 10.0
    """The longest wait of any other request for its answer."""

    retention: float = 7 * 24 * 3600.0
    """The default retention of a topic's log. The log drops whole segments, so a topic with few
    messages keeps them for longer."""

    settle_time: float = 1.5
    """The wait after the creation of a queue before anything relies on it. A RabbitMQ node that is
    killed within a second of a quorum queue's creation loses the messages that the queue had
    confirmed (seen on 4.0.5: its register of queues is written to disk at intervals)."""

    connection_name: str = "anymq"
    """The name of the connections in the server's tools."""

    ca: str | None = None
    """The file with the certificate authorities to trust instead of the system's."""

    cert: str | None = None
    """The file with the client's certificate."""

    key_file: str | None = None
    """The file with the client's key, if it is not in `cert`."""

    def __post_init__(self) -> None:
        if not 1 <= self.heartbeat <= 600:
            raise ConfigurationError("heartbeat must be from 1 to 600 seconds")
        if self.settle_time < 0:
            raise ConfigurationError("settle_time must not be negative")
        for name in ("confirm_timeout", "request_timeout", "retention"):
            if not getattr(self, name) > 0:
                raise ConfigurationError(f"{name} must be more than 0 seconds")
        if self.key_file and not self.cert:
            raise ConfigurationError("key_file needs cert")


def virtual_host(url: URL) -> str:
    """Return the virtual host: the path without its slash, or `/` without a path."""
    return url.path[1:] or "/"


def tls_context(url: URL, options: RabbitMQOptions) -> ssl.SSLContext | None:
    """Return the TLS context for `amqps`, which always verifies certificates and host names."""
    if url.scheme != "amqps":
        if options.ca or options.cert:
            raise ConfigurationError(f"{url.scheme}: ca and cert need the scheme amqps")
        return None
    return client_context(options.ca, options.cert, options.key_file)
