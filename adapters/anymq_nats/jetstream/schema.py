"""Native names: streams and consumers may not contain dots, subjects may not contain wildcards."""

from __future__ import annotations

import hashlib
import re

from anymq.driver import ConfigurationError

# nats-server refuses names of more than 255 bytes.
_MAX_NAME = 240
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
_ENCODED = re.compile(r"=([0-9A-F]{2})|(_+)|([A-Za-z0-9-]+)")
_LITERAL = re.compile(r"[A-Za-z0-9_=-]{1,240}")
_SUBJECT = re.compile(r"[^\s.*>\x00-\x1f\x7f]+(?:\.[^\s.*>\x00-\x1f\x7f]+)*")


def encode(name: str) -> str:
    """Return `name` as a stream or consumer name; different names give different results.

    A dot becomes `_`, an underscore `__`, anything else that is not a letter, a digit or `-` the
    `=XX` of its UTF-8 bytes: `orders.eu` is `orders_eu`, `a_b` is `a__b`. A result that would be
    too long for the server is cut, and ends in a hash of the whole.
    """
    parts: list[str] = []
    before = ""
    for char in name:
        # After a dot neither a dot nor an underscore is written plainly: each run of underscores
        # then stands for some underscores and at most one dot after them.
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
    if len(text) > _MAX_NAME:
        # `=H` is no escape, so no short name looks like this.
        digest = hashlib.sha256(name.encode()).hexdigest()[:40]
        text = f"{text[: _MAX_NAME - 42]}=H{digest}"
    return text


def decode(text: str) -> str:
    """Return the name that `encode` made `text` of, for names that were not cut."""
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

    A group that the user mapped keeps the name it was mapped to where that is a consumer name; a
    name that was not mapped contains the topic and a dot.
    """
    return native_group if _LITERAL.fullmatch(native_group) else encode(native_group)


def check_subject(subject: str) -> str:
    """Return `subject` if one can publish to it; raises `ConfigurationError`."""
    if not _SUBJECT.fullmatch(subject) or len(subject.encode()) > 1024:
        raise ConfigurationError(f"{subject[:80]!r} is not a NATS subject without wildcards")
    return subject


# A segment of a topic cannot begin with an underscore, so none of these is ever a topic; and the
# variable parts come last, so that the subjects of two topics never overlap.

# Whose copies wait that are for every group: no consumer has this name.
EVERYONE = "@"


def partition_subject(subject: str, count: int, number: int) -> str:
    """The subject of one partition of `count`: that of the first is the topic's own.

    The count is part of the others, so that a publisher with an outdated one is refused.
    """
    return f"{subject}._part.{count}.{number}" if number else subject


def partition_patterns(subject: str, count: int) -> list[str]:
    """What covers the subjects of all partitions, and no other."""
    return [subject, f"{subject}._part.{count}.*"] if count > 1 else [subject]


def private_pattern(subject: str) -> str:
    """All subjects on which copies come back to one group of the topic with this subject."""
    return f"{subject}._retry.*"


def private_subject(subject: str, consumer: str) -> str:
    """The subject that only `consumer` receives: what is given back to its group."""
    return f"{subject}._retry.{consumer}"


def is_copy(subject: str) -> bool:
    """Whether a message on `subject` is one that was given back, or waits for its time."""
    return "._retry." in subject or "._later." in subject


def later_pattern(subject: str, owner: str = "*") -> str:
    """All subjects on which copies wait for their time; those of one consumer, or of everyone."""
    return f"{subject}._later.{owner}.*"


def later_subject(subject: str, owner: str, unique: str) -> str:
    """The subject of one waiting copy: the server keeps one schedule a subject."""
    token = hashlib.blake2b(unique.encode(), digest_size=16).hexdigest()
    return f"{subject}._later.{owner}.{token}"


def due_subject(subject: str, target: str) -> str:
    """Where a copy for `target`, a subject of this topic, is put first when its time has come."""
    return f"{subject}._due{target.removeprefix(subject)}"


def due_patterns(subject: str) -> list[str]:
    """All subjects on which copies are whose time has come."""
    return [f"{subject}._due", f"{subject}._due.>"]


def is_reserved(subject: str) -> bool:
    """Whether a subject is one of the above, or the server's, and so no topic of its own."""
    return subject.startswith(("$", "_")) or "._" in subject


def cells_stream(stream: str) -> str:
    """The stream that keeps the places of the ordered groups of the topic in `stream`."""
    return f"{stream}=cells"  # `=c` is no escape, so no topic's stream is called like this


def later_stream(stream: str) -> str:
    """The stream of what waits for its time, where the topic's own may delete it before."""
    return f"{stream}=later"


def cell_subject(stream: str, consumer: str, epoch: str = "", partition: int | str = "*") -> str:
    """The subject of one cell; without an epoch all of the group, without a group all there are."""
    if not consumer:
        return f"_anymq.cell.{stream}.>"
    if not epoch:
        return f"_anymq.cell.{stream}.{consumer}.>"
    return f"_anymq.cell.{stream}.{consumer}.{epoch}.{partition}"


def member_subject(stream: str, consumer: str) -> str:
    """Where the live members of a group answer."""
    return f"_anymq.member.{stream}.{consumer}"
