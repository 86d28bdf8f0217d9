"""Test tools: `TestBroker` for applications, the conformance suite for adapters.

The suite needs `pytest` and `pytest-asyncio` (`pip install 'anymq[testing]'`); the rest does not.
"""

from .app import TestBroker
from .attempts import Attempt
from .clock import VirtualClock
from .harness import Harness, Link, Server, random_name

__all__ = ["Attempt", "Harness", "Link", "Server", "TestBroker", "VirtualClock", "random_name"]
