"""The fixtures of the suite: a URL, a broker and a topic for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest
import pytest_asyncio

from ...broker import Broker
from ...connect import connect
from ..harness import Harness, random_name
from .needs import check_refusal


class Base:
    """The base of every test class. Tests share a server, so each has topics of its own."""

    pytestmark = pytest.mark.asyncio
    harness: ClassVar[Harness]

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return self.harness.url(tmp_path)

    @pytest.fixture
    def killed_url(self, url: str) -> str:
        """The URL of a process that the test kills."""
        return f"{url}{'&' if '?' in url else '?'}{self.harness.quick_death}"

    @pytest_asyncio.fixture
    async def broker(self, url: str, request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
        async with connect(url) as broker:
            await check_refusal(request, broker)
            yield broker

    @pytest.fixture
    def topic(self) -> str:
        return random_name()
