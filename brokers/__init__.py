"""The real servers for development, tests and benchmarks: install, start, stop, kill, reset."""

from .errors import BrokersError, NotInstallable, StartFailed
from .server import NAMES, Server, down, server, up
from .status import State, Status

__all__ = [
    "NAMES",
    "BrokersError",
    "NotInstallable",
    "Server",
    "StartFailed",
    "State",
    "Status",
    "down",
    "server",
    "up",
]
