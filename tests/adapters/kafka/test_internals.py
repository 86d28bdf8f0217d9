"""The parts of aiokafka that are reached into: what is relied on, and what is worked around."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from anymq_kafka.client import internals
from anymq_kafka.client.compat import AIOKafkaConsumer, TopicPartition, kafka
from anymq_kafka.client.internals import committed
from tests.adapters.kafka.support import Bench
from tests.adapters.support import Proxy

TP = TopicPartition("orders", 0)
NOT_COORDINATOR = kafka.NotCoordinatorForGroupError.errno
LOADING = kafka.GroupLoadInProgressError.errno


class Coordinator:
    """Answers OffsetFetch from a list."""

    group_id = "orders.billing"

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.lost = 0

    async def ensure_coordinator_known(self) -> None:
        await asyncio.sleep(0)

    async def _send_req(self, _: object) -> Any:
        return self.answers.pop(0)

    def coordinator_dead(self) -> None:
        self.lost += 1


def consumer_of(coordinator: Coordinator) -> Any:
    return SimpleNamespace(_coordinator=coordinator)


def answer(error: int = 0, *places: tuple[int, int, str, int]) -> SimpleNamespace:
    return SimpleNamespace(error_code=error, topics=[("orders", places)] if places else [])


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "COORDINATOR_RETRY_SECONDS", 0)


async def test_a_refusal_is_not_taken_for_no_offsets() -> None:
    """aiokafka itself would then begin anew: everything twice, or, from latest, nothing of it."""
    coordinator = Coordinator(
        answer(NOT_COORDINATOR), answer(LOADING), answer(0, (0, 7, "text", 0), (1, -1, "", 0))
    )
    found = await committed(consumer_of(coordinator), [TP])
    assert {tp: (place.offset, place.metadata) for tp, place in found.items()} == {TP: (7, "text")}
    assert coordinator.lost == 1


async def test_a_refusal_for_good_is_raised() -> None:
    coordinator = Coordinator(answer(kafka.GroupAuthorizationFailedError.errno))
    with pytest.raises(kafka.GroupAuthorizationFailedError):
        await committed(consumer_of(coordinator), [TP])
    coordinator = Coordinator(answer(0, (0, -1, "", kafka.TopicAuthorizationFailedError.errno)))
    with pytest.raises(kafka.TopicAuthorizationFailedError):
        await committed(consumer_of(coordinator), [TP])


@pytest.mark.kafka
async def test_the_private_parts_are_where_they_were(bench: Bench) -> None:
    driver = await bench.open(partitions=1)
    tp = TopicPartition(bench.name, 0)
    async with bench.consumer(group_id=f"{bench.name}.g") as consumer:
        assert await committed(consumer, [tp]) == {}
        await internals.commit_offsets(consumer, {tp: (3, "text")})
        place = (await committed(consumer, [tp]))[tp]
        assert (place.offset, place.metadata) == (3, "text")
        assert internals.generation(consumer)[0] == -1
        assert not internals.has_ended(consumer)
        internals.abandon_consumer(consumer)
        await asyncio.sleep(0)
        assert internals.has_ended(consumer)
    assert driver.native is not None
    internals.forget_topic(driver.native, bench.name)


class Silent(Proxy):
    """Lets the server answer once on each connection, and then no more."""

    def pumps(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> Iterable[Coroutine[Any, Any, None]]:
        async def up() -> None:
            while data := await reader.read(65536):
                there_writer.write(data)
            self.left.set()

        async def down() -> None:
            writer.write(await there_reader.read(65536))

        return up(), down()

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.left = asyncio.Event()


@pytest.mark.kafka
async def test_a_start_that_is_given_up_leaves_no_connection_open(server_url: str) -> None:
    async with Silent(int(server_url.rpartition(":")[2].strip("/"))) as proxy:
        consumer = AIOKafkaConsumer(bootstrap_servers=proxy.address)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await internals.start_client(consumer)
        async with asyncio.timeout(5):
            await proxy.left.wait()
        internals.abandon_consumer(consumer)
