"""The native names of streams, consumers and subjects.

Names of streams and consumers contain no dots, subjects no wildcards.
"""

from __future__ import annotations

import hashlib
import re

from anymq.driver import ConfigurationError

# nats-server refuses names of more than 255 bytes.
_MAX_NAME_BYTES = 240
_MAX_SUBJECT_BYTES = 1024
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_ENCODED = re.compile(r"=([0-9A-F]{2})|(_+)|([A-Za-z0-9-]+)")
_LITERAL = re.compile(r"[A-Za-z0-9_=-]{1,240}")
_SUBJECT = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(?:\.[^\s.*>\x00-\x1f\x7f]+)*")


def encode(name: str) -> str:
    """Return `name` as a stream or consumer name; different names give different results.

    A dot becomes `_`, an underscore `__`, anything else that is not a letter, a digit or `-` the
    `=XX` of its UTF-8 bytes: `orders.eu` is `orders_eu`, `a_b` is `a__b`. A result longer than
    240 bytes is cut and ends in a hash of the whole name.
    """
    parts: list[str] = []
    before = ""
    for char in name:
        # A dot or an underscore that follows a dot is escaped. So each run of underscores in the
        # result stands for underscores and at most one dot after them.
        if char == "_" and before != ".":
            parts.append("__")
        elif char == "." and before != ".":
            parts.append("_")
        elif char in _PLAIN:
            parts.append(char)
        else:
            parts.append("".join(f"={byte:02X}" for byte in char.encode()))
            char = ""
        before = char
    text = "".join(parts)
    if len(text) > _MAX_NAME_BYTES:
        # `=H` is no escape, so no short name looks like this.
        digest = hashlib.sha256(name.encode()).hexdigest()[:40]
        text = f"{text[: _MAX_NAME_BYTES - 42]}=H{digest}"
    return text


def decode(text: str) -> str:
    """Return the name that `encode` turned into `text`, unless it was cut."""
    found = bytearray()
    for escape, run, plain in _ENCODED.findall(text):
        if escape:
            found.append(int(escape, 16))
        elif run:
            found += b"_" * (len(run) // 2) + b"." * (len(run) % 2)
        else:
            found += plain.encode()
    return found.decode()


def consumer_name(native_group: str) -> str:
    """Return the name of the durable consumer of a group.

    A mapped group keeps its name if that is a valid consumer name. The name of any other group
    contains a dot, after the topic, and is encoded.
    """
    return native_group if _LITERAL.fullmatch(native_group) else encode(native_group)


def check_subject(subject: str) -> str:
    """Return `subject` if it is valid for publishing; raises `ConfigurationError`."""
    if not _SUBJECT.fullmatch(subject) or len(subject.encode()) > _MAX_SUBJECT_BYTES:
        raise ConfigurationError(f"{subject[:80]!r} is not a NATS subject without wildcards")
    return subject


# A segment of a topic cannot begin with an underscore, so none of these subjects is a topic. The
# variable parts come last, so the subjects of two topics never overlap.

EVERYONE = "@"
"""Owner of a delayed message that is for all groups; no consumer has this name."""


def partition_subject(subject: str, count: int, number: int) -> str:
    """Return the subject of one partition of `count`; the first has the topic's own.

    The count is part of the others, so a publisher with an outdated count is refused.
    """
    return f"{subject}._part.{count}.{number}" if number else subject


def partition_patterns(subject: str, count: int) -> list[str]:
    """Return patterns for the subjects of all partitions, and of nothing else."""
    return [subject, f"{subject}._part.{count}.*"] if count > 1 else [subject]


def private_pattern(subject: str) -> str:
    """Return the pattern of all private subjects of a topic."""
    return f"{subject}._retry.*"


def private_subject(subject: str, consumer: str) -> str:
    """Return the subject that only `consumer` receives, for copies returned to its group."""
    return f"{subject}._retry.{consumer}"


def is_copy(subject: str) -> bool:
    """Return whether messages on `subject` are copies for one group, or delayed."""
    return "._retry." in subject or "._later." in subject


def later_pattern(subject: str, owner: str = "*") -> str:
    """Return the pattern of delayed messages: those of one consumer, of everyone, or all."""
    return f"{subject}._later.{owner}.*"


def later_subject(subject: str, owner: str, unique: str) -> str:
    """Return the subject of one delayed message: the server keeps one schedule per subject."""
    token = hashlib.blake2b(unique.encode(), digest_size=16).hexdigest()
    return f"{subject}._later.{owner}.{token}"


def due_subject(subject: str, target: str) -> str:
    """Return the subject on which a message for `target` is published first when it is due."""
    return f"{subject}._due{target.removeprefix(subject)}"


def due_patterns(subject: str) -> list[str]:
    """Return patterns for all subjects of messages that are due."""
    return [f"{subject}._due", f"{subject}._due.>"]


def is_reserved(subject: str) -> bool:
    """Return whether `subject` belongs to anymq or to the server, and so is no topic."""
    return subject.startswith(("$", "_")) or "._" in subject


def cells_stream(stream: str) -> str:
    """Return the stream that keeps lease records and attempts of the topic in `stream`."""
    return f"{stream}=cells"  # `=c` is no escape, so no topic's stream has this name


def later_stream(stream: str) -> str:
    """Return the stream of delayed messages, for topics whose own might delete them too early."""
    return f"{stream}=later"


def cell_subject(stream: str, consumer: str, epoch: str = "", partition: int | str = "*") -> str:
    """Return the subject of one cell.

    Without an epoch or a partition, return the pattern of all cells of a group; without a consumer,
    that of all groups.
    """
    if not consumer:
        return f"_anymq.cell.{stream}.>"
    if not epoch:
        return f"_anymq.cell.{stream}.{consumer}.>"
    return f"_anymq.cell.{stream}.{consumer}.{epoch}.{partition}"


def member_subject(stream: str, consumer: str) -> str:
    """Return the subject on which the live members of a group answer."""
    return f"_anymq.member.{stream}.{consumer}"
