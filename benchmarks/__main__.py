"""The command line: `python -m benchmarks chaos …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .chaos.cli import add_to as add_chaos


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code is 0, or 1 when what must hold did not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_chaos(commands)
    options = parser.parse_args(arguments)
    code: int = options.run(options)
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
