"""The five verbs, as the server sees them."""

from __future__ import annotations

import asyncio
import time

import nats.errors
import nats.js.errors
import pytest
from nats.js import api

from anymq.driver import Reader, Received
from anymq_nats import NatsDriver
from anymq_nats.jetstream.schema import encode
from anymq_nats.messages import Delivered
from anymq_nats.source import GroupSource
from brokers import Server
from tests.adapters.nats.support import Bench, Proxy, stored
from tests.adapters.support import attempt, bodies, eventually, nothing, take

pytestmark = pytest.mark.nats


async def unsettled(bench: Bench, driver: NatsDriver, group: str = "billing") -> int:
    info = await driver.native.jetstream().consumer_info(
        bench.stream, encode(f"{bench.name}.{group}")
    )
    return info.num_ack_pending or 0


async def drop(source: Reader) -> None:
    """Leave as a process that dies: nothing is given back."""
    assert isinstance(source, GroupSource)
    source._closed = True
    source._pull.mute()
    source._pull.close()


async def test_what_is_acked_is_done_in_any_order(bench: Bench, driver: NatsDriver) -> None:
    first = await bench.join(driver, lease=1.0)
    stored(await driver.publish(bench.records(6)))
    got = await take(first, 6)
    await first.ack([got[5], got[0], got[3]])
    await drop(first)
    second = await bench.join(driver, lease=1.0)
    again = await take(second, 3)
    assert sorted(bodies(again)) == [b"1", b"2", b"4"]
    assert {received.redeliveries for received in again} == {1}
    await second.ack(again)
    await second.ack(again)
    assert await unsettled(bench, driver) == 0


async def test_a_nack_without_delay_comes_back_counted(bench: Bench, driver: NatsDriver) -> None:
    source = await bench.join(driver)
    stored(await driver.publish([bench.record(b"again")]))
    for number in range(1, 4):
        (received,) = await take(source, 1)
        assert attempt(received) == number
        assert source.known_attempt(received) is None, "a failure is not a lost consumer"
        await source.nack([bench.nack(received)])


async def test_a_nack_with_delay_is_a_message_for_later(bench: Bench, driver: NatsDriver) -> None:
    source = await bench.join(driver)
    stored(await driver.publish(bench.records(3)))
    got = await take(source, 3)
    begun = time.time()
    delays = {b"0": 1.2, b"1": 0.3, b"2": 0.8}
    await source.nack([bench.nack(received, delays[received.body]) for received in got])
    assert await unsettled(bench, driver) == 0  # they hold no place in the consumer (#6093)
    back: list[Received] = []
    while len(back) < 3:
        for received in await source.receive(3, 2.0):
            assert time.time() >= begun + delays[received.body]
            back.append(received)
    assert bodies(back) == [b"1", b"2", b"0"]
    assert {attempt(received) for received in back} == {2}


async def test_a_copy_is_for_its_group_alone(bench: Bench, driver: NatsDriver) -> None:
    groups = [await bench.join(driver, group) for group in ("a", "b", "a_b")]
    reader = await bench.join(driver, None)
    stored(await driver.publish([bench.record(b"once")]))
    taken = [await take(source, 1) for source in (*groups, reader)]
    await groups[0].nack([bench.nack(taken[0][0], 0.1)])
    await groups[1].release([bench.nack(taken[1][0], counted=False)])
    (later,) = await take(groups[0], 1)
    (released,) = await take(groups[1], 1)
    assert (attempt(later), attempt(released)) == (2, 1)
    assert await nothing(groups[2], 0.3)
    assert await nothing(reader, 0.3)


async def test_a_copy_outlives_the_retention_while_it_waits(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    await driver.declare(bench.topic(retention=1.0))
    source = await bench.join(driver, topic=bench.topic(retention=1.0))
    stored(await driver.publish([bench.record(b"later")]))
    (received,) = await take(source, 1)
    await source.nack([bench.nack(received, 2.0)])
    assert bodies(await take(source, 1)) == [b"later"]


async def test_a_released_message_is_not_counted(bench: Bench, driver: NatsDriver) -> None:
    source = await bench.join(driver)
    stored(await driver.publish([bench.record(b"free")]))
    for _ in range(3):
        (received,) = await take(source, 1)
        assert attempt(received) == 1
        await source.release([bench.nack(received, counted=False)])
    (received,) = await take(source, 1)
    await source.nack([bench.nack(received)])
    (received,) = await take(source, 1)
    assert attempt(received) == 2


async def test_a_repeated_settlement_copies_once(bench: Bench, driver: NatsDriver) -> None:
    source = await bench.join(driver)
    stored(await driver.publish([bench.record(b"one")]))
    (received,) = await take(source, 1)
    item = bench.nack(received, 0.3)
    await source.nack([item])
    received.token.settled = False  # as if the first had failed after the copy
    await source.nack([item])
    assert bodies(await take(source, 1)) == [b"one"]
    assert await nothing(source, 1.0)


async def test_a_rejected_message_is_terminated_after_its_letter(
    bench: Bench, driver: NatsDriver
) -> None:
    source = await bench.join(driver, lease=1.0)
    stored(await driver.publish(bench.records(2)))
    bad, unlucky = await take(source, 2)
    advisories = await driver.native.subscribe("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>")
    await driver.native.flush()
    await source.reject([bench.rejected(bad)], driver.publish)
    assert bench.stream in (await advisories.next_msg(timeout=5)).subject
    await advisories.unsubscribe()
    letter = bench.rejected(unlucky)
    letter.letter.topic = "nowhere"
    with pytest.raises(nats.js.errors.NoStreamResponseError):
        await source.reject([letter], driver.publish)
    assert sorted(bodies(await take(source, 2))) == [b"0", b"1"]  # a letter and the unlucky one


async def test_extending_keeps_a_message(bench: Bench, driver: NatsDriver) -> None:
    holder, other = await bench.join(driver, lease=1.0), await bench.join(driver, lease=1.0)
    stored(await driver.publish([bench.record(b"slow")]))
    (received,) = await take(holder, 1)
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        assert await nothing(other, 0.4)
        await holder.extend([received])
    await holder.ack([received])
    assert await nothing(other, 1.2)


async def test_a_settlement_after_the_lease_touches_nobody(
    bench: Bench, driver: NatsDriver
) -> None:
    late, other = await bench.join(driver, lease=3.0), await bench.join(driver, lease=3.0)
    stored(await driver.publish([bench.record(b"whose")]))
    (stale,) = await take(late, 1)
    (fresh,) = await take(other, 1)
    assert fresh.redeliveries == 1
    await late.ack([stale])
    await late.nack([bench.nack(stale), bench.nack(stale, 0.1)])
    await late.release([bench.nack(stale, counted=False)])
    await late.reject([bench.rejected(stale)], driver.publish)
    await late.extend([stale])
    assert await unsettled(bench, driver) == 1
    assert await nothing(late, 0.2)
    await other.ack([fresh])
    assert await unsettled(bench, driver) == 0


async def test_a_lease_begins_when_the_request_could_have_been_served(
    bench: Bench, driver: NatsDriver
) -> None:
    """A process that slept finds messages in its socket whose leases are long gone."""
    source = await bench.member(driver, lease=3.0)
    assert await nothing(source, 0.01)
    stored(await driver.publish([bench.record(b"old")]))
    for request in source._pull._requests:
        request.expires -= 100.0

    async def arrived() -> bool:
        return bool(source._pull.buffer)

    await eventually(arrived)
    raw = source._pull.buffer[0]
    raw.expires -= 100.0
    assert await source.receive(1, 0.1) == []
    (received,) = await take(source, 1)
    assert received.redeliveries == 1


@pytest.mark.parametrize("create", [True, False])
async def test_without_private_subjects_naks_do_it(bench: Bench, create: bool) -> None:
    driver = await bench.open(declare=False)
    js = driver.native.jetstream()
    await js.add_stream(name=bench.stream, subjects=[bench.name])
    spec = bench.topic(create=create)
    await driver.declare(spec)
    source = await bench.join(driver, topic=spec)
    stored(await driver.publish(bench.records(2)))
    one, two = await take(source, 2)
    begun = time.time()
    await source.nack([bench.nack(one, 1.0)])
    await source.release([bench.nack(two, counted=False)])
    assert bodies(await take(source, 1)) == [b"1"]
    (back,) = await take(source, 1)
    assert time.time() >= begun + 1.0
    assert (back.body, attempt(back)) == (b"0", 2)
    assert (await js.stream_info(bench.stream)).config.subjects == [bench.name]


async def test_without_schedules_the_consumer_keeps_the_delay(bench: Bench) -> None:
    driver = await bench.open(declare=False)
    subjects = [bench.name, f"{bench.name}._retry.*"]
    await driver.native.jetstream().add_stream(
        api.StreamConfig(name=bench.stream, subjects=subjects)
    )
    await driver.declare(bench.topic())
    source = await bench.join(driver)
    stored(await driver.publish([bench.record(b"x")]))
    (received,) = await take(source, 1)
    begun = time.time()
    await source.nack([bench.nack(received, 0.7)])
    (received,) = await take(source, 1)
    assert time.time() >= begun + 0.7
    assert attempt(received) == 2
    await source.release([bench.nack(received, counted=False)])
    (received,) = await take(source, 1)
    assert attempt(received) == 2


async def test_a_settlement_that_cannot_be_told_raises_and_can_be_repeated(
    bench: Bench, server_url: str
) -> None:
    async with Proxy(int(server_url.rpartition(":")[2])) as proxy, Bench(proxy.url) as other:
        driver = await other.open(request_timeout=0.5)
        source = await other.join(driver)
        stored(await driver.publish([other.record(b"x")]))
        (received,) = await take(source, 1)
        proxy.flowing.clear()
        begun = time.monotonic()
        with pytest.raises(nats.errors.TimeoutError):
            await source.ack([received])
        assert time.monotonic() - begun < 10
        assert isinstance(received.token, Delivered)
        assert not received.token.settled
        proxy.cut()
        proxy.flowing.set()

        async def acked() -> bool:
            try:
                await source.ack([received])
            except (nats.errors.Error, OSError):
                return False
            return True

        await eventually(acked)
        assert await unsettled(other, driver) == 0


@pytest.mark.xdist_group("nats-faults")
@pytest.mark.parametrize("graceful", [False, True], ids=["kill", "restart"])
async def test_delayed_nacks_survive_the_server(faulty: Server, graceful: bool) -> None:
    """None early, none lost; what was acked just before a kill may come twice."""
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver, lease=60.0)
        stored(await driver.publish(bench.records(200)))
        got = await take(source, 200)
        await asyncio.gather(
            *[
                source.nack([bench.nack(received, 3.0) for received in got[at : at + 50]])
                for at in range(0, 200, 50)
            ]
        )
        due = time.time() + 3.0
        await asyncio.to_thread(faulty.restart if graceful else faulty.kill)
        await asyncio.to_thread(faulty.up)
        back: dict[bytes, Received] = {}
        early: list[bytes] = []
        until = time.monotonic() + 30
        while len(back) < 200 and time.monotonic() < until:
            for received in await _through(source):
                if "anymq-attempt" in received.headers:
                    back[received.body] = received
                    early += [received.body] if time.time() < due - 0.5 else []
        assert len(back) == 200
        assert early == []
        assert {attempt(received) for received in back.values()} == {2}


async def _through(source: Reader) -> list[Received]:
    try:
        return list(await source.receive(100, 0.5))
    except (nats.errors.Error, OSError):
        return []


@pytest.mark.xdist_group("nats-faults")
async def test_a_member_goes_on_after_the_server_was_killed(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open()
        source = await bench.join(driver)
        stored(await driver.publish(bench.records(100)))
        held = await take(source, 40)
        reading = asyncio.create_task(_through(source))
        await asyncio.to_thread(faulty.kill)
        await asyncio.to_thread(faulty.up)
        held += await reading

        async def all_there() -> bool:
            held.extend(await _through(source))
            return len(set(bodies(held))) == 100

        async def acked() -> bool:
            try:
                await source.ack(held)
            except (nats.errors.Error, OSError):
                return False
            return True

        await eventually(all_there)
        await eventually(acked)
        stored(await driver.publish([bench.record(b"new")]))
        begun = time.monotonic()
        while b"new" not in bodies(await _through(source)):
            assert time.monotonic() - begun < 30


@pytest.mark.xdist_group("nats-faults")
async def test_closing_ends_while_the_server_is_dead_or_stopped(faulty: Server) -> None:
    for how in ("pause", "kill"):
        async with Bench(faulty.url) as bench:
            driver = await bench.open()
            source = await bench.join(driver)
            reader = await bench.join(driver, None)
            stored(await driver.publish(bench.records(3)))
            await take(source, 1)
            getattr(faulty, how)()
            begun = time.monotonic()
            await source.aclose()
            await reader.aclose()
            await driver.aclose()
            assert time.monotonic() - begun < 25, how
            faulty.up()
