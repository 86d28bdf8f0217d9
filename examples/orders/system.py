"""The whole system: starts services and feed, and waits until every invoice is settled."""

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
"""Seconds between two reads of the ledger."""

STALL = 200.0
"""Seconds without progress that end the run, longer than the recovery of a broker."""

Observe = Callable[[Progress, Processes | None], None]
"""Called repeatedly with the progress, and with the service processes if there are any."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of the ledger, and the missing invoices if the run stalled."""

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
    """Run `invoices` through the services on the broker at `url` until all are settled.

    With `mend`, then redrive the orders that only lack a customer, and wait for them. `note` is
    called with deaths of services. Raises `AnymqError`, `ServiceFailed`, or a group of these.
    """
    if processes and URL.parse(url).scheme == "memory":
        raise ConfigurationError(
            "memory:// exists in one process only; with --processes use sqlite:/// or a server"
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
    """Wait until every invoice is settled and `mended` redriven ones are shipped.

    Return None, or a text on the missing ones after `STALL` seconds without progress.
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
    """Return a text on the invoices that are not settled."""
    now, unsettled = view.progress(), view.unsettled()
    some = ", ".join(unsettled[:5]) + (", …" if len(unsettled) > 5 else "")
    return (
        f"no progress for {STALL:g} s: {now.expected - now.settled:,} of {now.expected:,} "
        f"invoices are not settled. The ledger has no event of {now.expected - now.known:,}; it "
        f"has {now.placed:,} placed, {now.cancelled:,} cancelled, {now.captured:,} "
        f"captured, {now.rejected:,} rejected, {now.reserved:,} reserved and {now.shipped:,} "
        "shipped" + (f" (unsettled: {some})" if some else "")
    )
