"""Publishing in batches: one write for all, one future for all PubAcks."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import nats.errors
import nats.js.errors

from anymq.driver import Outcome

from .errors import NoPubAck, NotServed, TooLarge, api_error
from .link import Link, Listener, Watcher
from .wire import MESSAGE_ID, header_block, publication, status

_SEQUENCE = re.compile(rb'"seq":\s*(\d+)')


@dataclass(slots=True)
class Outgoing:
    """One message: where it goes, its id for the server's deduplication, and what it says.

    `block` is set instead of `headers` where the headers are there already in wire form.
    """

    subject: str
    unique: str
    body: bytes
    headers: Iterable[tuple[str, str]] = ()
    extra: tuple[tuple[str, str], ...] = ()
    block: bytes | None = None

    def encoded(self) -> bytes:
        """Return the header block; raises `BadHeaderError`."""
        if self.block is not None:
            return self.block
        return header_block(((MESSAGE_ID, self.unique), *self.extra, *self.headers))


@dataclass(slots=True, eq=False)
class _Batch:
    """Messages on their way, and what has become of those that were answered."""

    outcomes: list[Outcome]
    subjects: list[str]
    missing: int
    done: asyncio.Future[None]
    answered: list[bool] = field(default_factory=list)

    def settle(self, at: int, outcome: Outcome) -> None:
        if not self.answered[at]:
            self.answered[at] = True
            self.outcomes[at] = outcome
            self.missing -= 1
            if self.missing == 0 and not self.done.done():
                self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        for at, answered in enumerate(self.answered):
            if not answered:
                self.settle(at, error)


class Publisher(Watcher):
    """Publishes into streams and collects the confirmations, on a reply inbox of its own."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._reply = b""
        self._count = 0
        self._waiting: dict[int, tuple[_Batch, int]] = {}
        self._batches: set[_Batch] = set()
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Make the inbox."""
        inbox = self._link.client.new_inbox()
        self._reply = f"{inbox}.".encode()
        self._listener = await self._link.listen(f"{inbox}.*", self._confirmed)
        self._link.watch(self)

    async def send(self, messages: Sequence[Outgoing]) -> list[Outcome]:
        """Return the fate of each message: its stream sequence, or what kept it out.

        Ends within the link's timeout. Raises if nothing could be sent at all.
        """
        if not messages:
            return []
        client = await self._link.ready(self._link.timeout)
        batch = self._begin(messages)
        first, limit = self._count, client.max_payload
        self._count += len(messages)
        chunks: list[bytes] = []
        for at, message in enumerate(messages):
            try:
                block = message.encoded()
            except nats.errors.BadHeaderError as error:
                batch.settle(at, error)
                continue
            if (size := len(block) + len(message.body)) > limit:
                batch.settle(at, TooLarge(size, limit))
                continue
            reply = b"%b%d" % (self._reply, first + at)
            chunks.append(publication(message.subject.encode(), reply, block, message.body))
            self._waiting[first + at] = (batch, at)
        try:
            client.write(b"".join(chunks))
            await asyncio.wait((batch.done,), timeout=self._link.timeout)
            if not batch.done.done():
                batch.fail(NoPubAck())
        finally:
            self._batches.discard(batch)
            for token in range(first, first + len(messages)):
                self._waiting.pop(token, None)
        await self._explain(batch)
        return batch.outcomes

    async def _explain(self, batch: _Batch) -> None:
        """Tell a stream that is not there from one that nobody serves: both say nothing."""
        unserved = [
            at
            for at, outcome in enumerate(batch.outcomes)
            if isinstance(outcome, nats.js.errors.NoStreamResponseError)
        ]
        for subject in {batch.subjects[at] for at in unserved}:
            try:
                found = await self._link.api("STREAM.NAMES", {"subject": subject})
                reason: Exception | None = NotServed(subject) if found.get("streams") else None
            except (nats.errors.Error, OSError) as error:
                reason = error
            for at in unserved:
                if reason is not None and batch.subjects[at] == subject:
                    batch.outcomes[at] = reason

    def _begin(self, messages: Sequence[Outgoing]) -> _Batch:
        count = len(messages)
        batch = _Batch(
            outcomes=[None] * count,
            subjects=[message.subject for message in messages],
            missing=count,
            done=asyncio.get_running_loop().create_future(),
            answered=[False] * count,
        )
        self._batches.add(batch)
        return batch

    def _confirmed(self, subject: bytes, reply: bytes, data: bytes, block: bytes | None) -> None:
        entry = self._waiting.pop(int(subject[len(self._reply) :]), None)
        if entry is not None:
            batch, at = entry
            batch.settle(at, _outcome(data, block))

    def lost(self, error: Exception) -> None:
        # Their confirmations went to the connection that is gone.
        for batch in tuple(self._batches):
            batch.fail(error)

    def denied(self, subject: str, error: Exception) -> None:
        for batch in self._batches:
            for at, other in enumerate(batch.subjects):
                if other.lower() == subject:
                    batch.settle(at, error)

    def close(self) -> None:
        """Wait for nothing any more."""
        self._link.unwatch(self)
        self.lost(nats.errors.ConnectionClosedError())


def _outcome(data: bytes, block: bytes | None) -> Outcome:
    if b'"error"' not in data and (found := _SEQUENCE.search(data)):
        return found[1].decode()  # also when the stream had it already: "duplicate": true
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
