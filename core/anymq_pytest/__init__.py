"""The pytest plugin: fixtures for tests of applications. Pytest loads it by its entry point.

It is no part of the package `anymq`, whose import would slow every run of pytest, with tests of
anymq or without. Its fixtures are synchronous, so that they serve pytest-asyncio, anyio, and tests
with neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from anymq import App
    from anymq.testing import TestBroker

__all__ = ["anymq_test", "anymq_url"]


@pytest.fixture(scope="session")
def anymq_url() -> str:
    """The URL of the broker to test on: that of `ANYMQ_TEST_URL`, or `memory://`."""
    return os.environ.get("ANYMQ_TEST_URL") or "memory://"


@pytest.fixture
def anymq_test(anymq_url: str) -> Callable[[App], TestBroker]:
    """A function that returns a `TestBroker` for an app, on the broker of `anymq_url`."""
    from anymq.testing import TestBroker

    def test_broker(app: App) -> TestBroker:
        return TestBroker(app, url=None if anymq_url == "memory://" else anymq_url)

    return test_broker
