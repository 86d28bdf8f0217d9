"""`Harness`: the description of a backend for the conformance suite."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from ..broker import Broker
from ..driver.records import Record
from ..ids import new_id


class Server(Protocol):
    """A server that tests may break. Every method is synchronous and returns on completion."""

    @property
    def url(self) -> str:
        """The URL, which a restart does not change."""
        ...

    def up(self) -> bool:
        """Start it if it is not running, and return when it has answered a request."""
        ...

    def kill(self) -> None:
        """SIGKILL."""

    def pause(self) -> None:
        """SIGSTOP."""

    def resume(self) -> None:
        """SIGCONT."""


class Link(Protocol):
    """A network path to the server that tests may cut, while other paths stay open."""

    @property
    def url(self) -> str:
        """The URL of the server over this path."""
        ...

    def cut(self) -> None:
        """Reset every connection, and refuse new ones until `mend`."""

    def mend(self) -> None:
        """Let connections through again."""


class Harness:
    """One backend under test. Subclass it, and name it in the test class::

    class AcmeHarness(Harness):
        name = "acme"

        def url(self, folder): return "acme://localhost"

    class TestAcme(Conformance):
        harness = AcmeHarness()
    """

    name: str
    """The name of the backend in the table at the end of a run."""
    ack_window: float = 0.5
    """Seconds after which an acked message is not redelivered even if the process is killed."""
    recovery: float = 30.0
    """Seconds within which a subscription delivers again after the server has come back."""
    quick_loss: str = ""
    """URL query options with which a silent member loses its messages within `loss` seconds."""

    quick_death: str = ""
    """URL query options with which the broker notices a killed process within seconds."""

    loss: float = 4.0
    """Seconds after which a stalled member with `quick_loss` and a lease of 3 s has lost its
    messages."""

    says_what_was_skipped: bool = True
    """Whether a broadcast reader notices that a purge deleted messages it had not read."""

    def url(self, folder: Path) -> str:
        """Return the URL of one test. `folder` is a temporary folder of that test."""
        raise NotImplementedError

    def dead_url(self) -> str:
        """Return a URL without a server, with a user and the password `hunter2`."""
        raise NotImplementedError

    def server(self) -> Server:
        """Return a server that only the tests which break it use."""
        raise NotImplementedError

    def link(self) -> AbstractAsyncContextManager[Link]:
        """Return a link to `server`, for instance a proxy. It is open while it is entered."""
        raise NotImplementedError

    async def publish_foreign(self, broker: Broker, topic: str, body: bytes) -> None:
        """Publish `body` without any header of anymq, as another client would."""
        await broker.publish(topic, b"make the topic", timeout=30)
        record = Record(topic=topic, id=new_id(), unique=new_id(), body=body)
        outcome = (await broker.driver.publish([record]))[0]
        if isinstance(outcome, BaseException):
            raise outcome


def random_name(prefix: str = "t") -> str:
    """Return a topic name that no other test uses."""
    return f"{prefix}-{secrets.token_hex(5)}"
