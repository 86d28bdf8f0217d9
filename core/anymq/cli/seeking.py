"""`plan_seek`: what resetting a group delivers again, and what it discards."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..broker import Broker
from ..driver.specs import Start
from .impact import plural
from .survey import describe_group, describe_topic

COUNTED = 100_000
"""The most messages that are read to count them."""


@dataclass(frozen=True, kw_only=True)
class SeekPlan:
    """A reset of a group. A number is None if it is unknown."""

    topic: str
    group: str
    to: Start
    messages: int | None
    """Messages from the position to the end; None if there are more than `COUNTED`."""
    lag: int | None
    in_flight: int | None
    waiting: int | None
    members: int | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = ("topic", "group", "messages", "lag", "in_flight", "waiting", "members")
        return {name: getattr(self, name) for name in names} | {"to": _words(self.to)}

    def text(self, *, done: bool) -> str:
        """Return it for people: what was done, or would be."""
        begin = "reset" if done else "would reset"
        more = f"more than {COUNTED:,} messages"
        count = more if self.messages is None else plural(self.messages, "message")
        lines = [f"{begin} {self.group} of {self.topic} to {_words(self.to)}: {count} to deliver"]
        if self.in_flight or self.waiting:
            lines.append(
                f"{'discarded' if done else 'discards'}: {self.in_flight or 0:,} in flight, "
                f"{self.waiting or 0:,} waiting for a retry"
            )
        if self.members and not done:
            lines.append(f"now refused: the group has {plural(self.members, 'live member')}")
        if self.members is None and not done:
            lines.append(
                "refused while the group has live members, which this broker does not list"
            )
        return "\n".join(lines)


async def plan_seek(broker: Broker, topic: str, group: str, *, to: Start) -> SeekPlan:
    """Return what a reset of the group to `to` does; raises `NotFound`, and for a bad position."""
    info = await describe_group(broker, topic, group)
    return SeekPlan(
        topic=topic,
        group=group,
        to=to,
        messages=await _count(broker, topic, to),
        lag=info.lag,
        in_flight=info.in_flight,
        waiting=info.waiting,
        members=None if info.members is None else len(info.members),
    )


async def _count(broker: Broker, topic: str, to: Start) -> int | None:
    if to == "latest":
        return 0
    if to == "earliest":
        messages = (await describe_topic(broker, topic)).messages
        if messages is not None:
            return messages
    count = 0
    async for _ in broker.admin.browse(topic, start=to):
        count += 1
        if count > COUNTED:
            return None
    return count


def _words(to: Start) -> str:
    if isinstance(to, datetime):
        return f"@{to.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    return {"earliest": "start", "latest": "end"}.get(to, to)
