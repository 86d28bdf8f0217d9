"""The settlement log of a dead-letter topic: a topic that notes the letters that were settled."""

from __future__ import annotations

from ..driver.specs import TopicSpec

SUFFIX = "._settled"
"""The end of the name of a settlement log. No topic of an application has such a name."""


def settlement_log_topic(stored_in: str) -> str:
    """Return the name of the settlement log of the dead letters in `stored_in`."""
    return f"{stored_in}{SUFFIX}"


def settlement_log_spec(spec: TopicSpec) -> TopicSpec:
    """Return the settlement log of the dead letters in `spec`."""
    name = settlement_log_topic(spec.name)
    return TopicSpec(name=name, native=settlement_log_topic(spec.native), create=spec.create)
