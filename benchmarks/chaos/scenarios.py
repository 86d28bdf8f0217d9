"""The fault scenarios: their load, faults and checks."""

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
    """Return no obstacle: the scenario runs on every target."""
    return ""


def can_be_filled(target: Target) -> str:
    """Return why neither the server's alarm nor SQLite's disk can be used."""
    if target.server is not None:
        return "" if target.server.alarm else "the server has no alarm; without disk it terminates"
    if target.name != "sqlite":
        return "an existing broker is not filled"
    return "" if mountable() else "mounting a disk requires root"


@dataclass(frozen=True)
class Scenario:
    """One scenario. Each of `checks` returns its failures, a sentence each."""

    name: str
    fault: str
    promise: str
    steps: Callable[[Run], Awaitable[None]]
    checks: tuple[Check, ...]
    server: bool = True
    """Whether it needs a server that may be killed, which SQLite and existing brokers lack."""
    kills: int = 20
    """Number of kills in the long form, if it has any."""
    needs: str | None = None
    """Capability that the scenario requires."""
    fits: Callable[[Target], str] = anywhere
    """Returns a further obstacle on a target, or an empty string."""

    async def obstacle(self, target: Target) -> str:
        """Return why the scenario cannot run on `target`, or an empty string."""
        if self.server and target.server is None:
            return "there is no server that may be killed"
        if reason := self.fits(target):
            return reason
        if self.needs is None:
            return ""
        async with connect(target.url) as broker:
            support = getattr(broker.capabilities, self.needs)
        return "" if support else str(support.note)

    async def run(self, run: Run) -> tuple[Verdict, list[str]]:
        """Run the scenario; return the verdict and the failures of its checks."""
        failures: list[str] = []
        if run.target.server is not None:
            await asyncio.to_thread(run.target.server.up)
        async with run:
            try:
                await self.steps(run)
            except Stuck as stuck:
                failures.append(str(stuck))
        verdict = run.verdict()
        for check in self.checks:
            failures += check(verdict, run)
        return verdict, failures + verdict.problems


# Checks.


def nothing_lost(verdict: Verdict, run: Run) -> list[str]:
    """Check that every confirmed message was delivered, and no unpublished one."""
    queue = verdict.queue
    found = [f"lost: {len(queue.lost)}, first {queue.lost[:3]}"] if queue.lost else []
    if queue.unexpected:
        found.append(f"unexpected: {len(queue.unexpected)}, first {queue.unexpected[:3]}")
    return found


def heard(verdict: Verdict, run: Run) -> list[str]:
    """Check that every broadcast subscriber handled every confirmed message."""
    found = verdict.readers
    if not found.readers:
        return ["no broadcast subscriber handled a message"]
    return (
        [f"lost by broadcast subscribers: {len(found.lost)}, first {found.lost[:3]}"]
        if found.lost
        else []
    )


def applied_once(verdict: Verdict, run: Run) -> list[str]:
    """Check that no effect was applied twice."""
    effects = verdict.effects
    if not effects.committed:
        return ["no effect was applied"]
    twice = [*effects.twice, *effects.committed_twice, *effects.missing]
    return [f"effects twice or missing: {len(twice)}, first {twice[:3]}"] if twice else []


def in_order(verdict: Verdict, run: Run) -> list[str]:
    """Check that each key was delivered in publish order, one message at a time."""
    order = verdict.order
    if order is None:
        return ["no ordered group consumed messages"]
    found: list[str] = []
    if order.inversions:
        found.append(f"inversions: {len(order.inversions)}, first {order.inversions[:3]}")
    if order.overlaps:
        found.append(f"overlaps: {len(order.overlaps)}, first {order.overlaps[:3]}")
    return found


def bounded(verdict: Verdict, run: Run) -> list[str]:
    """Check that every public await ended by its deadline + 1 s."""
    overdue = verdict.calls.overdue
    return [f"calls overdue: {len(overdue)}, first {overdue[:3]}"] if overdue else []


def clear(verdict: Verdict, run: Run) -> list[str]:
    """Check that publishes to a full broker failed with a cause."""
    found = verdict.unclear
    return [f"failed without a cause: {len(found)}, first {found[:3]}"] if found else []


def recovered(verdict: Verdict, run: Run) -> list[str]:
    """Check the recovery time after a restart of the server."""
    limit = RECOVERED_KAFKA if run.target.name == "kafka" else RECOVERED
    return _within(verdict, verdict.recovery.p95, limit * run.size.patience)


def noticed(verdict: Verdict, run: Run) -> list[str]:
    """Check the recovery time after a fault that the client must notice."""
    return _within(verdict, verdict.recovery.longest, NOTICED * run.size.patience)


def _within(verdict: Verdict, worst: float | None, limit: float) -> list[str]:
    if verdict.recovery.unrecovered:
        return [f"not recovered from {verdict.recovery.unrecovered} faults"]
    if worst is not None and worst > limit:
        return [f"recovery took {worst:.1f} s of {limit:g} s: {verdict.recovery.seconds}"]
    return []


def never_early(verdict: Verdict, run: Run) -> list[str]:
    """Check that delayed messages were delivered, none of them early."""
    delays = verdict.delays
    if not delays.count:
        return ["no delayed message arrived"]
    return [f"early: {len(delays.early)}, first {delays.early[:3]}"] if delays.early else []


def flat(verdict: Verdict, run: Run) -> list[str]:
    """Check that memory did not grow with the backlog."""
    growth = verdict.memory.growth
    return [f"memory grew by {growth / 2**20:.0f} MiB"] if growth >= GROWTH else []


# Steps.


async def server_kills(run: Run) -> None:
    """SIGKILL the server at random times under load, and restart it."""
    server = run.target.server
    assert server is not None
    size, nemesis = run.size, run.nemesis
    for _ in range(2):
        await run.consume()
    producer = await run.produce(ENDLESS, timeout=30.0)
    for threshold in nemesis.thresholds(size.kills, size.messages):
        await run.reached("confirmed", threshold)
        await nemesis.pause(0.3)
        await nemesis.kill_server(server, size.down)
    await run.reached("confirmed", size.messages)
    await _end(run, producer)


async def consumer_kills(run: Run) -> None:
    """SIGKILL consumers at random times, and replace each at once."""
    size, nemesis = run.size, run.nemesis
    consumers = [await run.consume(store=run.inbox, work=0.002) for _ in range(3)]
    producer = await run.produce(size.messages, keys=64)
    for threshold in nemesis.thresholds(size.kills, size.messages):
        await run.reached("delivered", threshold)
        await nemesis.pause(0.05)
        victim = nemesis.random.randrange(len(consumers))
        nemesis.kill(consumers[victim])
        consumers[victim] = await run.again(consumers[victim])
    await run.produced(producer)
    await run.finish()


async def ordered_churn(run: Run) -> None:
    """Make members of an ordered group join, leave and die in random order."""
    size, nemesis = run.size, run.nemesis
    run.partitions = PARTITIONS
    consumers = [await run.consume(ordered=True, work=0.002) for _ in range(3)]
    producer = await run.produce(ENDLESS, keys=KEYS, tasks=KEYS, rate=size.rate / 2)
    moves = ["join", "leave", "kill"] * size.kills
    nemesis.random.shuffle(moves)
    for threshold, move in zip(nemesis.thresholds(len(moves), size.messages), moves, strict=True):
        await run.reached("delivered", threshold)
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
    await run.reached("confirmed", size.messages)
    await _end(run, producer)


async def _has_work(run: Run, consumer: Process) -> None:
    """Wait until a new member has been assigned a partition with messages.

    On RabbitMQ, a hash of member and queue assigns partitions, so some members have none.
    """
    if run.target.name == "rabbitmq":
        return
    await run.until(
        lambda: bool(run.counts[consumer.name, "delivered"]),
        what=f"{consumer.name} has joined and handles messages",
        within=HANDED_OVER,
    )


async def server_stops(run: Run) -> None:
    """SIGSTOP the server for some seconds while public functions are called."""
    server = run.target.server
    assert server is not None
    await run.consume()
    await run.consume()
    producer = await run.produce(ENDLESS, timeout=3.0, ping=True, repeat=True)
    for seconds in run.size.pauses:
        await run.reached("confirmed", run.confirmed + 201)
        await run.nemesis.stop_server(server, seconds)
    await _end(run, producer)


async def outage(run: Run) -> None:
    """Keep the server down for long, without restarting the application."""
    server = run.target.server
    assert server is not None
    await run.consume()
    producer = await run.produce(ENDLESS, timeout=5.0, ping=True)
    await run.reached("confirmed", 201)
    await run.nemesis.keep_down(server, run.size.outage)
    await _end(run, producer)


async def link_faults(run: Run) -> None:
    """Inject every link fault, on the links of producer and consumers."""
    run.url, proxy = await run.stack.enter_async_context(run.target.proxied())
    for _ in range(2):
        await run.consume(store=run.inbox, ack_deadline=10.0)
    for work in (0.0, 0.02):
        await run.consume(role="reader", group=None, work=work)
    producer = await run.produce(ENDLESS, timeout=5.0, repeat=True, rate=run.size.rate / 4)
    for how in LINKS:
        await run.reached("confirmed", run.confirmed + 51)
        await run.nemesis.break_link(proxy, how, run.size.stall)
        await _continues(run)
    await _end(run, producer)


async def _continues(run: Run) -> None:
    """Wait until a message first attempted from now on has been handled."""
    run.look()
    before = set(run.ids["attempt"])
    await run.until(lambda: not run.ids["done"] <= before, what="a new message is handled")


async def _end(run: Run, producer: Process) -> None:
    """Check that messages are handled, stop the producer, and finish the run."""
    await _continues(run)
    producer.stop()
    await run.produced(producer)
    await run.finish()


async def close_while_down(run: Run) -> None:
    """Send SIGINT to apps and publishers with messages in flight while the server is down."""
    server = run.target.server
    assert server is not None
    await run.consume(work=0.2, drain_timeout=2.0)
    await run.produce(ENDLESS, timeout=20.0)
    await run.reached("done", 21)
    await asyncio.to_thread(server.kill)
    fault = run.nemesis.cut("server down at the end")
    await run.stopped(signal.SIGINT)
    await asyncio.to_thread(server.up)
    run.nemesis.healed(fault)
    # The remaining messages go to the next consumer.
    await run.consume()
    await run.finish()


async def alarm(run: Run) -> None:
    """Fill the broker: publishing fails with a cause, and continues after relief."""
    room: Room | None = run.target.server
    if room is None:
        room = run.stack.enter_context(mounted(run.folder / "disk"))
        run.url = f"sqlite:///{room.folder}/chaos.db"
    await run.consume()
    producer = await run.produce(ENDLESS, timeout=3.0, repeat=True)
    await run.reached("confirmed", 201)
    async with run.nemesis.starved(room):
        # Those in flight when it became full, and as many begun afterwards.
        await run.until(lambda: run.counts[producer.name, "failed"] >= 32, what="publishing fails")
    await _end(run, producer)


async def poison(run: Run) -> None:
    """Publish a message that kills its consumer; restart consumers as a supervisor would."""
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
            what="the poison message is dead-lettered",
        )
        for index, consumer in enumerate(consumers):
            if consumer.killed:
                run.journal.note("died", who=consumer.name)
                consumers[index] = await run.begin_again(consumer)
        if len(run.processes) > 20:
            raise Stuck("the poison message killed more than 16 consumers")
    assert letters.running
    await run.finish()


async def backlog(run: Run) -> None:
    """Consume a long backlog with a slow handler; prefetch is bounded."""
    producer = await run.produce(run.size.backlog, keys=64, tasks=64, rate=1e6, size=200)
    await run.produced(producer)
    await run.consume(work=0.005, concurrency=16)
    enough = min(run.size.backlog, 10_000)
    await run.reached("done", enough)
    if run.size.backlog == enough:
        await run.drained()
    await run.stopped()


async def delayed_over_kills(run: Run) -> None:
    """Kill the server or the consumers while delayed messages are pending."""
    size, nemesis = run.size, run.nemesis
    consumers = [await run.consume() for _ in range(2)]
    messages = min(size.messages, 2000)
    producer = await run.produce(messages, delay=(0.5, 10.0), timeout=30.0, rate=messages / 5)
    for threshold in nemesis.thresholds(size.kills, messages):
        await run.reached("confirmed", threshold)
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
            fits=can_be_filled,
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
