"""A simulated log with lease records, and members of an ordered group, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial

from anymq.driver import (
    Begun,
    Clock,
    Due,
    Listener,
    Nack,
    Received,
    Record,
    Start,
    SubscribeSpec,
    TopicSpec,
)
from anymq.driver.ordered import LeasedSource, cursor_of
from anymq.driver.ordered.log import Cell, PartitionedLog
from anymq.testing.clock import VirtualClock

LEASE = 8.0
KEYS = 3


class Broker:
    """Partitions of numbered records, lease records, and the probability of a failed call."""

    def __init__(self, partitions: int, *, seed: int = 0, faults: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.random = random.Random(seed)
        self.faults = faults
        self.records: list[list[str]] = [[] for _ in range(partitions)]
        self.trimmed = [0] * partitions
        self.cells: dict[int, Cell] = {}
        self.arrived = asyncio.Event()
        self.calls: dict[str, int] = defaultdict(int)

    def publish(self, partition: int, count: int = 1) -> None:
        log = self.records[partition]
        log += [f"{partition}-{len(log) + index}" for index in range(count)]
        self.arrived.set()
        self.arrived = asyncio.Event()

    def trim(self, partition: int, below: int) -> None:
        self.trimmed[partition] = below


class Process:
    """The process of one member, which can stall or be cut off."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.running = asyncio.Event()
        self.running.set()
        self.cut_off = False
        """Whether calls time out after 1 s, with an unknown result."""

    def stop(self) -> None:
        self.running.clear()

    def resume(self) -> None:
        self.running.set()


class ProcessClock(Clock):
    """The virtual clock, as a process that may stall sees it."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def now(self) -> float:
        return self.process.broker.clock.now()

    def monotonic(self) -> float:
        return self.process.broker.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.process.broker.clock.sleep(seconds)
        await self.process.running.wait()


class SimulatedLog(PartitionedLog):
    """The broker as one subscription sees it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.broker = process.broker
        self.partitions = len(self.broker.records)
        self.closed = False
        self.failing: list[str] = []
        """The next calls that fail."""
        self.slow: list[str] = []
        """The next calls that take 1 s."""

    async def cursor_at(self, partition: int, start: Start) -> str:
        await self._travel("place")
        assert not isinstance(start, datetime)
        return f"{partition}-{len(self.broker.records[partition]) - 1}" if start == "latest" else ""

    async def read(self, after: Mapping[int, str], limit: int, wait: float) -> Sequence[Received]:
        await self._travel("read")
        broker = self.broker
        until = broker.clock.monotonic() + wait
        while not (found := self._found(after, limit)):
            left = until - broker.clock.monotonic()
            if left <= 0:
                break
            await broker.clock.wait(broker.arrived, left)
        await self.process.running.wait()
        return found

    def _found(self, after: Mapping[int, str], limit: int) -> list[Received]:
        found: list[Received] = []
        for partition, place in after.items():
            first = int(place.partition("-")[2]) + 1 if place else 0
            first = max(first, self.broker.trimmed[partition])
            names = self.broker.records[partition][first : first + limit - len(found)]
            found += [
                Received(name.encode(), {}, position=name, token=None, partition=partition)
                for name in names
            ]
        return found

    async def load(self) -> Mapping[int, Cell]:
        await self._travel("load")
        return dict(self.broker.cells)

    async def save(self, cells: Mapping[int, Cell]) -> Mapping[int, int | None]:
        await self._travel("save")
        answers: dict[int, int | None] = {}
        for number, cell in cells.items():
            stored = self.broker.cells.get(number)
            if (stored.revision if stored else 0) == cell.revision:
                self.broker.cells[number] = Cell(cell.value, cell.revision + 1)
                answers[number] = cell.revision + 1
            else:
                answers[number] = None
        await self._travel("answer")
        return answers

    async def aclose(self) -> None:
        self.closed = True

    async def _travel(self, call: str) -> None:
        assert not self.closed
        broker = self.broker
        broker.calls[call] += 1
        if broker.faults:
            await broker.clock.sleep(broker.random.choice((0, 0, 0.005, 0.05)))
        await self.process.running.wait()
        if call in self.failing:
            self.failing.remove(call)
            raise OSError(f"{call} failed")
        if call in self.slow:
            self.slow.remove(call)
            await broker.clock.sleep(1.0)
        if self.process.cut_off:
            await broker.clock.sleep(1.0)
            raise OSError(f"{call} timed out")
        if broker.random.random() < broker.faults:
            raise OSError(f"{call} lost")


def spec_of(broker: Broker, member: str, **changes: object) -> SubscribeSpec:
    values: dict[str, object] = {
        "topic": TopicSpec(name="t", native="t", partitions=len(broker.records)),
        "group": "g",
        "native_group": "t.g",
        "start": "earliest",
        "ack_deadline": LEASE,
        "prefetch": 100,
        "member": member,
        "ordered": True,
    }
    return SubscribeSpec(**(values | changes))  # type: ignore[arg-type]


def nack(record: Received, attempt: int, due: Due | None = None) -> Nack:
    copy = Record(topic="t", id="i", unique="u", body=record.body)
    return Nack(record, 0.0, attempt, attempt, copy, due)


class Group:
    """The deliveries of one group, and the checks of its invariants."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.members: list[Member] = []
        self.delivered = [0] * len(broker.records)
        self.acked: set[str] = set()
        self.in_doubt: set[str] = set()
        self.redelivered: dict[str, int] = defaultdict(int)
        self.handling: dict[int, set[Member]] = defaultdict(set)
        self.unclean = False

    async def join(self, **changes: object) -> Member:
        member = Member(self, f"m{len(self.members)}", changes)
        self.members.append(member)
        await member.start()
        return member

    @property
    def live(self) -> list[Member]:
        return [member for member in self.members if member.state == "live"]

    def shares(self) -> list[int]:
        return sorted(len(member.held) for member in self.live)

    def unacked(self) -> set[str]:
        """Return the records without an ack, also without one whose answer was lost."""
        settled = self.acked | self.in_doubt
        return {name for log in self.broker.records for name in log} - settled

    def done(self) -> bool:
        """Whether every cursor is at the end of its partition."""
        cursors = {number: cursor_of(cell.value) for number, cell in self.broker.cells.items()}
        return all(cursors[n] == log[-1] for n, log in enumerate(self.broker.records) if log)

    def deliver(self, member: Member, record: Received) -> None:
        partition, name = record.partition, record.position
        number = int(name.partition("-")[2])
        assert number <= self.delivered[partition], f"{name} overtakes {self.delivered[partition]}"
        assert name not in self.acked, f"{name} again, after its ack"
        self.delivered[partition] = max(self.delivered[partition], number + 1)
        expected = self.redelivered[name]
        assert record.redeliveries >= expected, (
            f"{name} shows {record.redeliveries}, not {expected}"
        )
        if not self.unclean:
            assert record.redeliveries == expected

    def begin(self, member: Member, partition: int) -> None:
        others = [m for m in self.handling[partition] if m is not member and not m.excused]
        assert member.excused or not others, f"{others} still handle partition {partition}"
        self.handling[partition].add(member)


class Member(Listener):
    """One member: a `LeasedSource`, and a minimal consumer that keeps its contract."""

    def __init__(self, group: Group, name: str, changes: dict[str, object]) -> None:
        self.group = group
        self.name = name
        self.state = "new"
        self.excused = False
        """Whether it stalled for longer than its lease, and may not have noticed its losses yet."""
        self.process = Process(group.broker)
        self.clock = ProcessClock(self.process)
        self.log = SimulatedLog(self.process)
        spec = spec_of(group.broker, name, **changes)
        self.source = LeasedSource(self.log, spec, self, self.clock)
        self.lanes: dict[tuple[int, int], deque[Received]] = defaultdict(deque)
        self.workers: dict[tuple[int, int], asyncio.Task[None]] = {}
        self.last: dict[object, int] = {}
        self.in_flight: dict[str, Received] = {}
        self.begun: dict[str, int] = {}
        """The earlier deliveries that the next one must show, by position of a noted start."""
        self.reader: asyncio.Task[None] | None = None
        self.failures: list[BaseException] = []

    def __repr__(self) -> str:
        return self.name

    @property
    def held(self) -> frozenset[int]:
        return self.source.held

    async def start(self) -> None:
        while True:
            try:
                await self.source.start()
            except OSError:
                spec = spec_of(self.group.broker, self.name)
                self.log = SimulatedLog(self.process)
                self.source = LeasedSource(self.log, spec, self, self.clock)
            else:
                break
        self.state = "live"
        self.reader = asyncio.create_task(self._watched(self._read()))

    async def leave(self) -> None:
        self.state = "left"
        assert self.reader is not None
        self.reader.cancel()
        await self.revoke(frozenset(range(len(self.group.delivered))), gone=False)
        if self.group.broker.faults:
            self.group.unclean = True
        await self.source.aclose()
        await self.source.aclose()

    def crash(self) -> None:
        """End it as SIGKILL does."""
        self.state = "dead"
        self.process.stop()
        self.group.unclean = True
        for task in (self.reader, *self.workers.values()):
            assert task is not None
            task.cancel()
        for name, record in self.in_flight.items():
            if name not in self.group.acked and not record.token[0].gone:
                self.group.redelivered[name] = self._shown_after(record)
        for members in self.group.handling.values():
            members.discard(self)

    def _shown_after(self, record: Received) -> int:
        """Return the earlier deliveries that `record` must show after a crash of this member.

        If starts are noted, a delivery without one is not counted. Otherwise it may have started.
        """
        noted = self.source.known_attempt(record) is not None
        return self.begun.get(record.position, record.redeliveries + (not noted))

    async def revoke(self, partitions: frozenset[int], gone: bool) -> None:
        for lane, queued in self.lanes.items():
            if lane[0] in partitions:
                for record in queued:
                    self.in_flight.pop(record.position, None)
                queued.clear()
        running = [task for lane, task in self.workers.items() if lane[0] in partitions]
        if gone:
            self.group.unclean = True
            for task in running:
                task.cancel()
        if running:
            await asyncio.wait(running)

    async def _watched(self, work: Awaitable[None]) -> None:
        try:
            await work
        except AssertionError as failure:
            self.failures.append(failure)
            raise

    async def _read(self) -> None:
        chance = self.group.broker.random
        while True:
            limit = max(0, chance.randint(1, 10) - len(self.in_flight) // 4)
            try:
                records = await self.source.receive(limit, 1.0)
            except OSError:
                await self.clock.sleep(0.05)
                continue
            if limit == 0:
                await self.clock.sleep(0.2)
            for record in records:
                self._accept(record)

    def _accept(self, record: Received) -> None:
        self.group.deliver(self, record)
        number = int(record.position.partition("-")[2])
        tenure = record.token[0]
        assert self.last.get(tenure, -1) < number, "out of order within one tenure"
        self.last[tenure] = number
        self.in_flight[record.position] = record
        lane = record.partition, number % KEYS
        self.lanes[lane].append(record)
        if lane not in self.workers:
            self.workers[lane] = asyncio.create_task(self._watched(self._work(lane)))

    async def _work(self, lane: tuple[int, int]) -> None:
        queued = self.lanes[lane]
        try:
            while queued:
                record = queued.popleft()
                try:
                    await self._handle(record)
                finally:
                    if self.state != "dead":
                        self.in_flight.pop(record.position, None)
                        self.begun.pop(record.position, None)
        finally:
            if self.state != "dead":
                del self.workers[lane]
                if not any(other[0] == lane[0] for other in self.workers):
                    self.group.handling[lane[0]].discard(self)

    async def _handle(self, record: Received) -> None:
        chance, group, name = self.group.broker.random, self.group, record.position
        attempt = record.redeliveries + 1
        known = self.source.known_attempt(record)
        if known is not None:
            # As the core does: an unknown earlier delivery counts as a start.
            attempt = known + 1 + (known == 1)
            await self._settle(partial(self.source.begin, [Begun(record, attempt)]))
            self.begun[name] = attempt - 1
        while True:
            group.begin(self, record.partition)
            await self.clock.sleep(chance.choice((0, 0, 0.01, 0.3, 1.5)))
            if chance.random() > 0.1:
                break
            attempt += 1
            await self._settle(partial(self.source.keep, [nack(record, attempt)]))
            if not record.token[0].gone:
                group.redelivered[name] = attempt - 1
                self.begun[name] = attempt - 1
            await self.clock.sleep(0.5)
        group.in_doubt.add(name)
        await self._settle(partial(self.source.ack, [record]))
        if not record.token[0].gone:
            group.acked.add(name)

    async def _settle(self, call: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await call()
            except OSError:
                await self.clock.sleep(0.1)
            else:
                return
