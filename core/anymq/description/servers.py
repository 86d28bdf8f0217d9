"""A broker's URL as AsyncAPI describes a server: without user, password and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..url import URL


@dataclass(frozen=True, slots=True)
class Protocol:
    """The AsyncAPI name of a protocol, and how its headers are named."""

    name: str
    prefix: str = "ce-"
    tls: bool = False
    native_key: bool = False


PROTOCOLS: Mapping[str, Protocol] = {
    "kafka": Protocol("kafka", "ce_", native_key=True),
    "kafka+ssl": Protocol("kafka-secure", "ce_", tls=True, native_key=True),
    "amqp": Protocol("amqp", "cloudEvents:"),
    "amqps": Protocol("amqps", "cloudEvents:", tls=True),
    "nats": Protocol("nats"),
    "tls": Protocol("nats", tls=True),
    "redis": Protocol("redis"),
    "rediss": Protocol("redis", tls=True),
    "sqlite": Protocol("sqlite", native_key=True),
    "memory": Protocol("memory", native_key=True),
}
"""By scheme of the URL. A scheme that is not here is its own protocol."""


def protocol_of(url: URL | None) -> Protocol:
    """Return the protocol of `url`; without one, the header names of most brokers."""
    if url is None:
        return Protocol("")
    return PROTOCOLS.get(url.scheme) or Protocol(url.scheme)


def servers_of(url: URL) -> list[dict[str, Any]]:
    """Return the AsyncAPI servers of `url`, one a host."""
    protocol = protocol_of(url)
    return [
        _server(url, protocol, host, port) for host, port in url.hosts or (("localhost", None),)
    ]


def _server(url: URL, protocol: Protocol, host: str, port: int | None) -> dict[str, Any]:
    shown = f"[{host}]" if ":" in host else host
    server: dict[str, Any] = {
        "host": shown if port is None else f"{shown}:{port}",
        "protocol": protocol.name,
    }
    if url.path.strip("/"):
        server["pathname"] = url.path
    if protocol.tls and protocol.name in ("nats", "redis"):
        server["description"] = "Encrypted with TLS."
    security = _security(url)
    if security:
        server["security"] = [security]
    return server


def _security(url: URL) -> dict[str, str] | None:
    """Return the kind of the credentials in `url`, never the credentials."""
    if url.username is None and url.password is None:
        return {"type": "X509"} if "cert" in url.query else None
    if url.scheme.startswith("kafka"):
        mechanism = url.query.get("sasl_mechanism", "PLAIN").upper()
        kinds = {"SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}
        return {"type": kinds.get(mechanism, "plain")}
    if url.password is None:
        return {"type": "apiKey", "in": "user"}
    return {"type": "userPassword"}
