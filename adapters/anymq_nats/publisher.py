"""Publishing in batches: one future for all PubAcks of a call."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence

import nats.errors
import nats.js.errors

from anymq.driver import CONTROL, Duplicate, Outcome

from .client.internals import GuardedClient
from .client.protocol import status
from .connection import Link, Listener, Watcher
from .errors import NoPubAck, NotServed, TooLarge, api_error
from .outgoing import Outgoing, block_of

_SEQUENCE = re.compile(rb'"seq":\s*(\d+)')
# Bytes that are gathered before they are written: the server begins while the rest is encoded.
_GATHERED = 64 * 1024
_SUBJECTS = 512
RESERVE = 16 * 1024
"""Bytes below the server's `max_payload` that a publish leaves free: what a retry or a dead letter
adds to the headers must fit in as well."""


class _Batch:
    """Messages on their way, numbered from `first`, and what has become of each."""

    __slots__ = ("answered", "done", "failed", "first", "messages", "missing", "outcomes")

    def __init__(self, messages: Sequence[Outgoing], first: int) -> None:
        self.messages = messages
        self.first = first
        self.missing = len(messages)
        self.outcomes: list[Outcome] = [None] * self.missing
        self.answered = bytearray(self.missing)
        self.failed = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, at: int, outcome: str | BaseException) -> None:
        if self.answered[at]:
            return
        self.answered[at] = True
        self.outcomes[at] = outcome
        if not isinstance(outcome, str):
            self.failed = True
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        for at in range(len(self.answered)):
            self.settle(at, error)


class Publisher(Watcher):
    """Publishes into streams and collects the confirmations, on a reply inbox of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reply = ""
        self._cut = 0
        self._count = 0
        self._commands: dict[str, bytes] = {}
        self._batches: list[_Batch] = []
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Make the inbox."""
        inbox = self._link.client.new_inbox()
        self._reply = f"{inbox}."
        self._cut = len(self._reply.encode())
        self._listener = await self._link.listen(f"{inbox}.*", self._confirmed)
        self._link.watch(self)

    async def send(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        """Return the fate of each message: its stream sequence, or what kept it out.

        Ends within the link's timeout. Raises if nothing could be sent at all.
        """
        if not messages:
            return []
        client = await self._link.ready(self._link.timeout)
        batch = _Batch(messages, self._count)
        self._count += len(messages)
        self._batches.append(batch)
        loop = asyncio.get_running_loop()
        late = loop.call_later(self._link.timeout, batch.fail, NoPubAck())
        try:
            self._write(client, batch)
            await batch.done
        finally:
            late.cancel()
            self._batches.remove(batch)
        if batch.failed:
            await self._explain(batch)
        return batch.outcomes

    def _write(self, client: GuardedClient, batch: _Batch) -> None:
        limit, number, size = client.max_payload, batch.first, 0
        roomy = limit - min(RESERVE, limit // 8)
        commands = self._commands
        chunks: list[bytes] = []
        for at, message in enumerate(batch.messages):
            body = message.body
            try:
                block = block_of(message)
            except nats.errors.BadHeaderError as error:
                batch.settle(at, error)
                continue
            head = len(block)
            total = head + len(body)
            if total > roomy and (total > limit or not _is_copy(message)):
                batch.settle(at, TooLarge(total, limit, limit - roomy))
                continue
            command = commands.get(message.subject) or self._command(message.subject)
            chunks.append(
                b"%b%d %d %d\r\n%b%b\r\n" % (command, number + at, head, total, block, body)
            )
            size += total
            if size > _GATHERED:
                client.write(b"".join(chunks))
                chunks.clear()
                size = 0
        client.write(b"".join(chunks))

    def _command(self, subject: str) -> bytes:
        """Return how a publication to `subject` begins, up to its number."""
        if len(self._commands) >= _SUBJECTS:
            self._commands.clear()
        command = self._commands[subject] = f"HPUB {subject} {self._reply}".encode()
        return command

    async def _explain(self, batch: _Batch) -> None:
        """Tell a stream that is not there from one that nobody serves: both say nothing."""
        unserved: dict[str, list[int]] = {}
        for at, outcome in enumerate(batch.outcomes):
            if isinstance(outcome, nats.js.errors.NoStreamResponseError):
                unserved.setdefault(batch.messages[at].subject, []).append(at)
        for subject, places in unserved.items():
            try:
                found = await self._link.api("STREAM.NAMES", {"subject": subject})
                reason: Exception | None = NotServed(subject) if found.get("streams") else None
            except (nats.errors.Error, OSError) as error:
                reason = error
            if reason is not None:
                for at in places:
                    batch.outcomes[at] = reason

    def _confirmed(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        number = int(subject[self._cut :])
        for batch in self._batches:
            at = number - batch.first
            if 0 <= at < len(batch.messages):
                batch.settle(at, _outcome(data, block))
                return

    def lost(self, error: Exception) -> None:
        # Their confirmations went to the connection that is gone.
        for batch in self._batches:
            batch.fail(error)

    def denied(self, subject: str, error: Exception) -> None:
        for batch in self._batches:
            for at, message in enumerate(batch.messages):
                if message.subject.lower() == subject:
                    batch.settle(at, error)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._link.unwatch(self)
        self.lost(nats.errors.ConnectionClosedError())


def _is_copy(message: Outgoing) -> bool:
    """Whether it has been in the server before: as what is put back, or a dead letter."""
    return any(name.startswith(CONTROL) for name in message.own)


def _outcome(data: bytes, block: bytes | None) -> str | BaseException:
    if b'"error"' not in data and (found := _SEQUENCE.search(data)):
        position = found[1].decode()
        return Duplicate(position) if b'"duplicate"' in data else position
    if code := status(block):
        return _unanswered(*code)
    try:
        return api_error(json.loads(data)["error"])
    except (ValueError, KeyError, TypeError):
        return nats.errors.ProtocolError()


def _unanswered(code: int, description: str) -> BaseException:
    if code == 503:
        return nats.js.errors.NoStreamResponseError()
    return nats.js.errors.APIError(code=code, description=description)
