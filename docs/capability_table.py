"""Write the capability tables into README.md, docs/guarantees.md and docs/backends/.

Run `python docs/capability_table.py`. The tables come from the capabilities that the adapters
declare; `--check` writes nothing and fails if a page differs.
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
"""Capabilities that only the pages of the backends show."""


def capabilities() -> dict[str, Capabilities]:
    """Return each backend's capabilities, by its title."""
    return {name: load_driver(scheme).capabilities for name, scheme in SCHEMES.items()}


def word(support: Support) -> str:
    """Return the word for the level of `support`."""
    return support.level.value if support else "no"


def levels() -> str:
    """Return the comparison: one word per capability and backend."""
    every = capabilities()
    lines = ["| | " + " | ".join(every) + " |", "|---" * (len(every) + 1) + "|"]
    for name, title in TITLES.items():
        if name in DETAILS:
            continue
        cells = (word(getattr(item, name)) for item in every.values())
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def notes(item: Capabilities) -> str:
    """Return the durability of one backend and the note behind each of its levels."""
    durability = item.durability.rstrip(".")
    lines = [f"**Durability.** {durability[0].upper()}{durability[1:]}.", ""]
    lines += ["| capability | level | how |", "|---|---|---|"]
    for name, support in item.items():
        lines.append(f"| {TITLES[name]} | {word(support)} | {support.note.rstrip('.')} |")
    return "\n".join(lines)


def tables() -> dict[Path, tuple[str, str]]:
    """Return the kind of table that each page holds, and the table."""
    pages = {ROOT / name: ("levels", levels()) for name in ("README.md", "docs/guarantees.md")}
    for backend, item in capabilities().items():
        pages[ROOT / "docs" / "backends" / f"{backend.lower()}.md"] = ("notes", notes(item))
    return pages


def main() -> int:
    """Write the pages, or with `--check` return 1 if one of them differs."""
    stale = False
    for page, (kind, table) in tables().items():
        text = page.read_text(encoding="utf-8")
        wanted = filled(text, f"<!-- capabilities: {kind} -->", "<!-- /capabilities -->", table)
        stale = stale or wanted != text or table not in wanted
        if "--check" not in sys.argv:
            page.write_text(wanted, encoding="utf-8")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
