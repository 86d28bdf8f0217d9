"""Write the capability tables into README.md and docs/guarantees.md.

Run `python docs/capability_table.py`. The tables come from what the adapters declare; `--check`
only says whether the pages are true.
"""

from __future__ import annotations

import sys
from pathlib import Path

from anymq.driver import Capabilities, Support
from anymq.driver.registry import load_driver

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from docs.markers import filled  # noqa: E402

SCHEMES = {
    "Kafka": "kafka",
    "RabbitMQ": "amqp",
    "NATS": "nats",
    "Redis": "redis",
    "SQLite": "sqlite",
    "memory": "memory",
}
TITLES = {
    "persistent": "messages survive a restart",
    "processes": "shared by processes",
    "groups": "groups",
    "broadcast": "broadcast",
    "earliest": "new groups see old messages",
    "delayed_nack": "`nack(delay)`",
    "attempt_count": "counts crashed attempts",
    "release": "`release`",
    "extend": "leases, `extend`",
    "dead_letters": "dead letters",
    "publish_dedup": "repeated publish stored once",
    "ordered": "`ordered=True`",
    "ordered_attempts": "ordered: attempts survive crashes",
    "delayed_publish": "`publish(delay=)`",
    "replay": "replay, `seek`",
    "retention": "retention by age and size",
    "admin": "`broker.admin`",
}

DETAILS = {"groups", "broadcast", "release", "extend", "ordered_attempts"}
"""What only the long tables show."""


def capabilities() -> dict[str, Capabilities]:
    """Return each backend's capabilities, by its title."""
    return {name: load_driver(scheme).capabilities for name, scheme in SCHEMES.items()}


def word(support: Support) -> str:
    """Return what the tables call the level of `support`."""
    return support.level.value if support else "no"


def levels() -> str:
    """Return the short table: a word for each ability and backend."""
    every = capabilities()
    lines = ["| | " + " | ".join(every) + " |", "|---" * (len(every) + 1) + "|"]
    for name, title in TITLES.items():
        if name in DETAILS:
            continue
        cells = (word(getattr(item, name)) for item in every.values())
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def notes() -> str:
    """Return, for each backend, its durability and what is behind each level."""
    parts: list[str] = []
    for backend, item in capabilities().items():
        parts.append(f"### {backend}\n\nDurability: {item.durability.rstrip('.')}.\n")
        parts.append("| | | |\n|---|---|---|")
        for name, support in item.items():
            parts.append(f"| {TITLES[name]} | {word(support)} | {support.note.rstrip('.')} |")
        parts.append("")
    return "\n".join(parts).rstrip()


def fill(text: str) -> str:
    """Return `text` with the tables between their markers made anew."""
    for kind, table in (("levels", levels()), ("notes", notes())):
        text = filled(text, f"<!-- capabilities: {kind} -->", "<!-- /capabilities -->", table)
    return text


def main() -> int:
    """Write the pages, or with `--check` return 1 if they differ."""
    stale = False
    for page in (ROOT / "README.md", ROOT / "docs" / "guarantees.md"):
        text = page.read_text(encoding="utf-8")
        filled = fill(text)
        if filled != text:
            stale = True
            if "--check" not in sys.argv:
                page.write_text(filled, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
