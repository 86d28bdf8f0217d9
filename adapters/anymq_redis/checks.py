"""Checks of the server: its version and role, append-only file, eviction, memory, clock."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

from anymq.driver import Check, Inspection, clock_check, inspect

from .client.codec import pack
from .connection import Commands
from .errors import ERRORS
from .topology import pairs

OLDEST = (7, 0)
MOST_USED = 0.9
"""The share of `maxmemory` from which on a warning is due."""

_CONFIG = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")
_RULE = "ACL SETUSER NAME {} on the topic's key and on those that begin with {{TOPIC}}"
GRANTS = {
    "can create topics": _RULE.format("+@read +@write -@dangerous +eval +evalsha"),
    "can publish": _RULE.format("+@write -@dangerous +eval +evalsha +time"),
    "can create groups": _RULE.format("+@write -@dangerous +eval +evalsha"),
    "can receive": _RULE.format("+xreadgroup"),
    "can retry": _RULE.format("+@write -@dangerous +eval +evalsha +time"),
    "can acknowledge": _RULE.format("+xack"),
    "can describe": _RULE.format("+@read"),
    "can delete": _RULE.format("+@write -@dangerous"),
}
_FIXES = {
    "append-only file": "allow this user +config|get or +info, or ask the server's operator",
    "eviction": "allow this user +config|get, or ask the server's operator",
    "memory": "allow this user +info, or ask the server's operator",
    "clock": "allow this user +time, which delays need as well",
}


async def checks(commands: Commands) -> AsyncGenerator[Check, None]:
    """Yield the checks of the server."""
    inspections: dict[str, Inspection] = {
        "server version": partial(_version, commands),
        "append-only file": partial(_append_only, commands),
        "eviction": partial(_eviction, commands),
        "memory": partial(_memory, commands),
        "clock": partial(_clock, commands),
    }
    async for check in inspect(inspections, ERRORS, fixes=_FIXES):
        yield check


async def _version(commands: Commands) -> Sequence[Check]:
    hello = _texts(await commands.call(b"HELLO"))
    version, role, mode = (hello.get(name, "") for name in ("version", "role", "mode"))
    name = f"{hello.get('server', 'redis')} {version}"
    parts = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    found = [Check.ok("server version", name)]
    if tuple(parts) < OLDEST:
        found = [Check.failed("server version", name, fix="upgrade to Redis 7.0 or newer")]
    if mode == "cluster":
        fix = "use a server without cluster mode: anymq does not support Redis Cluster"
        return [*found, Check.failed("role", "a node of a Redis Cluster", fix=fix)]
    if role not in ("master", "primary"):
        fix = "name the primary in the URL: a replica takes no writes"
        return [*found, Check.failed("role", f"this server is a {role}", fix=fix)]
    return [*found, Check.ok("role", "primary")]


async def _append_only(commands: Commands) -> Sequence[Check]:
    name = "append-only file"
    settings = await _settings(commands)
    state = await _information(commands, "persistence")
    if not settings and not state:
        fix = _FIXES[name]
        return [Check.unknown(name, "this user may read neither CONFIG nor INFO", fix=fix)]
    enabled = settings.get("appendonly", "yes" if state.get("aof_enabled") == "1" else "no")
    if enabled != "yes":
        detail = "appendonly no: a crash of the server loses everything since its last snapshot"
        return [Check.failed(name, detail, fix="CONFIG SET appendonly yes, and in redis.conf")]
    if (written := state.get("aof_last_write_status", "ok")) != "ok":
        fix = "see the server's log: its disk is full or broken"
        return [Check.failed(name, f"the last write to it failed: {written}", fix=fix)]
    return [_forced(name, settings.get("appendfsync"))]


def _forced(name: str, policy: str | None) -> Check:
    if policy == "always":
        return Check.ok(name, "appendfsync always: a power cut loses nothing")
    if policy == "everysec":
        return Check.ok(name, "appendfsync everysec: a power cut may lose the last second")
    if policy is None:
        return Check.ok(name, "appendonly yes; this user may not read appendfsync")
    detail = f"appendfsync {policy}: a power cut may lose the last 30 seconds or more"
    return Check.warning(name, detail, fix="CONFIG SET appendfsync everysec, and in redis.conf")


async def _eviction(commands: Commands) -> Sequence[Check]:
    name = "eviction"
    settings = await _settings(commands)
    if "maxmemory-policy" not in settings:
        fix = _FIXES[name]
        return [Check.unknown(name, "this user may not read CONFIG", fix=fix)]
    policy, limit = settings["maxmemory-policy"], settings.get("maxmemory", "0")
    fix = "CONFIG SET maxmemory-policy noeviction, and in redis.conf"
    if policy == "noeviction":
        return [Check.ok(name, "noeviction: without memory, publishes fail and nothing is lost")]
    what = "whole topics are" if policy.startswith("allkeys") else "records of idempotency are"
    detail = f"maxmemory-policy {policy}: {what} deleted when memory is short"
    if limit == "0":
        return [Check.warning(name, f"{detail} (maxmemory is 0, so not at present)", fix=fix)]
    if policy.startswith("allkeys"):
        return [Check.failed(name, detail, fix=fix)]
    return [Check.warning(name, detail, fix=fix)]


async def _memory(commands: Commands) -> Sequence[Check]:
    name = "memory"
    state = await _information(commands, "memory")
    if not state:
        return [Check.unknown(name, "this user may not read INFO", fix=_FIXES[name])]
    used, most = int(state.get("used_memory", 0)), int(state.get("maxmemory", 0))
    if not most:
        return [Check.ok(name, f"{_mebibytes(used)} used, no limit")]
    detail = f"{_mebibytes(used)} of {_mebibytes(most)} used"
    if used < MOST_USED * most:
        return [Check.ok(name, detail)]
    fix = "raise maxmemory, or keep less: set a retention, delete groups that are not used"
    kind = Check.failed if used >= most else Check.warning
    return [kind(name, detail, fix=fix)]


async def _clock(commands: Commands) -> Sequence[Check]:
    async def server_time() -> float:
        seconds, microseconds = await commands.call(b"TIME")
        return int(seconds) + int(microseconds) / 1e6

    return [await clock_check(server_time)]


async def _settings(commands: Commands) -> dict[str, str]:
    """Return the settings that this user may read."""
    replies = await commands.run(*(pack(b"CONFIG", b"GET", name.encode()) for name in _CONFIG))
    found: dict[str, str] = {}
    for reply in replies:
        if isinstance(reply, list):
            found |= _texts(reply)
    return found


async def _information(commands: Commands, section: str) -> dict[str, str]:
    """Return a section of INFO; empty if this user may not read it."""
    (reply,) = await commands.run(pack(b"INFO", section.encode()))
    if not isinstance(reply, bytes):
        return {}
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, _, value in lines if value}


def _texts(reply: Any) -> dict[str, str]:
    return {
        name.decode(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in pairs(reply).items()
    }


def _mebibytes(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB"
