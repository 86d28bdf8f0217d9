"""Publishing remembers topics: never one for another."""

from __future__ import annotations

import anymq
from anymq import Topic


class Name(str):
    """A text that is not quite a `str`."""


async def test_topics_that_come_and_go_are_not_mistaken() -> None:
    async with anymq.connect("memory://outlets") as broker:
        for number in range(3000):
            name = f"t{number % 7}"
            topic = (name, Name(name), Topic(name))[number % 3]
            receipt = await broker.publish(topic, b"")
            assert receipt.topic == name


async def test_a_payload_is_checked_whatever_came_before() -> None:
    numbers = Topic[int]("numbers", int)
    async with anymq.connect("memory://checked") as broker:
        await broker.publish(numbers, 1)
        for wrong in ("text", b"bytes", None):
            outcome = await _refused(broker, numbers, wrong)
            assert "carries int" in outcome


async def _refused(broker: anymq.Broker, topic: Topic[int], payload: object) -> str:
    try:
        await broker.publish(topic, payload)  # type: ignore[misc]
    except anymq.ConfigurationError as error:
        return str(error)
    return "published"
