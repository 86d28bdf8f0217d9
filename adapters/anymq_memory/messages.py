"""Records as a topic stores them, and as the core receives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from anymq.driver import ONLY_GROUP, Published, Received, Record


@dataclass(slots=True)
class StoredRecord:
    """A record in its topic's log. `time` never decreases from one to the next."""

    sequence: int
    record: Record
    time: float
    partition: int


class PendingDelivery(Published):
    """One delivery of a record to one group: in flight with its `owner`, or waiting for a retry.

    It is current as long as it is the one in `Group.pending`. A redelivery replaces it by a new
    object, so a stale settlement is recognised by identity.
    """

    __slots__ = ("attempt", "due", "number", "owner", "stored", "taken")

    def __init__(
        self,
        number: int,
        stored: StoredRecord,
        attempt: int,
        owner: str | None,
        taken: float,
        due: float,
    ) -> None:
        self.number = number
        self.stored = stored
        self.attempt = attempt
        """This attempt while it has an owner, the next one while it waits."""
        self.owner = owner
        self.taken = taken
        self.due = due
        """When its lease expires, or its delay ends. Monotonic, because the wall clock may be set
        while a handler runs."""
        self.body = stored.record.body
        self.not_before = None

    @property
    def attempts(self) -> int:
        """The number of deliveries so far."""
        return self.attempt - (self.owner is None)

    @property
    def fresh(self) -> bool:
        return self.attempt == 1 and ONLY_GROUP not in self.stored.record.own

    def header(self, name: str) -> str | None:
        record = self.stored.record
        return record.own.get(name) or record.common.get(name)

    @property
    def headers(self) -> Mapping[str, str]:  # type: ignore[override]
        return self.stored.record.headers

    @property
    def position(self) -> str:  # type: ignore[override]
        return str(self.stored.sequence)

    @property
    def native(self) -> Record:
        return self.stored.record

    @property
    def key(self) -> str | None:  # type: ignore[override]
        return self.stored.record.key

    @property
    def content_type(self) -> str | None:  # type: ignore[override]
        return self.stored.record.content_type

    @property
    def time(self) -> float:  # type: ignore[override]
        return self.stored.time

    @property
    def redeliveries(self) -> int:  # type: ignore[override]
        return self.attempt - 1

    @property
    def partition(self) -> int:  # type: ignore[override]
        return self.stored.partition


def received(stored: StoredRecord) -> Received:
    """Return `stored` for a reader that has no leases: broadcast, ordered, replay."""
    record = stored.record
    return Published(
        record.body,
        dict(record.headers),
        position=str(stored.sequence),
        token=None,
        native=record,
        key=record.key,
        content_type=record.content_type,
        time=stored.time,
        partition=stored.partition,
    )
