"""Harnesses of backends with a server: a shared one, and one for the tests that kill it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from anymq.testing import Harness, Server
from benchmarks.chaos.proxy import Proxy
from brokers import server

# Options that save time: fewer partitions on Kafka; on RabbitMQ no wait until a new queue survives
# a kill of the server.
_OPTIONS = {"kafka": "?partitions=3", "rabbitmq": "?settle_time=0"}
_QUICK_LOSS = {"kafka": "session_timeout=6", "rabbitmq": "heartbeat=1"}
_QUICK_DEATH = {"kafka": "session_timeout=6"}
_LOSS = {"kafka": 8.0}


@dataclass
class ProxiedLink:
    url: str
    proxy: Proxy

    def cut(self) -> None:
        self.proxy.accepting = False
        self.proxy.cut()

    def mend(self) -> None:
        self.proxy.heal()


class ServerHarness(Harness):
    scheme: str

    def __init__(self, name: str, scheme: str) -> None:
        self.name = name
        self.scheme = scheme
        self.quick_loss = _QUICK_LOSS.get(name, "")
        self.quick_death = _QUICK_DEATH.get(name, "")
        self.loss = _LOSS.get(name, self.loss)
        self.recovery = 90.0

    def url(self, folder: Path) -> str:
        return server(self.name).url + _OPTIONS.get(self.name, "")

    def dead_url(self) -> str:
        return f"{self.scheme}://someone:hunter2@127.0.0.1:1"

    def server(self) -> Server:
        return server(self.name, instance="faults")

    @asynccontextmanager
    async def link(self) -> AsyncIterator[ProxiedLink]:
        behind = server(self.name, instance="faults")
        front, back = behind.route()
        async with Proxy(back, front) as proxy:
            yield ProxiedLink(behind.url_at(proxy.port), proxy)
