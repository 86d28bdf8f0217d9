"""`anymq run`: runs an app in worker processes."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from ..supervision import LogFormat, LogSettings, RunSettings, Supervisor
from ..supervision.slot import RunFailed
from .common import DEFAULT, Common, Flag
from .failures import CommandError, UsageError
from .values import Duration

LogLevel = Literal["debug", "info", "warning", "error"]

MOST_WORKERS = 1000


def run(
    place: str,
    /,
    *,
    workers: int = 1,
    reload: Flag = False,
    health: str | None = None,
    drain: Duration = timedelta(seconds=30),
    log_format: LogFormat = "text",
    log_level: LogLevel = "info",
    common: Common = DEFAULT,
) -> int:
    """Run an app in worker processes, and restart those that die.

    SIGTERM drains: the workers stop fetching, and running handlers have the time of --drain. A
    second SIGTERM, or Ctrl-C, ends at once; messages in handlers come back. A worker that dies is
    replaced after a pause; five in a row that live for less than a minute end the command.

    Exit codes: 0 drained, or the app stopped itself; 1 the workers failed, or one did not stop in
    time; 2 wrong usage or configuration; 3 drained, but handlers were cancelled because they
    outlasted --drain; 130 Ctrl-C; 143 ended by a second SIGTERM.

    The log goes to standard error. It runs on the broker of --url or --context, otherwise on that
    of the app.

    Parameters
    ----------
    place
        The app, as module, module:attribute or module:factory().
    workers
        The number of processes.
    reload
        Start the workers anew when a Python or TOML file in the working directory has changed.
    health
        Serve /livez, /readyz and /metrics at this HOST:PORT, or :PORT for every interface.
    drain
        The time that running handlers have after SIGTERM.
    log_format
        Lines of text, or a JSON object on each line.
    log_level
        The least level that is logged.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise UsageError(f"--workers {workers}: there can be 1 to {MOST_WORKERS}")
    if common.app is not None:
        raise UsageError("anymq run takes the app as its argument, not with --app")
    settings = RunSettings(
        place=place,
        workers=workers,
        url=common.broker_url if common.names_a_broker else None,
        drain=drain.total_seconds(),
        health=health,
        reload=reload,
        log=LogSettings(form=log_format, level=log_level.upper()),
        traceback=common.traceback,
    )
    try:
        return Supervisor(settings).run()
    except RunFailed as error:
        raise CommandError(str(error), code=error.code) from error
