"""The feed: publishes the shop's invoices to the system."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from anymq import Broker

from .events import InvoiceReceived
from .run import Run

BATCH = 500


async def feed(broker: Broker, run: Run, invoices: Sequence[InvoiceReceived]) -> None:
    """Publish every invoice under its own id, so that a repeated invoice is a duplicate.

    anymq coalesces publishes that are awaited together.
    """
    for start in range(0, len(invoices), BATCH):
        publishes = [
            broker.publish(
                run.received, invoice, key=invoice.invoice, id=f"{run.id}/{invoice.invoice}"
            )
            for invoice in invoices[start : start + BATCH]
        ]
        await asyncio.gather(*publishes)
