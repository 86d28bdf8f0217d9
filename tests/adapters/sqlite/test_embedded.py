"""What SQLite does as memory does: delays, partitions, order, replay, admin."""

from __future__ import annotations

from tests.adapters.memory.embedded import Embedded


class TestSqlite(Embedded):
    pass
