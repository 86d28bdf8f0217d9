"""What a `redis://` URL may say, and where it leads."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any

from anymq.driver import URL, ConfigurationError, InvalidURL, client_context

PORT = 6379


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """The options of a `redis://` or `rediss://` URL. Times are in seconds.

    `timeout` bounds every command, from the wait for a connection to its answer. `connections` is
    the most that commands may open (each subscription has one more). `retention` deletes entries
    that are older, once every group of the topic has settled them; without it a stream grows for
    ever. `dedupe` is how long a publish whose answer was lost can be told from a new one.
    `client_name` is what CLIENT LIST shows; the user must be allowed CLIENT SETNAME then.
    `ca`, `cert` and `key_file` are PEM files for `rediss://`; without `ca` the system's are used.
    """

    timeout: float = 5.0
    connections: int = 8
    retention: float | None = None
    dedupe: float = 120.0
    client_name: str | None = None
    ca: str | None = None
    cert: str | None = None
    key_file: str | None = None

    def __post_init__(self) -> None:
        for name in ("timeout", "retention", "dedupe", "connections"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be positive")
        if self.client_name is not None and not re.fullmatch("[!-~]+", self.client_name):
            raise ConfigurationError("client_name must be ASCII text without spaces")


def address(url: URL) -> dict[str, Any]:
    """Return host, port, database and credentials of `url`, as redis-py names them."""
    if len(url.hosts) != 1:
        raise InvalidURL(f"{url}: expected one host; Redis Cluster and Sentinel are not supported")
    database = url.path.strip("/") or "0"
    if not database.isdecimal():
        raise InvalidURL(f"{url}: the path is the number of the database, for example /0")
    host, port = url.hosts[0]
    return {
        "host": host,
        "port": port or PORT,
        "db": int(database),
        "username": url.username,
        "password": url.password,
    }


def encryption(url: URL, options: RedisOptions) -> dict[str, Any]:
    """Return redis-py's TLS settings; empty for `redis://`. Raises if a file is of no use."""
    if url.scheme != "rediss":
        if options.ca or options.cert or options.key_file:
            raise InvalidURL(f"{url}: ca, cert and key_file need rediss://")
        return {}
    client_context(options.ca, options.cert, options.key_file)  # redis-py reads the files itself.
    return {
        "ssl_ca_certs": options.ca,
        "ssl_certfile": options.cert,
        "ssl_keyfile": options.key_file,
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": True,
        "ssl_min_version": ssl.TLSVersion.TLSv1_2,
    }
