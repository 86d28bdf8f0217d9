"""Ordered groups over logs and compare-and-set, on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .simulated import LEASE, Broker, Group


async def until(group: Group, condition: Callable[[], Any], *, within: float) -> float:
    """Advance the clock until `condition()`; return the seconds it took."""
    clock = group.broker.clock
    started = clock.monotonic()
    while not condition():
        passed = clock.monotonic() - started
        assert passed < within, f"not within {within} s; unacked: {sorted(group.unacked())[:5]}"
        await clock.advance(0.25)
        check(group)
    return clock.monotonic() - started


def check(group: Group) -> None:
    for member in group.members:
        for failure in member.failures:
            raise failure


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def cancelled_at_the_end() -> None:
        try:
            await scenario()
        finally:
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

    asyncio.run(cancelled_at_the_end())


ACTIONS = st.one_of(
    st.tuples(st.just("join"), st.just(0)),
    st.tuples(st.sampled_from(("leave", "crash", "stall", "cut")), st.integers(0, 9)),
    st.tuples(st.just("publish"), st.integers(1, 30)),
    st.tuples(st.just("pass"), st.integers(1, 12)),
)


async def play(group: Group, actions: list[tuple[str, int]]) -> None:
    clock, chance = group.broker.clock, group.broker.random
    background: list[asyncio.Task[Any]] = []
    for action, number in actions:
        live = group.live
        match action:
            case "join" if len(live) < 5:
                background.append(asyncio.create_task(group.join()))
            case "publish":
                for _ in range(number):
                    group.broker.publish(chance.randrange(len(group.delivered)))
            case "pass":
                await clock.advance(number / 2)
            case "leave" if live:
                background.append(asyncio.create_task(live[number % len(live)].leave()))
            case "crash" if live:
                live[number % len(live)].crash()
            case "stall" if live:
                background.append(asyncio.create_task(stall(group, live[number % len(live)])))
            case "cut" if live:
                background.append(asyncio.create_task(cut(group, live[number % len(live)])))
            case _:
                pass
        await clock.advance(0.1)
        check(group)
    await until(group, lambda: all(task.done() for task in background), within=10 * LEASE)
    for task in background:
        task.result()


async def stall(group: Group, member: Any) -> None:
    clock = group.broker.clock
    group.unclean = True
    member.process.stop()
    # At least half of its lease is left, unless it was cut off.
    await clock.sleep(0 if member.process.cut_off else LEASE * 0.5)
    member.excused = True
    await clock.sleep(LEASE)
    if member.state != "dead":
        member.process.resume()
        await clock.sleep(2.0)
        member.excused = False


async def cut(group: Group, member: Any) -> None:
    """Cut the member off. Its handlers must end before another member starts."""
    group.unclean = True
    member.process.cut_off = True
    await group.broker.clock.sleep(LEASE * 1.5)
    member.process.cut_off = False


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 8),
    st.lists(ACTIONS, max_size=25),
    st.integers(0, 1000),
    st.sampled_from((0.0, 0.02, 0.2)),
)
def test_order_and_delivery_hold_over_any_faults(
    partitions: int, actions: list[tuple[str, int]], seed: int, faults: float
) -> None:
    async def scenario() -> None:
        group = Group(Broker(partitions, seed=seed, faults=faults))
        await play(group, [("join", 0), ("publish", 10), ("pass", 4), *actions])
        if not group.live:
            await play(group, [("join", 0)])
        group.broker.faults = 0.0
        await until(group, group.done, within=20 * LEASE)
        assert not group.unacked()
        await group.broker.clock.advance(2 * LEASE)  # until requests of dead members have expired
        for _ in range(10):
            assert balanced(group)
            await group.broker.clock.advance(0.5)

    run(scenario)


def balanced(group: Group) -> bool:
    shares = group.shares()
    return sum(shares) == len(group.delivered) and shares[-1] - shares[0] <= 1


@pytest.mark.parametrize(("partitions", "members"), [(8, 3), (8, 8), (3, 5), (16, 6)])
def test_members_that_join_at_once_share_within_seconds(partitions: int, members: int) -> None:
    async def scenario() -> None:
        group = Group(Broker(partitions))
        await group.join()
        await asyncio.gather(*(group.join() for _ in range(members - 1)))
        assert await until(group, lambda: balanced(group), within=30) < 6
        held = [member.held for member in group.live]
        await group.broker.clock.advance(30)
        assert [member.held for member in group.live] == held, "partitions still move"

    run(scenario)
