"""The program of a worker process: `python -m anymq.supervision.worker CHANNEL`.

The supervisor gives the settings and commands on the channel. A worker whose channel has ended has
lost its supervisor: it drains and ends, too.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import IO, TYPE_CHECKING, Any

from ..app import App
from ..cli.loading import load_app
from ..errors import AnymqError, ConfigurationError, TransientError, text_of
from ..event_loop import loop_factory
from ..logs import logger
from ..tasks import supervise
from .logs import configure
from .settings import LogSettings

if TYPE_CHECKING:
    from ..consuming.subscription import Subscription

log = logger("anymq.run")

ORPHAN_GRACE = 15.0
"""Seconds beside its drain after which a worker without a supervisor ends in any case."""


class Worker:
    """The app of this process, on the `channel` of its supervisor."""

    def __init__(self, channel: socket.socket, commands: IO[bytes], spec: dict[str, Any]) -> None:
        self._channel = channel
        self._commands = commands
        self._spec = spec
        self._app: App | None = None
        self._subscriptions: tuple[Subscription, ...] = ()
        self._answers: set[asyncio.Task[None]] = set()
        self._asked = False
        """Whether the supervisor, a signal, or the loss of the supervisor stops this worker."""

    def run(self) -> int:
        """Run the app until it stops; return the exit code."""
        try:
            app = self._app = load_app(self._spec["place"])
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(app))
        except Exception as error:
            return self._fail(error)
        cut_short = sum(item.cut_short for item in self._subscriptions)
        self._send({"ended": {"asked": self._asked, "cut_short": cut_short}})
        return 0

    async def _serve(self, app: App) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, self._spec["drain"])
        listener = threading.Thread(target=self._listen, args=(loop,), daemon=True)
        listener.start()
        await app.serve(url=self._spec["url"], signals=False, started=self._started)

    def _started(self) -> None:
        assert self._app is not None
        self._subscriptions = tuple(self._app.subscriptions)
        self._send({"started": {"backend": self._app.broker.url.scheme}})

    def _fail(self, error: Exception) -> int:
        kind = "error"
        if isinstance(error, ConfigurationError):
            kind = "usage"
        elif isinstance(error, TransientError):
            kind = "transient"
        text = text_of(error)
        if self._spec["traceback"] or not isinstance(error, AnymqError):
            log.error("%s", text, exc_info=error)
        if not isinstance(error, AnymqError):
            text = f"{type(error).__name__}: {text}"
        self._send({"failed": {"text": text, "kind": kind}})
        return 2 if kind == "usage" else 1

    # Commands.

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Obey the supervisor, in a thread: the event loop may be blocked when it dies."""
        try:
            for line in self._commands:
                loop.call_soon_threadsafe(self._obey, json.loads(line))
            loop.call_soon_threadsafe(self._orphaned)
        except RuntimeError:
            return  # The loop is closed: this process ends.
        time.sleep(self._spec["drain"] + ORPHAN_GRACE)
        os._exit(1)

    def _obey(self, command: dict[str, Any]) -> None:
        match command:
            case {"stop": seconds}:
                self._stop(seconds)
            case {"ask": number}:
                task = supervise(self._answer(number), name="answer to the supervisor")
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
            case _:
                log.error("unknown command of the supervisor: %s", command)

    def _orphaned(self) -> None:
        log.warning("the supervisor has ended; draining")
        self._stop(self._spec["drain"])

    def _stop(self, seconds: float) -> None:
        assert self._app is not None
        self._asked = True
        self._app.stop(drain_timeout=seconds)

    async def _answer(self, number: int) -> None:
        assert self._app is not None
        health, metrics = await self._app.health(), await self._app.metrics()
        self._send({"answer": number, "health": health.as_dict(), "metrics": metrics})

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            log.debug("the supervisor does not listen: %s", error)


def main() -> int:
    """Run the worker whose channel is the descriptor in the first argument."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    commands = channel.makefile("rb")
    spec = json.loads(commands.readline() or "null")
    if spec is None:
        return 1
    settings = LogSettings(form=spec["form"], level=spec["level"])
    configure(settings, worker=spec["number"], lock=spec["lock"])
    return Worker(channel, commands, spec).run()


if __name__ == "__main__":
    sys.exit(main())
