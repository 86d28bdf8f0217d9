"""The backends with a server: one that tests share, and one for the tests that kill it."""

from pathlib import Path

from anymq.testing import Harness, Server
from brokers import server


class ServerHarness(Harness):
    scheme: str

    def __init__(self, name: str, scheme: str) -> None:
        self.name = name
        self.scheme = scheme

    def url(self, folder: Path) -> str:
        return server(self.name).url

    def dead_url(self) -> str:
        return f"{self.scheme}://someone:hunter2@127.0.0.1:1"

    def server(self) -> Server:
        return server(self.name, instance="faults")
