"""The log of `anymq run`, on standard error: lines of text, or one JSON object a line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from .settings import LogSettings


class JsonFormatter(logging.Formatter):
    """One JSON object for each record: time, level, logger, message, worker, pid, and error."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "worker": self._worker,
            "pid": record.process,
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """One line for each record, and the traceback below it."""

    def __init__(self, worker: int | None) -> None:
        who = "supervisor" if worker is None else f"worker {worker}"
        super().__init__(f"%(asctime)s %(levelname)s {who} %(name)s: %(message)s")


class LineHandler(logging.Handler):
    """Writes whole lines to standard error, also if several processes share a pipe.

    `lock` is the descriptor of a file on which they exclude each other: longer lines are not
    written at once.
    """

    def __init__(self, lock: int) -> None:
        super().__init__()
        self._lock_file = lock

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
        except Exception:
            self.handleError(record)
            return
        with contextlib.suppress(OSError), self._alone():  # Its reader may have ended.
            while data:
                data = data[os.write(2, data) :]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        fcntl.lockf(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN)


def configure(settings: LogSettings, *, worker: int | None, lock: int) -> None:
    """Send every log record of this process to standard error."""
    handler = LineHandler(lock)
    formatter = JsonFormatter if settings.form == "json" else TextFormatter
    handler.setFormatter(formatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level)
    library = logging.getLogger("anymq")
    library.handlers.clear()
    library.setLevel(logging.NOTSET)
    logging.captureWarnings(True)
    if not sys.flags.dev_mode:
        logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))
