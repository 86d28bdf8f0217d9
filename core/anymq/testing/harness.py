"""`Harness`: what the conformance suite must know about a backend."""

from __future__ import annotations

import secrets
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from ..broker import Broker
from ..driver.records import Record
from ..ids import new_id


class Server(Protocol):
    """A server that tests may break. Every method is synchronous and returns when it is done."""

    @property
    def url(self) -> str:
        """Where it answers; the same after a restart."""
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
    """A way to the server that tests may break, while others go on."""

    @property
    def url(self) -> str:
        """Where the server can be reached by it."""
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
    """What the table at the end of a run calls this backend."""
    ack_window: float = 0.5
    """Seconds after which an acked message is not redelivered even if the process is killed."""
    recovery: float = 30.0
    """Seconds within which a subscription delivers again after the server has come back."""
    quick_loss: str = ""
    """Query options with which a silent member loses what it has within seconds."""

    quick_death: str = ""
    """Query options with which a killed process is missed within seconds."""

    loss: float = 4.0
    """Seconds of standing still after which a member with `quick_loss`, and a lease of 3 s, has
    lost what it has."""

    says_what_was_skipped: bool = True
    """Whether a broadcast reader can tell that a purge took messages that it had not read."""

    def url(self, folder: Path) -> str:
        """Return the URL of one test; `folder` is a folder of its own."""
        raise NotImplementedError

    def dead_url(self) -> str:
        """Return a URL, with a user and the password `hunter2`, where nobody answers."""
        raise NotImplementedError

    def server(self) -> Server:
        """Return a server for the tests that break it; nobody else uses it."""
        raise NotImplementedError

    def link(self) -> AbstractAsyncContextManager[Link]:
        """Return a link to `server`, for instance a proxy; open while it is entered."""
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
