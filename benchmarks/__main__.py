"""The benchmark commands: `speed` (the default), `compare`, `profile` and `chaos`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .chaos.cli import add_to as add_chaos
from .speed.cli import add_to as add_speed
from .speed.compare import add_to as add_compare
from .speed.profile import add_to as add_profile

DEFAULT = "speed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 if a goal was missed or a check failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_speed(commands)
    add_profile(commands)
    add_compare(commands)
    add_chaos(commands)
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or (given[0].startswith("-") and given[0] not in ("-h", "--help")):
        given.insert(0, DEFAULT)
    options = parser.parse_args(given)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
