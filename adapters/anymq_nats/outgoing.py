"""Messages on their way to the server, and their header blocks."""

from __future__ import annotations

from collections.abc import Mapping

from anymq.message import NO_HEADERS

from .wire import MESSAGE_ID, header_block

# Envelopes that are remembered; a process uses a handful at a time.
_MOST = 512


class Outgoing:
    """One message: where it goes, its id for the server's deduplication, and what it says.

    Its headers are `extra`, `common` and `own`.
    """

    __slots__ = ("body", "common", "extra", "own", "subject", "unique")

    def __init__(
        self,
        subject: str,
        unique: str,
        body: bytes,
        own: Mapping[str, str] = NO_HEADERS,
        common: Mapping[str, str] = NO_HEADERS,
        *,
        extra: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self.subject = subject
        self.unique = unique
        self.body = body
        self.own = own
        self.common = common
        self.extra = extra


class Blocks:
    """Makes header blocks; what many messages have in common is written once."""

    def __init__(self) -> None:
        # By identity. The mapping is kept, too, lest another one gets its number.
        self._known: dict[int, tuple[Mapping[str, str], str]] = {}

    def of(self, message: Outgoing) -> bytes:
        """Return the header block of `message`; raises `BadHeaderError`."""
        common, own, extra = message.common, message.own, message.extra
        known = self._known.get(id(common)) or self._learn(common)
        lines = [f"{name}: {value}\r\n" for name, value in own.items()]
        first = f"{MESSAGE_ID}: {message.unique}\r\n"
        if extra:
            first += _lines(extra)
        count = 1 + len(extra) + len(common) + len(lines)
        return header_block(f"{first}{known[1]}{''.join(lines)}", count)

    def _learn(self, common: Mapping[str, str]) -> tuple[Mapping[str, str], str]:
        if len(self._known) >= _MOST:
            self._known.clear()
        learnt = self._known[id(common)] = common, _lines(common)
        return learnt


def _lines(headers: Mapping[str, str]) -> str:
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
