"""`Listener`: the calls that a source makes to the subscription it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from .records import Received


class Listener:
    """The subscription, as its source sees it. `Driver.subscribe` gets it beside the spec.

    Every method here does nothing: it serves sources that are opened without the core.
    """

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        """Stop handling `partitions`.

        For ordered sources that assign partitions themselves. Await it before giving partitions up
        (`gone=False`): it returns when their handlers have ended and the other records have been
        discarded, within `ack_deadline`. Await it as well when partitions have been lost
        (`gone=True`): then handlers are cancelled.
        """

    def skipped(self, after: str, before: str) -> None:
        """Report a gap in a broadcast subscription: retention deleted messages before it read them.

        Call it once per gap with the positions `after` which and `before` which messages are
        missing: of the last record read, and of the oldest that is left (empty if there is none).
        """

    def dropped(self, records: Sequence[Received]) -> None:
        """Report `records` that were acked, but whose acks were lost before the broker got them.

        Report as well records whose copy or dead letter was stored, but whose assignment or channel
        ended before they were settled. The core acks these records at once if they are delivered to
        this subscription again. Reporting too many does no harm.
        """

    def unreadable(self, records: Sequence[Received], reason: str) -> None:
        """Report `records` that cannot be given to a handler, within `receive`.

        The core rejects them: each becomes a dead letter, and is settled.
        """
