"""Publishing: what arrives, and what becomes of each record."""

from __future__ import annotations

import asyncio
import os
import time
from types import SimpleNamespace

import nats.errors
import nats.js.errors
import pytest

from anymq import connect
from anymq.driver import TopicSpec
from anymq.testing.tools import bodies, take_acked
from anymq_nats import NatsDriver
from anymq_nats.errors import NoPubAck, NotServed, TooLarge
from brokers import Server
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import take

pytestmark = pytest.mark.nats


@pytest.mark.parametrize(
    "body", [b"", b"\r\nMSG a 1 0\r\n", bytes(range(256)), os.urandom(1_000_000)], ids=len
)
async def test_a_body_arrives_unchanged(bench: Bench, driver: NatsDriver, body: bytes) -> None:
    source = await bench.join(driver)
    stored(await driver.publish([bench.record(body)]))
    (received,) = await take(source, 1)
    assert received.body == body
    await source.ack([received])


async def test_header_values_arrive_as_they_are(bench: Bench, driver: NatsDriver) -> None:
    # nats-py would trim them.
    headers = {"x-blank": "  both ends ", "x-text": "grüße ✓ 🎉", "x-empty": "", "X-Case": "a: b"}
    source = await bench.join(driver)
    stored(await driver.publish([bench.record(headers=headers)]))
    (received,) = await take(source, 1)
    assert {name: received.headers[name] for name in headers} == headers


async def test_positions_are_the_streams_sequence(bench: Bench, driver: NatsDriver) -> None:
    assert stored(await driver.publish(bench.records(3))) == ["1", "2", "3"]
    source = await bench.join(driver)
    assert [received.position for received in await take(source, 3)] == ["1", "2", "3"]


async def test_a_foreign_id_swallows_no_message(
    server_url: str, bench: Bench, driver: NatsDriver
) -> None:
    async with connect(server_url) as broker:
        await broker.publish(bench.name, "first")
        for name in ("o-17", "anymq:o-17", "o-18"):
            headers = {"Nats-Msg-Id": name}
            await driver.native.jetstream().publish(bench.name, b"junk", headers=headers)
        assert not (await broker.publish(bench.name, "genuine", id="o-17")).duplicate
        later = await broker.publish(bench.name, "later", id="o-18", delay=0.2)
        assert not later.duplicate
        async with broker.subscribe(bench.name, group="g") as deliveries:
            received = bodies(await take_acked(deliveries, 6))
    assert received.count("junk") == 3
    assert {"first", "genuine", "later"} <= set(received)


async def test_each_record_has_its_own_outcome(bench: Bench, driver: NatsDriver) -> None:
    records = bench.records(4)
    records[1].body = b"x" * (driver.native.max_payload + 1)
    records[2].headers["x"] = "line\r\nbreak"
    records[3].topic = "never-declared"
    outcomes = await driver.publish(records)
    assert outcomes[0] == "1"
    assert isinstance(outcomes[1], TooLarge)
    assert isinstance(outcomes[2], nats.errors.BadHeaderError)
    assert isinstance(outcomes[3], nats.js.errors.NoStreamResponseError)
    assert driver.native.is_connected


async def test_headers_count_towards_the_limit(bench: Bench, driver: NatsDriver) -> None:
    (outcome,) = await driver.publish([bench.record(b"x" * driver.native.max_payload)])
    assert isinstance(outcome, TooLarge)
    await driver.ping()


async def test_a_repeated_publish_is_stored_once(bench: Bench, driver: NatsDriver) -> None:
    record = bench.record(b"once")
    first = stored(await driver.publish([record, record]))
    assert first == stored(await driver.publish([record]))[:1] * 2
    info = await driver.native.jetstream().stream_info(bench.stream)
    assert info.state.messages == 1


async def test_a_topic_that_is_gone_is_not_found(bench: Bench, driver: NatsDriver) -> None:
    await driver.native.jetstream().delete_stream(bench.stream)
    (outcome,) = await driver.publish([bench.record()])
    assert isinstance(outcome, nats.js.errors.NoStreamResponseError)
    await driver.declare(bench.topic())
    stored(await driver.publish([bench.record()]))


async def test_a_stream_without_a_leader_is_not_missing(
    bench: Bench, driver: NatsDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server's answer is the same: no responders.
    await driver.native.jetstream().delete_stream(bench.stream)

    async def elected_later(verb: str, body: object) -> dict[str, object]:
        return {"streams": [bench.stream]}

    monkeypatch.setattr(driver._connection, "api", elected_later)
    (outcome,) = await driver.publish([bench.record()])
    assert isinstance(outcome, NotServed)


async def test_a_full_stream_says_so(bench: Bench, driver: NatsDriver) -> None:
    js = driver.native.jetstream()
    await js.delete_stream(bench.stream)
    await js.add_stream(
        name=bench.stream, subjects=[bench.name], max_msgs=1, discard=nats.js.api.DiscardPolicy.NEW
    )
    outcomes = await driver.publish(bench.records(2))
    assert outcomes[0] == "1"
    assert isinstance(outcomes[1], nats.js.errors.APIError)
    assert outcomes[1].err_code == 10077


async def test_a_subject_that_nobody_stores_ends_in_time(bench: Bench) -> None:
    # Somebody listens, so the server does not say "no responders", but nobody confirms.
    driver = await bench.open(declare=False, request_timeout=0.5)
    await driver.declare(TopicSpec(name="t", native=f"{bench.name}.unstored", create=False))
    subscription = await driver.native.subscribe(f"{bench.name}.unstored")
    await driver.native.flush()
    begun = time.monotonic()
    (outcome,) = await driver.publish([bench.record(name="t")])
    assert isinstance(outcome, NoPubAck)
    assert time.monotonic() - begun < 10
    await subscription.unsubscribe()


async def test_concurrent_batches_do_not_mix(bench: Bench, driver: NatsDriver) -> None:
    batches = [bench.records(20) for _ in range(10)]
    outcomes = await asyncio.gather(*[driver.publish(batch) for batch in batches])
    positions = [int(position) for batch in outcomes for position in stored(batch)]
    assert sorted(positions) == list(range(1, 201))
    assert all(stored(batch) == sorted(stored(batch), key=int) for batch in outcomes)


@pytest.mark.xdist_group("nats-faults")
async def test_a_stopped_server_is_not_waited_for(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open(request_timeout=1.0)
        record = bench.record(b"kept")
        faulty.pause()
        begun = time.monotonic()
        (outcome,) = await driver.publish([record])
        assert isinstance(outcome, NoPubAck)
        assert time.monotonic() - begun < 15
        faulty.resume()
        # It may have been stored: the repetition is not stored again.
        stored(await driver.publish([record]))
        info = await driver.native.jetstream().stream_info(bench.stream)
        assert info.state.messages == 1


@pytest.mark.xdist_group("nats-faults")
async def test_a_dead_server_fails_at_once_and_a_new_one_is_found(faulty: Server) -> None:
    async with Bench(faulty.url) as bench:
        driver = await bench.open(request_timeout=1.0)
        faulty.kill()
        begun = time.monotonic()
        with pytest.raises((nats.errors.Error, OSError)):
            stored(await driver.publish([bench.record()]))
        assert time.monotonic() - begun < 15
        faulty.up()
        again = bench.record()
        outcome = SimpleNamespace(stored=False)
        while not outcome.stored and time.monotonic() - begun < 60:
            try:
                stored(await driver.publish([again]))
                outcome.stored = True
            except (nats.errors.Error, OSError):
                continue  # it waited for the connection
        assert outcome.stored
