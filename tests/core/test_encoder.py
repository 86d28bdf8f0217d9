"""The cached encoders of topics: never one for another."""

from __future__ import annotations

import anymq
from anymq import Topic


class Name(str):
    """A subclass of `str`."""


async def test_reused_topic_identities_are_not_confused() -> None:
    async with anymq.connect("memory://outlets") as broker:
        for number in range(3000):
            name = f"t{number % 7}"
            topic = (name, Name(name), Topic(name))[number % 3]
            receipt = await broker.publish(topic, b"")
            assert receipt.topic == name


async def test_every_payload_is_checked_also_after_a_valid_one() -> None:
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
