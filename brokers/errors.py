"""What can go wrong, each with a message that says what to do."""

from __future__ import annotations

import sys


class BrokersError(Exception):
    """A server could not be brought into the state that was asked for."""


class NotInstallable(BrokersError):
    """A server cannot be installed here: says what is missing and the command that fixes it."""


class StartFailed(BrokersError):
    """A server was started and did not become ready: carries the end of its log."""


def say(text: str) -> None:
    """One progress line on stderr."""
    print(f"brokers: {text}", file=sys.stderr, flush=True)
