"""`Reader`, `Source` and `OrderedSource`: one live subscription of one member."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

from .records import Begun, Nack, Outcome, Received, Record, Rejected

StoreRecords = Callable[[Sequence[Record]], Awaitable[Sequence[Outcome]]]
"""`Driver.publish` of the driver that a source belongs to."""


class SourceLost(Exception):
    """Raised by `Reader.receive` when this source can never deliver again.

    For example, its channel was closed, its assignment was lost, or its queue was deleted. The core
    opens another source. Chain the client's error as the cause.
    """


class Reader(ABC):
    """A broadcast subscription: it receives every message, and settles none.

    A reader keeps its position itself. After a reconnect, and after a `receive` that raised or was
    cancelled, it continues after the last record that a `receive` returned. When the core opens
    another reader instead, that one starts at the same position.
    """

    stall: float = 30.0
    """Seconds without a delivery, while there is credit, after which `undelivered` is called."""

    @abstractmethod
    async def receive(self, limit: int, wait: float) -> Sequence[Received]:
        """Return up to `limit` records, waiting at most `wait` seconds (≤ 2) for the first.

        Return early with the records that are there rather than wait to fill up; return an empty
        sequence when `wait` has passed. One task calls it, again and again while there is credit.
        While there is none, the task calls it with `limit=0` every 2 s at most: keep the session
        alive then, and return nothing. Return records in the broker's order. While the source is
        in use, the core cancels a call only when it is 30 s late. It then closes the source as
        well, because a cancelled read may lose the records that it had taken.

        An error leaves the source usable: the core waits and calls again, and the driver
        reconnects then. Raise `SourceLost` where only a new source can help.
        """

    @property
    def position(self) -> object:
        """The position of a broadcast reader: after everything that `receive` has returned.

        It covers every partition, also those of which nothing has been read: a reader that started
        at the end of a topic continues from there. The core passes it as `SubscribeSpec.position`
        to the reader that replaces this one. The core does not look inside, so it may be any
        object that later reads do not change. It is read when the reader is new, after each
        `receive` that returned records, and after `SourceLost`. Sources of groups return None.
        """
        return None

    async def undelivered(self) -> object:
        """Return the state of the records due for delivery to this member; None if none or unknown.

        For the watchdog. It opens another source when two answers are equal, at least `stall`
        seconds apart, and nothing was delivered in between. So the answer contains the group's
        progress, and leaves out records that another member delivers or that are not due. Implement
        it for a source to which the broker or the client library pushes. The default is right for
        a source that asks the broker in each `receive`, because it cannot stall silently.
        """
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Leave the group. Unsettled records go to other members as soon as the broker allows.

        The core has flushed or given up all settlements before. Release every task and socket,
        also when the server is dead, and when cancelled on the way. A second call does nothing.
        """


class GroupReader(Reader):
    """One member of a group: the methods that `Source` and `OrderedSource` share.

    Settlement calls may overlap each other and `receive`. They may contain records in any order,
    including settled or lost ones. Silently ignore a token whose lease, channel or assignment has
    ended; never apply it to another member's delivery. The core may repeat a call that raised,
    with the same records, so make it idempotent: a duplicate is acceptable, a loss is not. To move
    a record, store the copy, wait for the broker's confirmation, then settle the original.
    """

    silence: float | None = None
    """Seconds for which the broker leaves its records to a silent process.

    For sources that depend on a connection or a session which the client library keeps alive in
    this process's event loop. When the loop has stalled for longer, the core dispatches no more
    records of this source and opens another one. None where each delivery has a lease of its own:
    then `SubscribeSpec.ack_deadline` is the bound.
    """

    counts_starts: bool = False
    """Whether handler starts are counted: then `known_attempt` and `begin` are implemented.

    A broker counts the records that it has sent to a consumer. When a process dies, every record
    that it had fetched is redelivered with a higher count, though most of them were in no handler.
    """

    def may_be_again(self, record: Received) -> bool:
        """Whether `record` may have been delivered to this group before.

        Called for a record whose position, source, id and time are those of a message that was
        settled here after its lease had ended. Override it where a later message may get the
        position of an earlier one.
        """
        return True

    @abstractmethod
    async def ack(self, records: Sequence[Received]) -> None:
        """Acknowledge `records`. Return once the acks are sent, or queued to be sent.

        A source may batch acks, as Kafka's does with its commits. Then a crash redelivers the
        records whose acks were not sent, and `aclose` sends the rest.
        """

    async def reject(self, rejected: Sequence[Rejected], store: StoreRecords) -> None:
        """Store each dead letter durably, then settle its record. Return once both are done.

        The default stores the letters by `store`, which is `Driver.publish`, then acks the records
        whose letters were stored, and raises the first failure. Override it where the broker does
        both atomically.
        """
        outcomes = await store([item.letter for item in rejected])
        await settle_stored([item.received for item in rejected], outcomes, self.ack)

    def known_attempt(self, record: Received) -> int | None:
        """Return the attempt of a record that another member received and never settled.

        It is the last one that `begin` made durable, or else what it would be without that
        delivery. None for all other records: their attempt is their header plus `redeliveries`.
        """
        return None

    async def begin(self, begun: Sequence[Begun]) -> None:
        """Make durable that the handlers of these records start. The records stay unsettled.

        The core awaits it before the handler of a record that has a `known_attempt`. Of all other
        records it names only those that have been in a handler for some time, many in one call.
        Ignore a record that is no longer this member's. A settlement cancels the note.
        """


class Source(GroupReader):
    """One member of an unordered group: any member may get any record, and settles it alone."""

    @abstractmethod
    async def nack(self, nacks: Sequence[Nack]) -> None:
        """Redeliver these failed records, see `Nack`. Return once that is durable."""

    @abstractmethod
    async def release(self, nacks: Sequence[Nack]) -> None:
        """Return these records to the group at once, uncounted (shutdown, pause, cancellation).

        `Nack.attempt` is the attempt that each already has.
        """

    async def extend(self, records: Sequence[Received]) -> None:
        """Renew the leases of `records`.

        Called every third of `ack_deadline` for everything unsettled, in handlers or buffered.
        Never take a record back from a member that owns it already. The default does nothing,
        which is right where the broker reserves a record for as long as its consumer is alive.
        """

    async def extend_apart(self, records: Sequence[Received]) -> bool:
        """Renew leases as `extend` does, from another thread and event loop.

        Called while the source's own event loop is blocked. So it must not use objects of that
        loop, but may open and close a connection of its own. Return whether the leases were
        renewed. The default returns False, and is not called again. That is right where a lease
        depends on the source's connection.
        """
        return False


class OrderedSource(GroupReader):
    """One member of an ordered group: it owns partitions, and settles each in order.

    The core calls neither `nack` nor `release`: a record that failed blocks its key, and this
    member retries it. `LeasedSource` implements all of it over a `PartitionedLog`.
    """

    def certain_until(self) -> float:
        """Return the monotonic time until which this member certainly owns its partitions.

        Called for a source without `silence`, each time the last answer has passed.
        """
        return math.inf

    def owns(self, record: Received) -> bool:
        """Whether this member still owns the partition of `record`."""
        return True

    async def keep(self, nacks: Sequence[Nack]) -> None:
        """Make failed attempts durable while this member keeps the records unsettled.

        Make durable that the next delivery by the broker, to whichever member then owns the
        partition, shows `Nack.attempt`, and `Nack.due` as `Received.not_before`: the core waits
        for the rest of the delay before it dispatches the record. Of two calls the later one
        counts. The default does nothing, so a crash loses attempts and delays.
        """


async def settle_stored(
    records: Sequence[Received],
    outcomes: Sequence[Outcome],
    settle: Callable[[Sequence[Received]], Awaitable[None]],
) -> None:
    """Settle the `records` whose copies were stored, then raise the first failure of the others.

    `outcomes` has one item for each record, in the same order, as `Driver.publish` returns it.
    """
    stored = [
        record
        for record, outcome in zip(records, outcomes, strict=True)
        if not isinstance(outcome, BaseException)
    ]
    if stored:
        await settle(stored)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
