"""`NatsOptions`: the query options of a `nats://` or `tls://` URL, and the TLS context for them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from anymq.driver import URL, ConfigurationError, client_context

_FILES = ("ca", "cert", "key_file", "creds")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsOptions:
    """The options of a `nats://` or `tls://` URL."""

    name: str = "anymq"
    """Name of this connection in the server's monitoring."""

    request_timeout: float = 5.0
    """Seconds within which the server must confirm a publish or answer any other request."""

    ca: str | None = None
    """File of the certificate authorities to trust, instead of the system's."""

    cert: str | None = None
    """File of the client certificate."""

    key_file: str | None = None
    """File of the client certificate's private key, if `cert` does not contain it."""

    tls_first: bool = False
    """Whether the TLS handshake precedes the server's INFO (`handshake_first` of the server)."""

    creds: str | None = None
    """Credentials file with the user's JWT and seed, as `nsc` writes it."""

    domain: str | None = None
    """JetStream domain to use, if it is not the server's own."""

    replicas: int = 1
    """Copies that a cluster keeps of each stream that anymq creates: 1, 3 or 5."""

    max_age: float = 7 * 24 * 3600.0
    """Seconds for which streams created by anymq keep a message, unless its topic has a retention;
    0 keeps it without limit."""

    duplicate_window: float = 120.0
    """Seconds for which streams created by anymq recognise a repeated publish."""

    inbox_prefix: str = "_INBOX"
    """Prefix of the subjects for replies; set it if the user may subscribe to a private prefix
    only."""

    client: Literal["fast", "plain"] = "fast"
    """How nats-py is used. `fast` needs private parts of a tested release. `plain` needs its public
    interface alone, is slower, and encrypts only with `tls_first`. A release without the private
    parts is used as `plain`, with a warning."""

    def __post_init__(self) -> None:
        if self.request_timeout <= 0:
            raise ConfigurationError("request_timeout must be more than 0 seconds")
        if self.max_age < 0:
            raise ConfigurationError("max_age must be 0 (no limit) or a number of seconds")
        if self.duplicate_window < 1:
            raise ConfigurationError("duplicate_window must be at least 1 second")
        if self.replicas not in (1, 3, 5):
            raise ConfigurationError("replicas must be 1, 3 or 5")
        if self.key_file and not self.cert:
            raise ConfigurationError("key_file has no meaning without cert")
        for name in _FILES:
            path = getattr(self, name)
            if path is not None and not Path(path).is_file():
                raise ConfigurationError(f"{name}: there is no file {path!r}")


def encrypted(url: URL, options: NatsOptions) -> bool:
    """Return whether the scheme or a TLS option demands an encrypted connection."""
    return url.scheme == "tls" or options.tls_first or bool(options.ca or options.cert)


def tls_context(options: NatsOptions) -> ssl.SSLContext:
    """Return the context for `options`; it always verifies certificate and host name."""
    return client_context(options.ca, options.cert, options.key_file)
