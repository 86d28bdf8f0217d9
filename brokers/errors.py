"""Exceptions whose messages name the remedy, and progress output."""

from __future__ import annotations

import sys


class BrokersError(Exception):
    """A server could not be brought into the requested state."""


class NotInstallable(BrokersError):
    """A server cannot be installed; names the missing program and the command that installs it."""


class StartFailed(BrokersError):
    """A started server did not become ready; contains the end of its log."""


def say(text: str) -> None:
    """Print one progress line to stderr."""
    print(f"brokers: {text}", file=sys.stderr, flush=True)
