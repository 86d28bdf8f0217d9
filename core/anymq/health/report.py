"""`Health`: the state of an application, and what it means for the two Kubernetes probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..consuming.health import STUCK_AFTER, SubscriptionHealth

STALLED_FOR = 300.0
"""Seconds for which a source may deliver nothing, although it was reopened, before a restart."""

State = Literal["stopped", "starting", "running", "draining"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerHealth:
    """The connection to the broker, by its last answer to a ping."""

    name: str
    """The name of the client, as the broker may show it."""
    backend: str
    """The scheme of the URL."""
    connected: bool
    error: str | None
    """The error of the last ping; None while it is answered."""
    error_seconds: float | None
    """Seconds since the first of the failed pings; None while they are answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The state of an application at one moment: `App.health`.

    It holds no password and no key, id or body of a message.
    """

    name: str | None
    version: str | None
    state: State
    broker: BrokerHealth | None
    """The connection; None while the app has none."""
    subscriptions: Sequence[SubscriptionHealth]

    @property
    def live(self) -> bool:
        """Whether no restart is needed. A broker that does not answer needs none."""
        return not self.faults

    @property
    def ready(self) -> bool:
        """Whether it is connected, every subscription reads from the broker, and none drains."""
        return not self.problems

    @property
    def draining(self) -> bool:
        """Whether the app has begun to stop."""
        return self.state == "draining"

    @property
    def faults(self) -> Sequence[str]:
        """The reasons why only a restart helps; empty if it is live."""
        return tuple(self._faults())

    @property
    def problems(self) -> Sequence[str]:
        """The reasons why it is not ready; empty if it is."""
        return tuple(dict.fromkeys((*self._problems(), *self._faults())))

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "live": self.live,
            "ready": self.ready,
            "draining": self.draining,
            "problems": list(self.problems),
            **asdict(self),
            "subscriptions": [asdict(item) for item in self.subscriptions],
        }

    def _problems(self) -> Iterator[str]:
        if self.state != "running":
            yield f"the app is {self.state}"
            return
        if self.broker is not None and not self.broker.connected:
            yield (
                f"not connected for {self.broker.error_seconds or 0.0:.0f} s: {self.broker.error}"
            )
        for item in self.subscriptions:
            if item.closed:
                yield f"the subscription to {_name(item)} is closed"
            elif not item.has_source:
                error = item.error or "it has no source yet"
                seconds = item.error_seconds or 0.0
                yield f"the subscription to {_name(item)} cannot read for {seconds:.0f} s: {error}"

    def _faults(self) -> Iterator[str]:
        for item in self.subscriptions:
            if item.failed:
                yield f"the subscription to {_name(item)} has stopped reading for good"
            if item.handlers.stuck:
                yield (
                    f"{item.handlers.stuck} handlers of {_name(item)} go on {STUCK_AFTER:g} s "
                    "after their deadline"
                )
            if item.stalled_seconds is not None and item.stalled_seconds > STALLED_FOR:
                yield (
                    f"the broker has messages for {_name(item)} and has delivered none for "
                    f"{item.stalled_seconds:.0f} s"
                )


def _name(item: SubscriptionHealth) -> str:
    return f"{item.topic} (group {item.group})"
