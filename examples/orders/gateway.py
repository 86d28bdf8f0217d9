"""A simulated payment gateway that declines some charges and never charges twice."""

from __future__ import annotations

import zlib

from .state import State

SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (invoice TEXT PRIMARY KEY, attempts INTEGER) WITHOUT ROWID;
"""

DECLINES = 2


class Declined(Exception):
    """The gateway declined the charge; a later attempt may succeed."""


def declines_twice(invoice: str) -> bool:
    """Return whether this invoice is declined twice: one in ten, chosen by hash."""
    return zlib.crc32(invoice.encode()) % 10 == 0


class Gateway:
    """Charges invoices, with the invoice number as the idempotency key."""

    def __init__(self, state: State) -> None:
        self._state = state

    def charge(self, invoice: str) -> int:
        """Charge an invoice, unless it has been charged; return the number of attempts.

        Raises `Declined`.
        """
        needed = DECLINES + 1 if declines_twice(invoice) else 1
        upsert = """
        INSERT INTO charges VALUES (?, 1)
        ON CONFLICT DO UPDATE SET attempts = min(attempts + 1, ?) RETURNING attempts
        """
        with self._state.transaction() as db:
            (attempts,) = db.execute(upsert, (invoice, needed)).fetchone()
        if attempts < needed:
            raise Declined(f"invoice {invoice}, attempt {attempts}")
        return int(attempts)
