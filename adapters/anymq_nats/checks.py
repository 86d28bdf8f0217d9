"""Checks of the server: its version, JetStream's storage and limits, replicas, clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from anymq.driver import Check, Inspection, TopicSpec, clock_check, inspect

from .connection import Connection
from .errors import ERRORS
from .options import NatsOptions
from .topology import make_stream

OLDEST, WITH_DELAYS = (2, 10), (2, 12)
MOST_USED = 0.9
"""The share of a limit from which on a warning is due."""

_PUBLISH = "permissions of this user: allow publish to {}"
_API = _PUBLISH.format("$JS.API.>")
GRANTS = {
    "can create topics": f"{_API}, and subscribe to _INBOX.>",
    "can publish": _PUBLISH.format("the topic's subject, and TOPIC.>"),
    "can create groups": f"{_API}, _anymq.>; subscribe to _anymq.>, _INBOX.>; allow_responses",
    "can receive": f"{_API}, and subscribe to _INBOX.>",
    "can retry": _PUBLISH.format("$JS.ACK.>, TOPIC._retry.> and TOPIC._later.>"),
    "can acknowledge": _PUBLISH.format("$JS.ACK.>"),
    "can describe": _API,
    "can delete": _API,
}
_FIXES = {"account limits": f"{_API}, and subscribe to _INBOX.>", "clock": _API}


async def checks(
    connection: Connection, options: NatsOptions, scratch: TopicSpec | None
) -> AsyncGenerator[Check, None]:
    """Yield the checks of the server."""
    inspections: dict[str, Inspection] = {
        "server version": partial(_version, connection),
        "account limits": partial(_account, connection),
        "replicas": partial(_replicas, connection, options),
        "forced writes": _forced_writes,
        "clock": partial(_clock, connection, options, scratch),
    }
    async for check in inspect(inspections, ERRORS, fixes=_FIXES):
        yield check


async def _version(connection: Connection) -> Sequence[Check]:
    name, version = "server version", connection.client.connected_server_version
    detail = f"nats-server {version.major}.{version.minor}.{version.patch}"
    found = (version.major, version.minor)
    if found < OLDEST:
        return [Check.failed(name, detail, fix="upgrade nats-server to 2.12 or newer")]
    if found < WITH_DELAYS:
        fix = "upgrade nats-server to 2.12 or newer"
        return [Check.warning(name, f"{detail}: publish(delay=) needs 2.12", fix=fix)]
    return [Check.ok(name, detail)]


async def _account(connection: Connection) -> Sequence[Check]:
    info = await connection.api("INFO")
    limits, name = info.get("limits") or {}, "file storage"
    if limits.get("max_storage") == 0:
        fix = "give the account file storage: jetstream: {max_file: …}"
        return [Check.failed(name, "the account has none, and streams are kept in files", fix=fix)]
    size, most = int(info.get("storage") or 0), int(limits.get("max_storage") or -1)
    stored = [_use(name, size, most, unit=1024 * 1024, of="MiB")]
    counts = [
        _use(kind, int(info.get(kind) or 0), int(limits.get(f"max_{kind}") or -1))
        for kind in ("streams", "consumers")
    ]
    return [*stored, *counts]


def _use(name: str, used: int, most: int, *, unit: int = 1, of: str = "") -> Check:
    what = f" {of}" if of else ""
    if most < 0:
        return Check.ok(name, f"{used // unit}{what} used, no limit")
    detail = f"{used // unit} of {most // unit}{what} used"
    if used < MOST_USED * most:
        return Check.ok(name, detail)
    kind = Check.failed if used >= most else Check.warning
    return kind(name, detail, fix="raise the account's limit, or delete topics and groups")


async def _replicas(connection: Connection, options: NatsOptions) -> Sequence[Check]:
    info: Mapping[str, Any] = connection.client.server_info
    return [replicas(info.get("cluster"), options.replicas)]


def replicas(cluster: str | None, count: int) -> Check:
    """Return the check of the copies that the `cluster`, if it is one, keeps of a new stream."""
    name = "replicas"
    if not cluster:
        return Check.ok(name, "a single server: the loss of its disk loses messages")
    detail = f"replicas={count} in the cluster {cluster}"
    if count > 1:
        return Check.ok(name, detail)
    fix = "add replicas=3 to the URL, and nats stream edit --replicas 3 for existing topics"
    return Check.failed(name, f"{detail}: the loss of one server loses the topics on it", fix=fix)


async def _forced_writes() -> Sequence[Check]:
    detail = "the server tells no client how often it forces its files to disk (2 min by default)"
    fix = "sync_interval: always in the server's configuration, if a power cut must lose nothing"
    return [Check.unknown("forced writes", detail, fix=fix)]


async def _clock(
    connection: Connection, options: NatsOptions, scratch: TopicSpec | None
) -> Sequence[Check]:
    """Compare the clocks by the description of a stream, the only answer that has a time."""
    if scratch is None:
        names = (await connection.api("STREAM.NAMES")).get("streams") or ()
        if not names:
            return [Check.unknown("clock", "there is no stream whose description has the time")]
        return [await _described(connection, names[0])]
    stream = await make_stream(connection, scratch, options)
    try:
        return [await _described(connection, stream.name)]
    finally:
        await connection.api(f"STREAM.DELETE.{stream.name}")


async def _described(connection: Connection, stream: str) -> Check:
    async def server_time() -> float:
        info = await connection.api(f"STREAM.INFO.{stream}")
        return datetime.fromisoformat(info["ts"]).timestamp()

    return await clock_check(server_time)
