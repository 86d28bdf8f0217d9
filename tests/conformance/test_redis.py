from pathlib import Path

import pytest

from anymq.testing.conformance import Conformance, Faults, StoreConformance

from .servers import ServerHarness


class PlainHarness(ServerHarness):
    """Redis by the public interface of redis-py alone."""

    def __init__(self) -> None:
        super().__init__("redis", "redis")
        self.name = "redis plain"

    def url(self, folder: Path) -> str:
        return f"{HARNESS.url(folder)}?client=plain"


HARNESS = ServerHarness("redis", "redis")
PLAIN_HARNESS = PlainHarness()


@pytest.mark.redis
class TestRedis(Conformance):
    harness = HARNESS


@pytest.mark.long
@pytest.mark.redis
class TestRedisPlain(Conformance):
    harness = PLAIN_HARNESS


@pytest.mark.redis
@pytest.mark.xdist_group("redis-faults")
class TestRedisFaults(Faults):
    harness = HARNESS


@pytest.mark.redis
class TestRedisStore(StoreConformance):
    def url(self, folder: Path) -> str:
        return HARNESS.url(folder)


@pytest.mark.long
@pytest.mark.redis
class TestRedisPlainStore(StoreConformance):
    def url(self, folder: Path) -> str:
        return PLAIN_HARNESS.url(folder)
