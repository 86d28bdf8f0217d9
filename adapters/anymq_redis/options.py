"""The options of a `redis://` URL, and redis-py's settings for its server."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import Any, Literal

from anymq.driver import URL, ConfigurationError, Endpoint, InvalidURL, client_context

PORT = 6379


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisOptions:
    """The options of a `redis://` or `rediss://` URL. Times are in seconds.

    `timeout` bounds every command, from the wait for a connection to the reply. `connections` is
    the most connections that commands open; each subscription has one more. `retention` deletes
    entries that are older, once every group of the topic has settled them; without it a stream
    grows without bound. A publish whose reply was lost is recognised when it is repeated within
    `dedupe` seconds. `client_name` (default: `Broker.name`) is shown by CLIENT LIST, if the user
    has the right to CLIENT SETNAME. `ca`, `cert` and `key_file` are PEM files for `rediss://`;
    without `ca` the system's certificates count.

    `client` is `fast` to take over redis-py's sockets, which needs private parts of redis-py, or
    `plain` for its public interface alone, which is slower. Where the installed release lacks a
    private part, `fast` warns once and does as `plain`.
    """

    timeout: float = 5.0
    connections: int = 8
    retention: float | None = None
    dedupe: float = 120.0
    client_name: str | None = None
    ca: str | None = None
    cert: str | None = None
    key_file: str | None = None
    client: Literal["fast", "plain"] = "fast"

    def __post_init__(self) -> None:
        for name in ("timeout", "retention", "dedupe", "connections"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigurationError(f"{name} must be positive")
        if self.client_name is not None and not re.fullmatch("[!-~]+", self.client_name):
            raise ConfigurationError("client_name must be ASCII text without spaces")


def address(url: URL) -> dict[str, Any]:
    """Return host, port and database of `url`, as redis-py names them."""
    if len(url.hosts) != 1:
        raise InvalidURL(f"{url}: expected one host; Redis Cluster and Sentinel are not supported")
    database = url.path.strip("/") or "0"
    if not database.isdecimal():
        raise InvalidURL(f"{url}: the path is the number of the database, for example /0")
    host, port = url.hosts[0]
    return {"host": host, "port": port or PORT, "db": int(database)}


def endpoint(url: URL, options: RedisOptions) -> Endpoint:
    """Return the address of the server; raises as `address` and `encryption` do."""
    encryption(url, options)
    found, context = address(url), None
    if url.scheme == "rediss":
        context = client_context(options.ca, options.cert, options.key_file)
    return Endpoint(host=found["host"], port=found["port"], context=context)


def encryption(url: URL, options: RedisOptions) -> dict[str, Any]:
    """Return redis-py's TLS settings, none for `redis://`; raises if a file cannot be used."""
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
