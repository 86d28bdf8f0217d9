"""`make demo`: each service as a process on a SQLite file; one of them is killed."""

from __future__ import annotations

import sys
import tempfile

from .cli import main, parser
from .processes import Processes
from .services import SERVICES
from .view import Progress


class Killer:
    """Kills the service `victim` once, when a third of the invoices are settled."""

    def __init__(self, victim: str) -> None:
        self.victim = victim
        self.done = False

    def __call__(self, progress: Progress, processes: Processes | None) -> None:
        if not self.done and processes is not None and 3 * progress.settled > progress.expected:
            self.done = True
            processes.kill(self.victim)


def demo() -> int:
    """Return 0 if the service was killed and the ledger agrees with the file."""
    options = parser()
    options.prog = "python -m examples.orders.demo"
    options.add_argument(
        "--kill", choices=SERVICES, default="payment", help="service to kill (payment)"
    )
    with tempfile.TemporaryDirectory(prefix="anymq-demo-") as folder:
        options.set_defaults(url=f"sqlite:///{folder}/orders.db", processes=True)
        arguments = options.parse_args()
        killer = Killer(arguments.kill)
        print(
            f"starting five processes; {killer.victim} will be killed during the run",
            file=sys.stderr,
        )
        status = main(arguments, killer)
    if status == 0 and not killer.done:
        print("orders: the run ended before the service was killed", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(demo())
