"""Control of the real servers: python -m brokers up|down|status|... [NAME...] [--instance NAME]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import state
from .errors import BrokersError
from .server import NAMES, Server, together
from .status import Status
from .tools import aligned

_COMMANDS = {
    "up": "install missing programs, start, and wait until each server answers",
    "down": "stop gracefully, or kill after a bounded wait; data are kept",
    "status": "print a table; exit with code 3 unless all are running",
    "url": "print the URL that clients connect to",
    "logs": "print the end of the log",
    "restart": "stop gracefully and start with the same data",
    "kill": "SIGKILL; data are kept",
    "pause": "SIGSTOP: connections stay open and nothing answers",
    "resume": "SIGCONT",
    "reset": "kill, delete all data, start",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, 1 for a failure, or 3 for a status with a server not running."""
    options = _parser().parse_args(arguments)
    try:
        servers = [Server(name, options.instance) for name in options.names or NAMES]
        return _run(options.command, servers, lines=getattr(options, "lines", 50))
    except BrokersError as error:
        print(f"brokers: {error}", file=sys.stderr)
        return 1


def _run(command: str, servers: list[Server], *, lines: int) -> int:
    match command:
        case "status":
            found = list(together(servers, Server.status).values())
            _table(found)
            return 0 if all(one.running for one in found) else 3
        case "url":
            for one in servers:
                print(one.url)
        case "logs":
            for one in servers:
                if len(servers) > 1:
                    print(f"==> {one.name} <==")
                print(one.logs(lines))
        case _:
            together(servers, lambda one: getattr(one, command)())
            if command in ("up", "restart", "reset"):
                for one in servers:
                    print(one.url)
    return 0


def _table(rows: Sequence[Status]) -> None:
    lines = [("NAME", "STATE", "VERSION", "PID", "URL", "UPTIME", "FOLDER")]
    lines += [
        (
            one.name,
            str(one.state),
            one.version,
            str(one.pid or ""),
            one.url,
            _duration(one.uptime),
            str(one.folder),
        )
        for one in rows
    ]
    print(*aligned(lines), sep="\n")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m brokers", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in _COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (all by default)"
        )
        command.add_argument(
            "--instance",
            default=state.default_instance(),
            metavar="NAME",
            help="separate set of servers with its own ports and data (%(default)s)",
        )
        if name == "logs":
            command.add_argument(
                "-n", dest="lines", type=int, default=50, metavar="N", help="number of lines (50)"
            )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
