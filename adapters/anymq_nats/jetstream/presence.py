"""Presence: live members of a group answer requests over plain NATS."""

from __future__ import annotations

import asyncio
import json
import socket
from time import monotonic

from anymq.driver import MemberInfo

from ..client.protocol import publish, status
from ..connection import Connection, Subscription, is_set
from .schema import member_subject

_FIRST_ANSWER_SECONDS = 1.0
_NEXT_ANSWER_SECONDS = 0.2


class Presence:
    """The answers of one member, sent for as long as it is open."""

    def __init__(self, connection: Connection, stream: str, consumer: str, member: str) -> None:
        self._connection = connection
        self._subject = member_subject(stream, consumer)
        self._body = json.dumps({"member": member, "host": socket.gethostname()}).encode()
        self._subscription: Subscription | None = None

    async def open(self) -> None:
        """Answer from now on."""
        self._subscription = await self._connection.subscribe(self._subject, self._asked)

    def _asked(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        if reply:
            self._connection.write(publish(reply, self._body))

    def close(self) -> None:
        """Answer no more. A second call does nothing."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._connection.unsubscribe(subscription)
            self._connection.drop(subscription)


async def members(connection: Connection, stream: str, consumer: str) -> list[MemberInfo]:
    """Return the members that answer: the first within 1 s, each of the others 0.2 s later at most.

    Return at once if no member is subscribed.
    """
    answers: list[bytes] = []
    none_subscribed = False
    wake = asyncio.Event()

    def answered(subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        nonlocal none_subscribed
        if status(block):
            none_subscribed = True  # 503, no responders
        else:
            answers.append(data)
        wake.set()

    client = await connection.ready(connection.timeout)
    inbox = client.new_inbox()
    subscription = await connection.subscribe(inbox, answered)
    try:
        connection.write(publish(member_subject(stream, consumer).encode(), reply=inbox.encode()))
        until = monotonic() + _FIRST_ANSWER_SECONDS
        while not none_subscribed and await is_set(wake, until - monotonic()):
            wake.clear()
            until = monotonic() + _NEXT_ANSWER_SECONDS
    finally:
        connection.unsubscribe(subscription)
        connection.drop(subscription)
    found = [json.loads(answer) for answer in answers]
    present = [MemberInfo(name=item["member"], host=item["host"]) for item in found]
    return sorted(present, key=lambda member: member.name)
