"""The whole system: the services, the feed, and waiting until every invoice is settled."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from anymq import URL, ConfigurationError, connect

from .events import InvoiceReceived
from .feed import feed
from .figures import Figures
from .mend import mend as mend_letters
from .processes import Processes
from .run import Run
from .serve import application
from .services import SERVICES
from .view import Progress, View

LOOK = 0.1
"""Seconds between two looks at the ledger."""

STALL = 200.0
"""Seconds without any progress that end the run: more than a broker needs to recover by itself."""

Observe = Callable[[Progress, Processes | None], None]
"""Called again and again with the progress, and with the services that are processes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the ledger says, and what is missing if the run came to a standstill."""

    figures: Figures
    missing: str | None


async def run_orders(
    url: str,
    invoices: Sequence[InvoiceReceived],
    *,
    processes: bool,
    mend: bool = False,
    observe: Observe,
    note: Callable[[str], None],
) -> Outcome:
    """Run `invoices` through the services on the broker at `url`, until all of them are settled.

    `mend` puts back the orders that only lack a customer, once all is settled, and waits for them.
    Raises what anymq raises, `ServiceFailed`, or a group of these. `note` is told of services that
    die.
    """
    if processes and URL.parse(url).scheme == "memory":
        raise ConfigurationError(
            "memory:// lives in one process: for --processes use sqlite:///orders.db, or a server"
        )
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="anymq-orders-"))
        run = Run(url, secrets.token_hex(4), Path(folder))
        view = await stack.enter_async_context(View(run, len(invoices)))
        supervisor: Processes | None = None
        if processes:
            broker = await stack.enter_async_context(connect(url))
            supervisor = await stack.enter_async_context(Processes(run, note))
        else:
            app = application(run, *SERVICES.values())
            broker = (await stack.enter_async_context(app)).broker
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed(broker, run, invoices))
            settling = tasks.create_task(
                settle(view, lambda progress: observe(progress, supervisor))
            )
        outcome = settling.result()
        if mend and outcome is None:
            mended = await mend_letters(broker, run)
            outcome = await settle(view, lambda progress: observe(progress, supervisor), mended)
        return Outcome(await view.figures(), outcome)


async def settle(view: View, observe: Callable[[Progress], None], mended: int = 0) -> str | None:
    """Return once every invoice is settled, and `mended` ones shipped after all.

    When nothing moves any more, return what is missing.
    """
    loop = asyncio.get_running_loop()
    last, moved = view.progress(), loop.time()
    while last.settled < last.expected or last.mended < mended:
        observe(last)
        await asyncio.sleep(LOOK)
        now = view.progress()
        if now != last:
            last, moved = now, loop.time()
        elif loop.time() - moved > STALL:
            return missing(view)
    observe(last)
    return None


def missing(view: View) -> str:
    """Return what is still to come."""
    now, unsettled = view.progress(), view.unsettled()
    some = ", ".join(unsettled[:5]) + (", …" if len(unsettled) > 5 else "")
    return (
        f"nothing has moved for {STALL:g} s: {now.expected - now.settled:,} of {now.expected:,} "
        f"invoices are not settled. The ledger has not heard of {now.expected - now.known:,}; it "
        f"has heard of {now.placed:,} placed, {now.cancelled:,} cancelled, {now.captured:,} "
        f"captured, {now.rejected:,} rejected, {now.reserved:,} reserved and {now.shipped:,} "
        "shipped" + (f" (unsettled: {some})" if some else "")
    )
