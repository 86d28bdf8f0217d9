"""Rules that SQLite shares with memory: delays, partitions, order, replay, admin."""

from __future__ import annotations

from tests.adapters.memory.embedded import Embedded


class TestSqlite(Embedded):
    pass
