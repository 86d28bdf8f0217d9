"""`make demo`: every service as a process on a SQLite file, and one of them killed on the way."""

from __future__ import annotations

import sys
import tempfile

from .cli import main, parser
from .processes import Processes
from .view import Progress

VICTIM = "payment"


class Killer:
    """Kills a service, once, when a third of the work is done."""

    def __init__(self) -> None:
        self.done = False

    def __call__(self, progress: Progress, processes: Processes | None) -> None:
        if not self.done and processes is not None and 3 * progress.settled > progress.expected:
            self.done = True
            processes.kill(VICTIM)


def demo() -> int:
    """Return 0 if the service was killed and the ledger is right all the same."""
    killer = Killer()
    with tempfile.TemporaryDirectory(prefix="anymq-demo-") as folder:
        arguments = parser()
        arguments.prog = "python -m examples.orders.demo"
        arguments.set_defaults(url=f"sqlite:///{folder}/orders.db", processes=True)
        print(
            f"Five services, a process each. {VICTIM} will be killed on the way.", file=sys.stderr
        )
        status = main(arguments.parse_args(), killer)
    if status == 0 and not killer.done:
        print("orders: it was all over before anything could be killed", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(demo())
