"""Members and groups: who gets what, and in which form."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.aio.msg import Msg

from anymq.driver import SourceLost
from anymq_nats import NatsDriver
from anymq_nats.jetstream.schema import encode
from tests.adapters.nats.support import Bench, stored
from tests.adapters.support import bodies, eventually, nothing, take

pytestmark = pytest.mark.nats


async def test_members_share_and_groups_do_not(bench: Bench, driver: NatsDriver) -> None:
    one, two = await bench.join(driver, "a"), await bench.join(await bench.open(), "a")
    other = await bench.join(driver, "b")
    stored(await driver.publish(bench.records(40)))
    shares: list[bytes] = []

    async def all_taken() -> bool:
        for member in (one, two):
            got = await member.receive(5, 0.1)
            shares.extend(bodies(got))
            await member.ack(got)
        return len(shares) >= 40

    await eventually(all_taken)
    assert sorted(shares, key=int) == [b"%d" % number for number in range(40)]
    assert bodies(await take(other, 40)) == [b"%d" % number for number in range(40)]


async def test_where_a_new_group_begins(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish([bench.record(b"before")]))
    late = await bench.join(driver, "late", start="latest")
    early = await bench.join(driver, "early", start="earliest")
    stored(await driver.publish([bench.record(b"after")]))
    assert bodies(await take(late, 1)) == [b"after"]
    assert bodies(await take(early, 2)) == [b"before", b"after"]


async def test_a_group_exists_once_subscribe_returns(bench: Bench, driver: NatsDriver) -> None:
    first = await bench.join(driver, start="latest")
    await first.aclose()
    stored(await driver.publish([bench.record(b"meanwhile")]))
    again = await bench.join(driver, start="latest")
    assert bodies(await take(again, 1)) == [b"meanwhile"]


async def test_a_member_takes_no_more_than_its_credit(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish(bench.records(50)))
    member = await bench.join(driver)
    held = await take(member, 7)
    assert await member.receive(0, 0.1) == ()
    info = await driver.native.jetstream().consumer_info(
        bench.stream, encode(f"{bench.name}.billing")
    )
    assert info.num_ack_pending == 7
    await member.ack(held)
    assert bodies(await take(member, 43)) == [b"%d" % number for number in range(7, 50)]


async def test_a_foreign_message_is_received(bench: Bench, driver: NatsDriver) -> None:
    member = await bench.join(driver)
    js = driver.native.jetstream()
    await js.publish(bench.name, b"plain")
    await js.publish(bench.name, b"with", headers={"X-Theirs": "00-1"})
    plain, with_headers = await take(member, 2)
    assert (plain.body, dict(plain.headers), plain.position) == (b"plain", {}, "1")
    assert plain.time is not None
    assert with_headers.headers["X-Theirs"] == "00-1"
    assert isinstance(plain.native, Msg)
    assert plain.native.metadata.sequence.stream == 1


async def test_another_client_reads_what_was_published(bench: Bench, driver: NatsDriver) -> None:
    stored(await driver.publish([bench.record(b"body", headers={"ce-type": "t"})]))
    reader = await driver.native.jetstream().pull_subscribe(bench.name, durable="theirs")
    (message,) = await reader.fetch(1)
    assert message.data == b"body"
    assert message.headers is not None
    assert message.headers["ce-type"] == "t"
    await reader.unsubscribe()


async def test_what_comes_after_the_request_is_handed_out_later(
    bench: Bench, driver: NatsDriver
) -> None:
    member = await bench.join(driver)
    assert await nothing(member, 0.05)
    stored(await driver.publish(bench.records(3)))
    assert bodies(await take(member, 3)) == [b"0", b"1", b"2"]


async def test_closing_gives_back_uncounted_what_was_not_handed_out(
    bench: Bench, driver: NatsDriver
) -> None:
    leaving = await bench.member(driver)
    assert await nothing(leaving, 0.05)
    stored(await driver.publish([*bench.records(29), bench.record(b"last")]))

    async def all_there() -> bool:
        return len(leaving._pull.buffer) == 30

    await eventually(all_there)
    got = await take(leaving, 10)
    await leaving.ack(got)
    await leaving.aclose()
    staying = await bench.join(driver)
    left = await take(staying, 20)
    assert {received.redeliveries for received in left} == {0}
    await staying.ack(left)
    assert await nothing(staying, 0.3)


async def test_a_cancelled_read_loses_nothing(bench: Bench, driver: NatsDriver) -> None:
    member = await bench.join(driver)
    reading = asyncio.create_task(member.receive(10, 2.0))
    await asyncio.sleep(0)
    reading.cancel()
    stored(await driver.publish(bench.records(3)))
    assert bodies(await take(member, 3)) == [b"0", b"1", b"2"]


@pytest.mark.parametrize("what", ["consumer", "stream"])
async def test_a_source_whose_consumer_is_gone_is_lost(
    bench: Bench, driver: NatsDriver, what: str
) -> None:
    member = await bench.join(driver)
    js = driver.native.jetstream()
    reading = asyncio.create_task(member.receive(10, 2.0))
    await asyncio.sleep(0)
    await driver.ping()
    if what == "consumer":
        await js.delete_consumer(bench.stream, encode(f"{bench.name}.billing"))
    else:
        await js.delete_stream(bench.stream)
    with pytest.raises(SourceLost):
        await reading
    with pytest.raises(SourceLost):
        await member.receive(10, 1.0)


async def test_a_source_finds_out_that_its_consumer_went_while_it_was_not_reading(
    bench: Bench, driver: NatsDriver
) -> None:
    member = await bench.join(driver)
    await driver.native.jetstream().delete_consumer(bench.stream, encode(f"{bench.name}.billing"))
    with pytest.raises(SourceLost):
        await member.receive(10, 2.0)


async def test_a_paused_consumer_is_not_lost_and_a_stuck_one_is(
    bench: Bench, driver: NatsDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nats-server #5839: messages wait, and none is delivered.
    member = await bench.member(driver)
    js = driver.native.jetstream()
    name = encode(f"{bench.name}.billing")
    await js.pause_consumer(bench.stream, name, "2100-01-01T00:00:00Z")
    stored(await driver.publish(bench.records(1)))
    assert await nothing(member, 0.1)
    assert await member.undelivered() is None
    asked = member._pull.info

    async def as_if_it_ran() -> dict[str, object]:
        return {**await asked(), "paused": False}

    monkeypatch.setattr(member._pull, "info", as_if_it_ran)
    seen = await member.undelivered()
    assert seen is not None
    assert seen == await member.undelivered()
    stored(await driver.publish(bench.records(1)))
    assert seen == await member.undelivered()
    await js.resume_consumer(bench.stream, name)


async def test_what_was_deleted_before_a_group_read_it_is_said(
    bench: Bench, driver: NatsDriver, caplog: pytest.LogCaptureFixture
) -> None:
    await (await bench.join(driver, "new")).aclose()
    source = await bench.join(driver)
    stored(await driver.publish(bench.records(2)))
    await source.ack(await take(source, 2))
    await source.aclose()
    stored(await driver.publish(bench.records(6)))
    assert not caplog.records
    js = driver.native.jetstream()
    info = await js.stream_info(bench.stream)
    info.config.max_msgs = 3
    await js.update_stream(info.config)
    member = await bench.join(driver)
    (line,) = [one for one in caplog.messages if "may have been deleted" in one]
    assert "sequences 3 to 5 are gone" in line
    assert len(await take(member, 3)) == 3
    await (await bench.join(driver, "newer")).aclose()
    assert len([one for one in caplog.messages if "may have been deleted" in one]) == 1


async def test_a_consumer_may_bound_a_request(bench: Bench, driver: NatsDriver) -> None:
    config = {"durable_name": "bounded", "ack_policy": "explicit", "ack_wait": 60 * 10**9}
    config |= {"filter_subject": bench.name, "max_batch": 2}
    await driver.native.request(
        f"$JS.API.CONSUMER.DURABLE.CREATE.{bench.stream}.bounded",
        json.dumps({"stream_name": bench.stream, "config": config}).encode(),
    )
    stored(await driver.publish(bench.records(5)))
    member = await bench.join(driver, native_group="bounded", create=False)
    assert len(await take(member, 5)) == 5
