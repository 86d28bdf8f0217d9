"""The event loop of workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of uvloop if it is installed, otherwise that of asyncio."""
    try:
        factory: Callable[[], asyncio.AbstractEventLoop] = import_module("uvloop").new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return factory
