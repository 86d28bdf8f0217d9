"""A topic of its own for each test, on the server that all share or on one that may be broken."""

from __future__ import annotations

from tests.adapters.fixtures import bench_of, faulty_of, url_of
from tests.adapters.kafka.support import Bench

server_url = url_of("kafka")
faulty = faulty_of("kafka")
bench = bench_of(Bench)
