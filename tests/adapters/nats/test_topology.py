"""Streams and consumers: what is made, what is found, what is refused."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import nats.js.errors
import pytest
from nats.js import api

from anymq.errors import ConfigurationError
from anymq_nats import NatsDriver
from anymq_nats.jetstream.schema import encode
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import take

pytestmark = pytest.mark.nats


async def test_a_topic_is_a_stream_with_its_subject(bench: Bench) -> None:
    driver = await bench.open(declare=False, max_age=0)
    await driver.declare(bench.topic(retention=3600))
    config = (await driver.native.jetstream().stream_info(encode(bench.name))).config
    assert config.subjects is not None
    assert config.subjects[0] == bench.name
    assert config.storage == api.StorageType.FILE
    assert config.discard == api.DiscardPolicy.OLD
    assert config.max_age == 3600
    assert config.duplicate_window == 120
    assert config.allow_msg_schedules


async def test_a_short_retention_bounds_the_duplicate_window(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(retention=30))
    config = (await driver.native.jetstream().stream_info(encode(bench.name))).config
    assert config.max_age == config.duplicate_window == 30


async def test_a_group_is_a_durable_pull_consumer(bench: Bench, driver: NatsDriver) -> None:
    await bench.join(driver, "billing", lease=7.0)
    info = await driver.native.jetstream().consumer_info(
        bench.stream, encode(f"{bench.name}.billing")
    )
    assert info.config.ack_wait == 7
    assert info.config.ack_policy == api.AckPolicy.EXPLICIT
    assert info.config.max_deliver == -1
    assert info.config.max_ack_pending == -1
    assert info.config.deliver_subject is None
    assert info.config.filter_subjects is not None
    assert bench.name in info.config.filter_subjects


async def test_topics_that_look_alike_have_streams_of_their_own(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    names = [f"{bench.name}{rest}" for rest in ("", ".a", "_a", ".a_b", ".a.b", "_a.b")]
    for name in names:
        await driver.declare(bench.topic(name))
        stored(await driver.publish([bench.record(name.encode(), name=name)]))
    js = driver.native.jetstream()
    for name in names:
        assert (await js.stream_info(encode(name))).state.messages == 1
        if name != bench.name:
            await js.delete_stream(encode(name))


async def test_an_existing_stream_is_used(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    js = driver.native.jetstream()
    await js.add_stream(name=f"{bench.name}-mine", subjects=[f"{bench.name}.>", bench.name])
    await driver.declare(bench.topic())
    stored(await driver.publish([bench.record(b"there")]))
    assert (await js.stream_info(f"{bench.name}-mine")).state.messages == 1
    source = await bench.join(driver)
    (received,) = await take(source, 1)
    assert received.body == b"there"
    await source.aclose()
    await js.delete_stream(f"{bench.name}-mine")
    await driver.declare(bench.topic())


async def test_a_mapped_topic_is_never_made(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    spec = bench.topic("billing-events", native=bench.name, create=False)
    await driver.declare(spec)
    (outcome,) = await driver.publish([bench.record(name="billing-events")])
    assert isinstance(outcome, nats.js.errors.NoStreamResponseError)
    with pytest.raises(nats.js.errors.NotFoundError):
        await bench.join(driver, topic=spec)
    await driver.declare(bench.topic())
    stored(await driver.publish([bench.record(name="billing-events")]))
    await take(await bench.join(driver, topic=spec), 1)


async def test_a_mapped_group_is_never_made(bench: Bench, driver: NatsDriver) -> None:
    with pytest.raises(nats.js.errors.NotFoundError):
        await bench.join(driver, native_group="by_hand", create=False)
    await driver.native.jetstream().add_consumer(
        bench.stream,
        api.ConsumerConfig(
            durable_name="by_hand",
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=60,
            filter_subject=bench.name,
        ),
    )
    stored(await driver.publish([bench.record()]))
    await take(await bench.join(driver, native_group="by_hand", create=False), 1)


@pytest.mark.parametrize(
    "config",
    [
        {"ack_policy": api.AckPolicy.NONE},
        {"ack_policy": api.AckPolicy.EXPLICIT, "max_deliver": 3, "ack_wait": 60},
        {"ack_policy": api.AckPolicy.EXPLICIT, "ack_wait": 5},
        {"ack_policy": api.AckPolicy.EXPLICIT, "ack_wait": 60, "deliver_subject": "elsewhere"},
    ],
    ids=["no acks", "max_deliver", "short ack_wait", "push"],
)
async def test_a_consumer_that_would_break_the_contract_is_refused(
    bench: Bench, driver: NatsDriver, config: dict[str, Any]
) -> None:
    await driver.native.jetstream().add_consumer(
        bench.stream, api.ConsumerConfig(durable_name="theirs", **config)
    )
    with pytest.raises(ConfigurationError, match="theirs"):
        await bench.join(driver, native_group="theirs")


async def test_another_ack_deadline_changes_the_consumer(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(2)))
    first = await bench.join(driver, lease=30.0)
    (one,) = await take(first, 1)
    await first.ack([one])
    await first.aclose()
    second = await bench.join(driver, lease=12.0, start="latest")
    info = await driver.native.jetstream().consumer_info(
        bench.stream, encode(f"{bench.name}.billing")
    )
    assert info.config.ack_wait == 12
    (two,) = await take(second, 1)
    assert two.body == b"1"


async def test_a_stream_made_before_schedules_is_brought_up_to_date(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    js = driver.native.jetstream()
    await js.add_stream(name=bench.stream, subjects=[bench.name], metadata={"anymq": "1"})
    await driver.declare(bench.topic())
    config = (await js.stream_info(bench.stream)).config
    assert config.allow_msg_schedules
    assert config.subjects is not None
    assert len(config.subjects) == 3


async def test_drivers_may_declare_and_subscribe_at_once(bench: Bench) -> None:
    drivers = [await bench.open(declare=False) for _ in range(4)]
    await asyncio.gather(*[driver.declare(bench.topic()) for driver in drivers])
    sources = await asyncio.gather(*[bench.join(driver) for driver in drivers])
    stored(await drivers[0].publish(bench.records(1)))
    found = await asyncio.gather(*[source.receive(10, 1.0) for source in sources])
    assert sum(len(some) for some in found) == 1


_PROCESS = """
import asyncio, sys
from tests.adapters.nats.support import Bench

async def main(url, name):
    bench = Bench(url)
    bench.name = name
    driver = await bench.open()
    source = await bench.join(driver)
    await source.aclose()
    await driver.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_may_declare_and_subscribe_at_once(
    bench: Bench, server_url: str, pytestconfig: pytest.Config
) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROCESS, server_url, bench.name, cwd=pytestconfig.rootpath
        )
        for _ in range(3)
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    driver = await bench.open(declare=False)
    info = await driver.native.jetstream().stream_info(bench.stream)
    assert info.state.consumer_count == 1
