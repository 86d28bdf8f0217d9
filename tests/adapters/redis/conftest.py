"""Fixtures: a separate topic for each test, on the shared server or on a breakable one."""

from __future__ import annotations

from tests.adapters.fixtures import bench_of, faulty_of, url_of
from tests.adapters.redis.support import Bench

server_url = url_of("redis")
faulty = faulty_of("redis")
bench = bench_of(Bench)
