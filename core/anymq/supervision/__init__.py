"""What `anymq run` does: a supervisor, and the worker processes that it starts and restarts.

`supervisor.py` handles signals and decides the exit code. It has a `Slot` for each worker, which
starts another `WorkerProcess` when one has died. `worker.py` is the program of that process. Both
ends of their channel write lines of JSON, see `process.py`.
"""

from .settings import LogFormat, LogSettings, RunSettings
from .supervisor import Supervisor

__all__ = ["LogFormat", "LogSettings", "RunSettings", "Supervisor"]
