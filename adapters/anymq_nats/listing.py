"""Which topics and groups there are."""

from __future__ import annotations

from .connection import Link
from .groups import GROUP, subjects_of
from .jetstream.schema import decode, is_reserved
from .topology import MARK, Config, Stream


async def topic_names(link: Link) -> list[str]:
    """Return the subjects of all streams that could be topics."""
    configs = [item["config"] for item in await _all(link, "STREAM.LIST", "streams")]
    subjects = {subject for config in configs for subject in config.get("subjects") or ()}
    return sorted(subject for subject in subjects if _is_topic(subject))


def _is_topic(subject: str) -> bool:
    return not (is_reserved(subject) or "*" in subject or ">" in subject)


async def _all(link: Link, verb: str, what: str) -> list[Config]:
    """Return all pages of a list."""
    found: list[Config] = []
    while True:
        page = await link.api(verb, {"offset": len(found)})
        items = page.get(what) or []
        found += items
        if not items or len(found) >= int(page.get("total", 0)):
            return found


async def consumers(link: Link, stream: Stream) -> list[Config]:
    """Return what the server says of the durable consumers that receive the topic."""
    found = await _all(link, f"CONSUMER.LIST.{stream.name}", "consumers")
    return [info for info in found if _receives(info["config"], stream)]


def _receives(config: Config, stream: Stream) -> bool:
    filters = subjects_of(config)
    return bool(config.get("durable_name")) and (not filters or stream.subject in filters)


def group_name(config: Config) -> str:
    """Return the native name of the group whose durable consumer this is."""
    metadata = config.get("metadata") or {}
    if GROUP in metadata:
        return str(metadata[GROUP])
    name = str(config["name"])
    return decode(name) if MARK in metadata else name
