"""`LeasedSource`, call by call: counts, cursors, waits and handovers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

import pytest

from anymq.driver import Begun, Due, Listener, Received, SourceLost
from anymq.driver.ordered import LeasedSource, cursor_of, seek, state
from anymq.driver.ordered.log import Cell
from anymq.driver.ordered.source import MAX_READ_AHEAD
from anymq.errors import NotFound, StateError

from .simulated import LEASE, Broker, Process, ProcessClock, SimulatedLog, nack, spec_of

T = TypeVar("T")


class Joined(Listener):
    """A source on a process of its own, and the partitions that were revoked from it."""

    def __init__(self, broker: Broker, name: str, **changes: object) -> None:
        self.broker = broker
        self.process = Process(broker)
        self.log = SimulatedLog(self.process)
        self.revoked: list[tuple[set[int], bool]] = []
        spec = spec_of(broker, name, **changes)
        self.source = LeasedSource(self.log, spec, self, ProcessClock(self.process))

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        self.revoked.append((set(partitions), gone))

    async def receive(self, limit: int = 100, wait: float = 1.0) -> list[Received]:
        return list(await passing(self.broker, self.source.receive(limit, wait)))

    def crash(self) -> None:
        self.process.stop()


async def joined(broker: Broker, name: str = "m", **changes: object) -> Joined:
    member = Joined(broker, name, **changes)
    await member.source.start()
    return member


async def passing(broker: Broker, work: Awaitable[T]) -> T:
    """Advance the clock until `work` is done."""
    task = asyncio.ensure_future(work)
    await broker.clock.settle()
    while not task.done():
        await broker.clock.advance(0.05)
    return await task


def counts(records: list[Received]) -> dict[str, int]:
    return {record.position: record.redeliveries for record in records}


def known(member: Joined, records: list[Received]) -> list[int | None]:
    return [member.source.known_attempt(record) for record in records]


def dues(records: list[Received]) -> dict[str, Due | None]:
    return {record.position: record.not_before for record in records}


async def test_a_start_that_ends_in_a_crash_is_counted_and_a_delivery_is_not() -> None:
    broker = Broker(1)
    broker.publish(0, 3)
    for times in range(4):
        member = await joined(broker, f"m{times}")
        await broker.clock.advance(LEASE + 2)
        records = await member.receive()
        assert known(member, records) == ([1 + times, 1, 1] if times else [None] * 3)
        begun = member.source.begin([Begun(records[0], 2 + times)])
        await passing(broker, begun)
        member.crash()


async def test_a_start_is_not_counted_if_the_member_leaves() -> None:
    broker = Broker(1)
    broker.publish(0, 1)
    first = await joined(broker, "first")
    (record,) = await first.receive()
    await passing(broker, first.source.begin([Begun(record, 2)]))
    await first.source.aclose()
    second = await joined(broker, "second")
    records = await second.receive()
    assert (counts(records), known(second, records)) == ({"0-0": 0}, [None])


async def test_a_released_delivery_is_not_counted() -> None:
    broker = Broker(1)
    broker.publish(0, 3)
    for name in "abc":
        member = await joined(broker, name)
        assert counts(await member.receive()) == {"0-0": 0, "0-1": 0, "0-2": 0}
        await member.source.aclose()


async def test_the_next_source_of_a_subscription_continues_at_once_and_counts_nothing() -> None:
    broker = Broker(1)
    broker.publish(0, 2)
    first = await joined(broker, "process-1")
    assert len(await first.receive()) == 2
    first.crash()
    other = await joined(broker, "another-2")
    assert await other.receive() == []
    second = await joined(broker, "process-2")
    assert counts(await second.receive()) == {"0-0": 0, "0-1": 0}


async def test_only_delivered_records_are_in_doubt() -> None:
    broker = Broker(1)
    broker.publish(0, 6)
    first = await joined(broker, "first")
    await first.receive(4)
    first.crash()
    second = await joined(broker, "second")
    await broker.clock.advance(LEASE + 2)
    records = await second.receive(2)
    assert known(second, records) == [1, 1]
    await passing(broker, second.source.begin([Begun(records[1], 3)]))
    second.crash()
    third = await joined(broker, "third")
    await broker.clock.advance(LEASE + 2)
    records = await third.receive()
    assert known(third, records) == [1, 3, 1, 1, None, None]
    await third.source.aclose()
    fourth = await joined(broker, "fourth")
    records = await fourth.receive()
    # The member that left started none of them, so it is unknown whether the first one did.
    assert list(counts(records).values()) == [1, 2, 1, 1, 0, 0]
    assert known(fourth, records) == [1, 3, 1, 1, None, None]


async def test_a_failure_after_a_noted_start_outlives_a_crash() -> None:
    broker = Broker(1)
    broker.publish(0, 1)
    first = await joined(broker, "first")
    await first.receive()
    first.crash()
    second = await joined(broker, "second")
    await broker.clock.advance(LEASE + 2)
    (record,) = await second.receive()
    await passing(broker, second.source.begin([Begun(record, 3)]))
    await passing(broker, second.source.keep([nack(record, 4)]))
    second.crash()
    third = await joined(broker, "third")
    await broker.clock.advance(LEASE + 2)
    assert counts(await third.receive()) == {"0-0": 3}


async def test_a_released_delivery_is_not_counted_when_the_next_owner_crashes() -> None:
    broker = Broker(1)
    broker.publish(0, 6)
    first = await joined(broker, "first")
    records = await first.receive()
    await first.source.ack([records[3], records[5]])
    await first.source.aclose()
    second = await joined(broker, "second")
    await second.receive(2)
    second.crash()
    third = await joined(broker, "third")
    await broker.clock.advance(LEASE + 2)
    assert counts(await third.receive()) == {"0-0": 1, "0-1": 1, "0-2": 0, "0-4": 0}


@pytest.mark.parametrize("clean", [True, False])
async def test_kept_attempts_are_shown_to_the_next_owner(clean: bool) -> None:
    broker = Broker(1)
    broker.publish(0, 3)
    member = await joined(broker, "a")
    _, failed, _ = await member.receive()
    await member.source.keep([nack(failed, 2)])
    await member.source.keep([nack(failed, 3)])
    if clean:
        await member.source.aclose()
    else:
        member.crash()
    following = await joined(broker, "b")
    await broker.clock.advance(LEASE + 2)
    others = 0 if clean else 1
    assert counts(await following.receive()) == {"0-0": others, "0-1": 2, "0-2": others}


async def test_a_due_time_is_shown_to_all_owners_until_the_next_attempt() -> None:
    broker = Broker(1)
    broker.publish(0, 3)
    due = Due(5000.0, 30.0)
    first = await joined(broker, "a")
    records = await first.receive()
    await first.source.keep([nack(records[0], 2, due), nack(records[2], 2, due)])
    await first.source.ack([records[2]])
    await first.source.aclose()
    second = await joined(broker, "b")
    assert dues(await second.receive(1)) == {"0-0": due}
    await second.source.aclose()
    third = await joined(broker, "c")
    again = await third.receive()
    assert dues(again) == {"0-0": due, "0-1": None}
    await third.source.keep([nack(again[0], 3)])
    third.crash()
    fourth = await joined(broker, "d")
    await broker.clock.advance(LEASE + 2)
    assert dues(await fourth.receive()) == {"0-0": None, "0-1": None}


async def test_acks_in_any_order_are_remembered_in_one_write() -> None:
    broker = Broker(3)
    for partition in range(3):
        broker.publish(partition, 4)
    member = await joined(broker)
    records = {record.position: record for record in await member.receive()}
    saves = broker.calls["save"]
    await member.source.ack([records[name] for name in ("0-3", "0-0", "1-2", "2-0", "2-1")])
    await member.source.ack([records["0-0"]])
    assert broker.calls["save"] == saves + 1
    cursors = {number: cursor_of(cell.value) for number, cell in broker.cells.items()}
    assert cursors == {0: "0-0", 1: "", 2: "2-1"}
    member.crash()
    following = await joined(broker, "b")
    await broker.clock.advance(LEASE + 2)
    left = set(records) - {"0-3", "0-0", "1-2", "2-0", "2-1"}
    assert set(counts(await following.receive())) == left


async def test_a_stuck_record_is_overtaken_by_at_most_a_window() -> None:
    broker = Broker(1)
    broker.publish(0, 3 * MAX_READ_AHEAD)
    member = await joined(broker)
    (stuck,) = await member.receive(1)
    seen = 1
    while records := await member.receive(200):
        seen += len(records)
        await member.source.ack(records)
    assert MAX_READ_AHEAD <= seen < MAX_READ_AHEAD + 200
    await member.source.ack([stuck])
    assert (await member.receive())[0].position == f"0-{seen}"
    member.crash()
    following = await joined(broker, "b")
    await broker.clock.advance(LEASE + 2)
    assert (await following.receive(1))[0].position == f"0-{seen}"


async def test_nothing_is_undelivered_while_the_window_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Records behind a stuck one do not count as undelivered."""
    broker = Broker(1)
    broker.publish(0, 2 * MAX_READ_AHEAD)
    member = await joined(broker)

    async def something() -> object:
        return "something"

    monkeypatch.setattr(member.log, "undelivered", something)
    (stuck,) = await member.receive(1)
    assert await member.source.undelivered() == "something"
    while records := await member.receive(MAX_READ_AHEAD, 0.1):
        await passing(broker, member.source.ack(records))
    assert await member.source.undelivered() is None
    await passing(broker, member.source.ack([stuck]))
    assert await member.source.undelivered() == "something"
    await passing(broker, member.source.aclose())


async def test_records_whose_delivery_could_not_be_noted_are_delivered_next_time() -> None:
    broker = Broker(1)
    broker.publish(0, 3)
    member = await joined(broker)
    member.log.failing.append("save")
    with pytest.raises(OSError, match="save"):
        await member.receive()
    assert list(counts(await member.receive(2))) == ["0-0", "0-1"]
    assert list(counts(await member.receive())) == ["0-2"]


async def test_an_ack_whose_answer_was_lost_can_be_repeated() -> None:
    broker = Broker(1)
    broker.publish(0, 2)
    member = await joined(broker)
    records = await member.receive()
    member.log.failing.append("answer")
    with pytest.raises(OSError, match="answer"):
        await member.source.ack(records)
    await member.source.ack(records)
    assert not member.revoked
    assert cursor_of(broker.cells[0].value) == "0-1"


async def test_trimmed_records_stop_neither_reading_nor_counting() -> None:
    broker = Broker(1)
    broker.publish(0, 4)
    member = await joined(broker)
    await member.receive()
    member.crash()
    broker.publish(0, 4)
    broker.trim(0, 5)
    following = await joined(broker, "b")
    await broker.clock.advance(LEASE + 2)
    # The records are unknown, so no more are counted than were delivered.
    records = await following.receive()
    assert list(counts(records)) == ["0-5", "0-6", "0-7"]
    await following.source.ack(records)
    broker.publish(0, 4)
    assert list(counts(await following.receive()).values()) == [1, 0, 0, 0]


async def test_a_member_without_partitions_waits() -> None:
    broker = Broker(1)
    await joined(broker, "owner")
    idle = await joined(broker, "idle")
    await broker.clock.advance(10)
    began, calls = broker.clock.monotonic(), sum(broker.calls.values())
    assert await idle.receive(wait=2.0) == []
    assert broker.clock.monotonic() - began == pytest.approx(2.0, abs=0.1)
    assert sum(broker.calls.values()) - calls < 20
    assert await idle.source.receive(0, 2.0) == []
    assert broker.clock.monotonic() - began == pytest.approx(2.0, abs=0.1)


async def test_a_member_wakes_when_it_is_granted_a_partition() -> None:
    broker = Broker(1)
    broker.publish(0)
    owner, idle = await joined(broker, "owner"), await joined(broker, "idle")
    waiting = asyncio.ensure_future(idle.source.receive(10, 2.0))
    await broker.clock.settle()
    await owner.source.aclose()
    await broker.clock.advance(1.5)
    assert [record.position for record in waiting.result()] == ["0-0"]


async def test_latest_is_the_end_of_every_partition_at_the_creation_of_the_group() -> None:
    broker = Broker(2)
    broker.publish(0, 5)
    broker.publish(1, 2)
    first = await joined(broker, "a", start="latest")
    await first.source.aclose()
    broker.publish(0)
    broker.publish(1)
    second = await joined(broker, "b", start="latest")
    assert sorted(counts(await second.receive())) == ["0-5", "1-2"]


async def test_without_create_a_group_must_exist() -> None:
    broker = Broker(1)
    with pytest.raises(NotFound):
        await joined(broker, create=False)
    await (await joined(broker)).source.aclose()
    await joined(broker, "b", create=False)


async def test_a_member_that_cannot_renew_stops_before_another_takes_over() -> None:
    broker = Broker(2)
    lonely = await joined(broker, "lonely")
    following = await joined(broker, "following", start="latest")
    await broker.clock.advance(5)
    assert following.source.held == {0, 1} - lonely.source.held
    lonely.process.cut_off = True
    while following.source.held != {0, 1}:
        await broker.clock.advance(0.25)
        assert not (lonely.source.held and following.source.held & lonely.source.held)
    assert lonely.source.held == frozenset()
    assert lonely.revoked[-1][1], "they were lost, not handed over"


async def test_a_stalled_owner_neither_delivers_nor_settles() -> None:
    broker = Broker(1)
    broker.publish(0, 2)
    stalled, following = await joined(broker, "stalled"), await joined(broker, "following")
    (record,) = await stalled.receive(1)
    stalled.process.stop()
    await broker.clock.advance(2 * LEASE)
    (again, _) = await following.receive()
    stalled.process.resume()
    await stalled.source.ack([record])
    assert await stalled.receive() == []
    assert stalled.revoked == [({0}, True)]
    assert cursor_of(broker.cells[0].value) == ""
    await following.source.ack([again])
    assert cursor_of(broker.cells[0].value) == "0-0"


async def test_a_dead_requester_blocks_no_other_member() -> None:
    broker = Broker(2)
    owner = await joined(broker, "owner")
    dying = await joined(broker, "dying")
    dying.crash()
    await broker.clock.advance(2.5)
    assert owner.revoked == [({0}, False)] or owner.revoked == [({1}, False)]
    await broker.clock.advance(5)
    assert owner.source.held == {0, 1}


async def test_a_handover_waits_for_the_handlers() -> None:
    broker = Broker(2)
    busy = asyncio.Event()
    owner = Joined(broker, "owner")

    async def handlers_end(partitions: frozenset[int], gone: bool) -> None:
        await busy.wait()

    owner.revoke = handlers_end  # type: ignore[method-assign]
    await owner.source.start()
    following = await joined(broker, "following")
    await broker.clock.advance(2)
    broker.publish(0)
    broker.publish(1)
    assert len(await owner.receive()) == 1, "a partition handed over delivers nothing more"
    await broker.clock.advance(3 * LEASE)
    assert following.source.held == frozenset()
    busy.set()
    await broker.clock.advance(2)
    assert len(following.source.held) == len(owner.source.held) == 1


async def test_a_handover_during_a_write_is_written_as_well() -> None:
    broker = Broker(2)
    asked, ended = asyncio.Event(), asyncio.Event()
    owner = Joined(broker, "owner")
    broker.publish(0)
    broker.publish(1)

    async def handlers_end(partitions: frozenset[int], gone: bool) -> None:
        owner.revoked.append((set(partitions), gone))
        asked.set()
        await ended.wait()

    owner.revoke = handlers_end  # type: ignore[method-assign]
    await owner.source.start()
    records = await owner.receive()
    following = await joined(broker, "following")
    await passing(broker, asked.wait())
    owner.log.slow.append("answer")
    acking = asyncio.ensure_future(owner.source.ack(records))
    await broker.clock.advance(0.5)
    ended.set()
    await passing(broker, acking)
    await broker.clock.advance(2.0)
    assert len(following.source.held) == len(owner.source.held) == 1
    assert len(owner.revoked) == 1


async def test_a_deleted_group_is_a_lost_source() -> None:
    broker = Broker(1)
    member = await joined(broker)
    broker.cells.clear()
    await broker.clock.advance(2)
    with pytest.raises(SourceLost):
        await member.receive()
    assert member.revoked == [({0}, True)]


async def test_closing_ends_although_the_broker_does_not_answer() -> None:
    broker = Broker(1)
    member = await joined(broker)
    member.process.stop()
    began = time.monotonic()
    await member.source.aclose()
    await member.source.aclose()
    assert time.monotonic() - began < 15


async def test_seek_resets_a_group_without_live_members() -> None:
    broker = Broker(2)
    log = SimulatedLog(Process(broker))
    with pytest.raises(NotFound):
        await seek(log, "earliest", clock=broker.clock)
    broker.publish(0, 3)
    member = await joined(broker)
    await member.source.ack(await member.receive())
    with pytest.raises(StateError, match="live members"):
        await seek(log, "earliest", clock=broker.clock)
    await member.source.aclose()
    await seek(log, "earliest", clock=broker.clock)
    following = await joined(broker, "b")
    assert list(counts(await following.receive()).values()) == [0, 0, 0]
    following.crash()
    await broker.clock.advance(LEASE + 1)
    await seek(log, "latest", clock=broker.clock)
    assert await (await joined(broker, "c")).receive() == []


async def test_the_state_of_a_group_is_described() -> None:
    broker = Broker(2)
    log = SimulatedLog(Process(broker))
    assert await state(log) == {}
    broker.publish(0, 5)
    member = await joined(broker, "member")
    records = await member.receive()
    await member.source.ack([records[0], records[2]])
    await member.source.keep([nack(records[3], 4)])
    now = broker.clock.now()
    described: Mapping[int, object] = await state(log, clock=broker.clock)
    first = (await state(log, clock=broker.clock))[0]
    assert list(described) == [0, 1]
    assert (first.owner, first.cursor, first.done) == ("member", "0-0", ("0-2",))
    assert (first.in_flight, first.attempts, first.renewed) == (3, {"0-3": 3}, now)
    await broker.clock.advance(3)
    member.crash()
    await broker.clock.advance(LEASE)
    left = (await state(log, clock=broker.clock))[0]
    assert (left.owner, left.in_flight, left.cursor) == (None, 0, "0-0")


async def test_lease_records_of_later_versions_are_read() -> None:
    assert cursor_of(Cell('{"cursor":"7-0","something":"new"}', 3).value) == "7-0"
