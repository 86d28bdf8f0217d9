"""The section "Permissions" of a backend's page, and an application with exactly those rights."""

from __future__ import annotations

from pathlib import Path

import anymq
from anymq import Acknowledge, DeadLetter, Delivery, Reject
from tests.adapters.diagnosing import diagnosis
from tests.adapters.support import eventually

PAGES = Path(__file__).parents[2] / "docs" / "backends"
TOPIC, GROUP = "orders", "billing"
LETTERS = f"{TOPIC}.{GROUP}.dlq"
PUBLISHER, CONSUMER = "publisher", GROUP
"""The users of the pages."""
BODIES = ["acknowledged", "rejected", "retried"]


def blocks(backend: str) -> list[str]:
    """Return the code blocks of the section, from the page itself."""
    text = (PAGES / f"{backend}.md").read_text()
    section = text.partition("\n## Permissions\n")[2].partition("\n## ")[0]
    found = [block.partition("\n")[2] for block in section.split("```")[1::2]]
    assert found, f"the page of {backend} has no section of permissions"
    return found


def commands(backend: str) -> list[str]:
    """Return the commands of the section, each on one line."""
    lines = "".join(blocks(backend)).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


async def prepare(admin: str) -> None:
    """Make what an operator makes for applications with `declare=false`, and one dead letter."""
    async with anymq.connect(admin) as broker:
        await broker.admin.declare(LETTERS)
    await exercise(admin, admin, admin)


async def exercise(admin: str, publisher: str, consumer: str, *, letters: int = 1) -> None:
    """Publish, consume, retry, reject, acknowledge and describe, by the users of these URLs.

    `admin` only counts the dead letters, which are so many at the end.
    """
    seen: list[tuple[str, int]] = []

    async def handle(delivery: Delivery) -> None:
        text = delivery.decode(str)
        seen.append((text, delivery.attempt))
        if text == "retried" and delivery.attempt == 1:
            await delivery.nack(0.2)
        elif text == "rejected":
            raise Reject("no")

    async def has_letter() -> bool:
        return await dead.count() == letters

    async def is_done() -> bool:
        found = await receiver.admin.describe(TOPIC, GROUP)
        return len(seen) == len(BODIES) + 1 and not found.lag

    async with (
        anymq.connect(admin) as operator,
        anymq.connect(publisher) as sender,
        anymq.connect(consumer) as receiver,
    ):
        dead = operator.admin.dead_letters(TOPIC, GROUP)
        chain: list[anymq.Middleware] = [Acknowledge(), DeadLetter()]
        async with receiver.subscribe(TOPIC, group=GROUP, handler=handle, middleware=chain):
            for body in BODIES:
                await sender.publish(TOPIC, body)
            await eventually(is_done)
            await eventually(has_letter)
        described = await receiver.admin.describe(TOPIC)
        assert described.name == TOPIC
    assert sorted(seen) == [("acknowledged", 1), ("rejected", 1), ("retried", 1), ("retried", 2)]


async def assert_healthy(url: str, **options: str) -> None:
    """Assert that no check of `url` has failed, and that the steps that depend on it were tried."""
    found = await diagnosis(url, **options)
    bad = [check for check in found.values() if check.outcome in ("failed", "skipped")]
    assert bad == []


async def assert_refused(url: str, topic: str) -> None:
    """Assert that the user of `url` may not publish to another topic."""
    async with anymq.connect(url) as broker:
        try:
            await broker.publish(topic, "x")
        except anymq.BrokerError:
            return
    raise AssertionError(f"the user has published to {topic}")
