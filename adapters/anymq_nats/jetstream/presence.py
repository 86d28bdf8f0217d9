"""Who is there: live members of a group answer when they are asked, over plain NATS."""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass
from time import monotonic

from ..client.protocol import status
from ..connection import Link, Listener, woken
from .schema import member_subject

# Seconds for the first answer, and for more after each.
_FIRST = 1.0
_MORE = 0.2


class Presence:
    """Answers for one member for as long as it is open."""

    def __init__(self, link: Link, stream: str, consumer: str, member: str) -> None:
        self._link = link
        self._subject = member_subject(stream, consumer)
        self._body = json.dumps({"member": member, "host": socket.gethostname()}).encode()
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Answer from now on."""
        self._listener = await self._link.listen(self._subject, self._asked)

    def _asked(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        if reply:
            self._link.write(b"PUB %b %d\r\n%b\r\n" % (reply, len(self._body), self._body))

    def close(self) -> None:
        """Answer no more. Calling it twice is harmless."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._link.unlisten(listener)
            self._link.drop(listener)


@dataclass(frozen=True, slots=True)
class Member:
    """What a member said of itself."""

    name: str
    host: str


async def members(link: Link, stream: str, consumer: str) -> list[Member]:
    """Return the members that answer within a second; at once if there is nobody to ask."""
    answers: list[bytes] = []
    nobody = False
    wake = asyncio.Event()

    def answered(subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        nonlocal nobody
        if status(block):
            nobody = True  # 503, no responders
        else:
            answers.append(data)
        wake.set()

    client = await link.ready(link.timeout)
    inbox = client.new_inbox()
    listener = await link.listen(inbox, answered)
    try:
        link.write(f"PUB {member_subject(stream, consumer)} {inbox} 0\r\n\r\n".encode())
        until = monotonic() + _FIRST
        while not nobody and await woken(wake, until - monotonic()):
            wake.clear()
            until = monotonic() + _MORE
    finally:
        link.unlisten(listener)
        link.drop(listener)
    said = [json.loads(answer) for answer in answers]
    return sorted((Member(item["member"], item["host"]) for item in said), key=lambda m: m.name)
