"""The bank that payment asks: not always in the mood, and never charging an invoice twice."""

from __future__ import annotations

import zlib

from .state import State

SCHEMA = """
CREATE TABLE IF NOT EXISTS charges (invoice TEXT PRIMARY KEY, attempts INTEGER) WITHOUT ROWID;
"""

DECLINES = 2


class Declined(Exception):
    """Not now; try again."""


def is_moody(invoice: str) -> bool:
    """Whether the bank declines this invoice twice: one in ten, always the same ones."""
    return zlib.crc32(invoice.encode()) % 10 == 0


class Gateway:
    """Charges by invoice number, its idempotency key."""

    def __init__(self, state: State) -> None:
        self._state = state

    def charge(self, invoice: str) -> int:
        """Return how many attempts the charge took; an invoice that is charged stays so.

        Raises `Declined`.
        """
        needed = DECLINES + 1 if is_moody(invoice) else 1
        upsert = """
        INSERT INTO charges VALUES (?, 1)
        ON CONFLICT DO UPDATE SET attempts = min(attempts + 1, ?) RETURNING attempts
        """
        with self._state.transaction() as db:
            (attempts,) = db.execute(upsert, (invoice, needed)).fetchone()
        if attempts < needed:
            raise Declined(f"invoice {invoice}, attempt {attempts}")
        return int(attempts)
