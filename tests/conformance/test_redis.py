from pathlib import Path

import pytest

from anymq.testing.conformance import Conformance, Faults, StoreConformance

from .servers import ServerHarness

HARNESS = ServerHarness("redis", "redis")


@pytest.mark.redis
class TestRedis(Conformance):
    harness = HARNESS


@pytest.mark.redis
@pytest.mark.xdist_group("redis-faults")
class TestRedisFaults(Faults):
    harness = HARNESS


@pytest.mark.redis
class TestRedisStore(StoreConformance):
    def url(self, folder: Path) -> str:
        return HARNESS.url(folder)
