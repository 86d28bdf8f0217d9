"""Checks of the memory backend, which has no server and keeps nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from anymq.driver import Check


async def checks() -> AsyncGenerator[Check, None]:
    """Yield the checks."""
    yield Check.warning(
        "durability",
        "messages are in the memory of this process, and end with it",
        fix="use sqlite:///app.db, or a broker, for messages that must survive",
    )
    yield Check.ok("clock", "this machine's clock")
