"""Builds an application from services, and runs one service as a process."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from anymq import AnymqError, App

from .run import Run
from .state import State
from .stderr import complain, show_warnings

Service = Callable[[App, Run], State]
"""Adds its handlers to the app and returns its state, which is open while the app runs."""


def application(run: Run, *services: Service) -> App:
    """Return an app with the handlers of all `services`."""
    states: list[State] = []

    @asynccontextmanager
    async def lifespan(_: App) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for state in states:
                await stack.enter_async_context(state)
            yield

    app = App(run.url, lifespan=lifespan, drain_timeout=5)
    states += [service(app, run) for service in services]
    return app


def serve(service: Service) -> None:
    """Run `service` by a command line like `python -m examples.orders.payment --run ID …`."""
    name = service.__name__
    parser = argparse.ArgumentParser(description=f"The service {name}.")
    parser.add_argument(
        "--url", default=os.environ.get("ANYMQ_URL", ""), help="URL of the broker (ANYMQ_URL)"
    )
    parser.add_argument("--run", required=True, help="id of the run, part of every topic")
    parser.add_argument("--folder", required=True, type=Path, help="folder of the state files")
    parser.add_argument(
        "--supervised", action="store_true", help="end when standard input is closed"
    )
    arguments = parser.parse_args()
    show_warnings(name)
    if arguments.supervised:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    run = Run(arguments.url, arguments.run, arguments.folder)
    try:
        application(run, service).run()
    except* AnymqError as errors:
        complain(name, errors)
        sys.exit(2)


def _end_with_parent() -> None:
    """Send SIGTERM to this process when its standard input is closed."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
