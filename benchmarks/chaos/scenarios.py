"""The faults of the table, each with the load it is put under and what must hold."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from anymq import connect

from .disk import mountable, mounted
from .judge import Verdict
from .nemesis import LINKS, Room
from .process import Process
from .run import Run, Stuck
from .target import Target

NOTICED = 30.0
RECOVERED, RECOVERED_KAFKA = 5.0, 10.0
GROWTH = 50 * 1024 * 1024
KEYS, PARTITIONS = 64, 8
HANDED_OVER = 60.0
ENDLESS = 10**9

Check = Callable[[Verdict, Run], list[str]]


def anywhere(target: Target) -> str:
    """Every target will do."""
    return ""


def has_room_to_lose(target: Target) -> str:
    """The server has an alarm, or SQLite's disk can be filled."""
    if target.server is not None:
        return "" if target.server.alarm else "it has no alarm: without disk it ends"
    if target.name != "sqlite":
        return "it may not be broken"
    return "" if mountable() else "mounting a small disk needs root"


@dataclass(frozen=True)
class Scenario:
    """One line of the table. `checks` return what does not hold, in a sentence each."""

    name: str
    fault: str
    promise: str
    play: Callable[[Run], Awaitable[None]]
    checks: tuple[Check, ...]
    server: bool = True
    """Whether it breaks a server, and so cannot be played against SQLite or somebody's URL."""
    kills: int = 20
    """How many the long form has, where it has any."""
    needs: str | None = None
    """The capability without which it has no meaning."""
    fits: Callable[[Target], str] = anywhere
    """Return why it cannot be played against a target, or nothing."""

    async def unfit(self, target: Target) -> str:
        """Return why it cannot be played against a target; nothing if it can."""
        if self.server and target.server is None:
            return "it has no server that may be broken"
        if reason := self.fits(target):
            return reason
        if self.needs is None:
            return ""
        async with connect(target.url) as broker:
            support = getattr(broker.capabilities, self.needs)
        return "" if support else str(support.note)

    async def run(self, run: Run) -> tuple[Verdict, list[str]]:
        """Play it and judge it; return the verdict and what does not hold."""
        failures: list[str] = []
        if run.target.server is not None:
            await asyncio.to_thread(run.target.server.up)
        async with run:
            try:
                await self.play(run)
            except Stuck as stuck:
                failures.append(str(stuck))
        verdict = run.verdict()
        for check in self.checks:
            failures += check(verdict, run)
        return verdict, failures + verdict.problems


# What must hold.


def nothing_lost(verdict: Verdict, run: Run) -> list[str]:
    """Every confirmed message arrived, and nothing that nobody published."""
    queue = verdict.queue
    found = [f"lost: {len(queue.lost)}, first {queue.lost[:3]}"] if queue.lost else []
    if queue.unexpected:
        found.append(f"unexpected: {len(queue.unexpected)}, first {queue.unexpected[:3]}")
    return found


def heard(verdict: Verdict, run: Run) -> list[str]:
    """Every broadcast reader got every confirmed message."""
    found = verdict.readers
    if not found.readers:
        return ["nothing was read as broadcast"]
    return [f"lost by readers: {len(found.lost)}, first {found.lost[:3]}"] if found.lost else []


def applied_once(verdict: Verdict, run: Run) -> list[str]:
    """No effect twice."""
    effects = verdict.effects
    if not effects.committed:
        return ["no effect was applied"]
    twice = [*effects.twice, *effects.committed_twice, *effects.missing]
    return [f"effects twice or missing: {len(twice)}, first {twice[:3]}"] if twice else []


def in_order(verdict: Verdict, run: Run) -> list[str]:
    """First deliveries of each key in publish order, one at a time."""
    order = verdict.order
    if order is None:
        return ["nothing was consumed in order"]
    found: list[str] = []
    if order.inversions:
        found.append(f"inversions: {len(order.inversions)}, first {order.inversions[:3]}")
    if order.overlaps:
        found.append(f"side by side: {len(order.overlaps)}, first {order.overlaps[:3]}")
    return found


def bounded(verdict: Verdict, run: Run) -> list[str]:
    """Every public await ended by its deadline + 1 s."""
    overdue = verdict.calls.overdue
    return [f"calls overdue: {len(overdue)}, first {overdue[:3]}"] if overdue else []


def clear(verdict: Verdict, run: Run) -> list[str]:
    """What failed for want of room says so."""
    found = verdict.unclear
    return [f"failed without a reason: {len(found)}, first {found[:3]}"] if found else []


def recovered(verdict: Verdict, run: Run) -> list[str]:
    """Handled again soon after the server answered."""
    limit = RECOVERED_KAFKA if run.target.name == "kafka" else RECOVERED
    return _within(verdict, verdict.recovery.p95, limit * run.size.patience)


def noticed(verdict: Verdict, run: Run) -> list[str]:
    """Handled again soon after the link broke, or was mended."""
    return _within(verdict, verdict.recovery.longest, NOTICED * run.size.patience)


def _within(verdict: Verdict, worst: float | None, limit: float) -> list[str]:
    if verdict.recovery.unrecovered:
        return [f"not recovered from {verdict.recovery.unrecovered} faults"]
    if worst is not None and worst > limit:
        return [f"recovery took {worst:.1f} s of {limit:g} s: {verdict.recovery.seconds}"]
    return []


def never_early(verdict: Verdict, run: Run) -> list[str]:
    """No delayed message before its time, and there were some."""
    delays = verdict.delays
    if not delays.count:
        return ["no delayed message arrived"]
    return [f"early: {len(delays.early)}, first {delays.early[:3]}"] if delays.early else []


def flat(verdict: Verdict, run: Run) -> list[str]:
    """Memory did not grow with the backlog."""
    growth = verdict.memory.growth
    return [f"memory grew by {growth / 2**20:.0f} MiB"] if growth >= GROWTH else []


# The plays.


async def server_kills(run: Run) -> None:
    """SIGKILL the server at random places of the load, and start it again."""
    server = run.target.server
    assert server is not None
    size, nemesis = run.size, run.nemesis
    for _ in range(2):
        await run.consume()
    producer = await run.produce(ENDLESS, timeout=30.0)
    for place in nemesis.thresholds(size.kills, size.messages):
        await run.until(lambda place=place: run.confirmed >= place, what=f"{place} are confirmed")  # type: ignore[misc]
        await nemesis.pause(0.3)
        await nemesis.kill_server(server, size.down)
    await run.until(lambda: run.confirmed >= size.messages, what="enough is confirmed")
    await _end(run, producer)


async def consumer_kills(run: Run) -> None:
    """SIGKILL consumers at random places; each is replaced at once."""
    size, nemesis = run.size, run.nemesis
    consumers = [await run.consume(store=run.inbox, work=0.002) for _ in range(3)]
    producer = await run.produce(size.messages, keys=64)
    for place in nemesis.thresholds(size.kills, size.messages):
        await run.until(
            lambda place=place: len(run.ids["delivered"]) >= place,  # type: ignore[misc]
            what=f"{place} are delivered",
        )
        await nemesis.pause(0.05)
        victim = nemesis.random.randrange(len(consumers))
        nemesis.kill(consumers[victim])
        consumers[victim] = await run.again(consumers[victim])
    await run.produced(producer)
    await run.finish()


async def ordered_churn(run: Run) -> None:
    """Members of an ordered group join, leave and die, by a shuffled list."""
    size, nemesis = run.size, run.nemesis
    run.partitions = PARTITIONS
    consumers = [await run.consume(ordered=True, work=0.002) for _ in range(3)]
    producer = await run.produce(ENDLESS, keys=KEYS, tasks=KEYS, rate=size.rate / 2)
    moves = ["join", "leave", "kill"] * size.kills
    nemesis.random.shuffle(moves)
    for place, move in zip(nemesis.thresholds(len(moves), size.messages), moves, strict=True):
        await run.until(
            lambda place=place: len(run.ids["delivered"]) >= place,  # type: ignore[misc]
            what=f"{place} are delivered",
        )
        if move == "join" or len(consumers) == 1:
            consumers.append(await run.again(consumers[0]))
            await _has_work(run, consumers[-1])
        if move == "join":
            continue
        victim = consumers.pop(nemesis.random.randrange(len(consumers)))
        if move == "kill":
            nemesis.kill(victim)
        else:
            victim.stop()
    await run.until(lambda: run.confirmed >= size.messages, what="enough is confirmed")
    await _end(run, producer)


async def _has_work(run: Run, consumer: Process) -> None:
    """Return when a member that joined has been given its share.

    RabbitMQ spreads partitions by a hash of member and queue, by which some members have none.
    """
    if run.target.name == "rabbitmq":
        return
    await run.until(
        lambda: bool(run.counts[consumer.name, "delivered"]),
        what=f"{consumer.name}, which joined, is given work",
        within=HANDED_OVER,
    )


async def server_stops(run: Run) -> None:
    """SIGSTOP the server for some seconds, while everything public is called."""
    server = run.target.server
    assert server is not None
    await run.consume()
    await run.consume()
    producer = await run.produce(ENDLESS, timeout=3.0, ping=True, repeat=True)
    for seconds in run.size.pauses:
        confirmed = run.confirmed
        await run.until(lambda: run.confirmed > confirmed + 200, what="publishing goes on")  # noqa: B023
        await run.nemesis.stop_server(server, seconds)
    await _end(run, producer)


async def outage(run: Run) -> None:
    """The server is gone for long; the application is not restarted."""
    server = run.target.server
    assert server is not None
    await run.consume()
    producer = await run.produce(ENDLESS, timeout=5.0, ping=True)
    await run.until(lambda: run.confirmed > 200, what="publishing has begun")
    await run.nemesis.keep_down(server, run.size.outage)
    await _end(run, producer)


async def link_faults(run: Run) -> None:
    """Everything that can happen to a link, to producer and consumers alike."""
    run.url, proxy = await run.stack.enter_async_context(run.target.proxied())
    for _ in range(2):
        await run.consume(store=run.inbox, ack_deadline=10.0)
    for work in (0.0, 0.02):
        await run.consume(role="reader", group=None, work=work)
    producer = await run.produce(ENDLESS, timeout=5.0, repeat=True, rate=run.size.rate / 4)
    for how in LINKS:
        confirmed = run.confirmed
        await run.until(lambda: run.confirmed > confirmed + 50, what=f"going on before: {how}")  # noqa: B023
        await run.nemesis.break_link(proxy, how, run.size.stall)
        await _goes_on(run)
    await _end(run, producer)


async def _goes_on(run: Run) -> None:
    """Return when something that was first attempted from now on has been handled."""
    run.look()
    before = set(run.ids["attempt"])
    await run.until(lambda: not run.ids["done"] <= before, what="what is published now is handled")


async def _end(run: Run, producer: Process) -> None:
    """See that all goes on; then end the producer, and everything when all has been handled."""
    await _goes_on(run)
    producer.stop()
    await run.produced(producer)
    await run.finish()


async def close_while_down(run: Run) -> None:
    """SIGINT to an App, and `aclose()` of a publisher, with the server dead and work in hand."""
    server = run.target.server
    assert server is not None
    await run.consume(work=0.2, drain_timeout=2.0)
    await run.produce(ENDLESS, timeout=20.0)
    await run.until(lambda: len(run.ids["done"]) > 20, what="there is work")
    await asyncio.to_thread(server.kill)
    fault = run.nemesis.cut("server down at the end")
    await run.stopped(signal.SIGINT)
    await asyncio.to_thread(server.up)
    run.nemesis.healed(fault)
    # What was left behind is there for who comes next.
    await run.consume()
    await run.finish()


async def alarm(run: Run) -> None:
    """There is no room for messages; publishing fails clearly, and goes on once there is some."""
    place: Room | None = run.target.server
    if place is None:
        place = run.stack.enter_context(mounted(run.folder / "disk"))
        run.url = f"sqlite:///{place.folder}/chaos.db"
    await run.consume()
    producer = await run.produce(ENDLESS, timeout=3.0, repeat=True)
    await run.until(lambda: run.confirmed > 200, what="publishing has begun")
    async with run.nemesis.starved(place):
        # Those under way when it became full, and as many that were made afterwards.
        await run.until(lambda: run.counts[producer.name, "failed"] >= 32, what="publishing fails")
    await _end(run, producer)


async def poison(run: Run) -> None:
    """One message kills whoever handles it; consumers are started again, as by a supervisor."""
    async with connect(run.url) as broker:
        counts = broker.capabilities.attempt_count.is_native
    store = None if counts else f"sqlite:///{run.folder}/markers.db"
    messages = min(run.size.messages, 300)
    consumers = [
        await run.consume(attempts=3, marker=store, concurrency=2, ack_deadline=2.0)
        for _ in range(2)
    ]
    letters = await run.consume(role="letters", letters=True, topic=f"{run.topic}.chaos.dlq")
    await run.produce(messages, poison=(messages // 3,))
    while not run.ids["letter"]:
        await run.until(
            lambda: bool(run.ids["letter"]) or any(p.killed for p in consumers),
            what="the poison comes to the dead letters",
        )
        for place, consumer in enumerate(consumers):
            if consumer.killed:
                run.journal.note("died", who=consumer.name)
                consumers[place] = await run.begin_again(consumer)
        if len(run.processes) > 20:
            raise Stuck("the poison has killed more than 16 consumers")
    assert letters.running
    await run.finish()


async def backlog(run: Run) -> None:
    """A long queue and a slow handler: what is fetched is bounded."""
    producer = await run.produce(run.size.backlog, keys=64, tasks=64, rate=1e6, size=200)
    await run.produced(producer)
    await run.consume(work=0.005, concurrency=16)
    enough = min(run.size.backlog, 10_000)
    await run.until(lambda: len(run.ids["done"]) >= enough, what=f"{enough} are handled")
    if run.size.backlog == enough:
        await run.drained()
    await run.stopped()


async def delayed_over_kills(run: Run) -> None:
    """Delayed messages wait while their server, or their consumers, are killed."""
    size, nemesis = run.size, run.nemesis
    consumers = [await run.consume() for _ in range(2)]
    messages = min(size.messages, 2000)
    producer = await run.produce(messages, delay=(0.5, 10.0), timeout=30.0, rate=messages / 5)
    for place in nemesis.thresholds(size.kills, messages):
        await run.until(lambda place=place: run.confirmed >= place, what=f"{place} are confirmed")  # type: ignore[misc]
        if run.target.server is not None:
            await nemesis.kill_server(run.target.server, size.down)
        else:
            nemesis.kill(consumers[0])
            consumers[0] = await run.again(consumers[0])
    await run.produced(producer)
    await run.finish()


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "server-kills",
            "server SIGKILL and restart at random under load",
            "lost 0, unexpected 0; recovery p95 ≤ 5 s (Kafka ≤ 10 s)",
            server_kills,
            (nothing_lost, bounded, recovered),
        ),
        Scenario(
            "consumer-kills",
            "consumer SIGKILL, idempotent handler",
            "lost 0, effects applied twice 0",
            consumer_kills,
            (nothing_lost, applied_once, bounded),
            server=False,
            kills=50,
        ),
        Scenario(
            "ordered-churn",
            "joins, leaves and kills in an ordered group, 64 keys, 8 partitions",
            "inversions of first delivery 0, one at a time",
            ordered_churn,
            (nothing_lost, in_order, bounded),
            server=False,
            kills=10,
            needs="ordered",
        ),
        Scenario(
            "server-stops",
            "server SIGSTOP",
            "nothing lost; every public await ends by its deadline + 1 s",
            server_stops,
            (nothing_lost, bounded, noticed),
        ),
        Scenario(
            "outage",
            "the server is away for long",
            "publishing and consuming resume without a restart",
            outage,
            (nothing_lost, bounded, recovered),
        ),
        Scenario(
            "link-faults",
            "link cut, reset mid-reply, slow, stalled one way, refused, half-open",
            "nothing lost, also by broadcast readers; effects twice 0, noticed in ≤ 30 s",
            link_faults,
            (nothing_lost, heard, applied_once, bounded, noticed),
        ),
        Scenario(
            "close-while-down",
            "`aclose()` and Ctrl-C while the server is down",
            "ends within grace + 5 s; nothing lost",
            close_while_down,
            (nothing_lost, bounded),
        ),
        Scenario(
            "alarm",
            "disk or memory alarm of the server",
            "publishing fails clearly by its deadline; after relief all goes on",
            alarm,
            (nothing_lost, bounded, clear, noticed),
            server=False,
            fits=has_room_to_lose,
        ),
        Scenario(
            "poison",
            "a message that kills its process",
            "reaches the dead letters",
            poison,
            (nothing_lost,),
            server=False,
        ),
        Scenario(
            "backlog",
            "a backlog and a slow handler",
            "memory flat (growth < 50 MiB)",
            backlog,
            (flat, bounded),
            server=False,
        ),
        Scenario(
            "delayed",
            "delayed messages over kills",
            "lost 0, early 0",
            delayed_over_kills,
            (nothing_lost, never_early, bounded),
            server=False,
            needs="delayed_publish",
        ),
    )
}
