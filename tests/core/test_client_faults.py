"""Faults: every class of error, at every client call and in handlers, in any order.

At the end each message has been handled, no credit is lost, no task has failed unnoticed, and
closing returns.
"""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from anymq import Broker, Reject
from anymq.connect import connect
from anymq.consuming import fetcher, group_settler, member_settler, settler
from anymq.consuming.subscription import Subscription
from anymq.driver.registry import register
from anymq.middleware import Acknowledge, DeadLetter, Retry
from anymq.testing.tools import until

from .faulty import CALLS, FAULT_KINDS, FAULTS, FastClock, FaultyDriver, core_tasks

register("faulty", f"{FaultyDriver.__module__}:FaultyDriver")

LIMIT_SECONDS = 60.0
"""Seconds after which a step has failed, also on a slow machine."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "RECEIVE_TIMEOUT", 0.2)
    for module in (settler, member_settler, group_settler):
        monkeypatch.setattr(module, "CALL_TIMEOUT", 0.2)
    monkeypatch.setattr(settler, "CLOSE_GRACE", 0.5)


class FaultyClient:
    """A subscription on a failing client, and the errors that its handler raises."""

    broker: Broker
    driver: FaultyDriver
    subscription: Subscription

    def __init__(self) -> None:
        self.handler_faults: deque[str] = deque()
        self.published: list[str] = []

    async def start(self, *, concurrency: int = 3) -> None:
        self.broker = await connect("faulty://", clock=FastClock())
        assert isinstance(self.broker.driver, FaultyDriver)
        self.driver = self.broker.driver
        self.subscription = self.broker.subscribe(
            "t",
            group="g",
            handler=self.handle,
            concurrency=concurrency,
            prefetch=5,
            ack_deadline=5.0,
            middleware=[Acknowledge(), DeadLetter(), Retry(attempts=50, initial=0.1, cap=0.5)],
        )
        await self.subscription.__aenter__()

    async def handle(self, body: bytes) -> None:
        await asyncio.sleep(0)
        if self.handler_faults:
            kind = self.handler_faults.popleft()
            if kind == "reject":
                raise Reject("bad")
            raise FAULTS[kind]()

    def publish(self, count: int) -> None:
        bodies = [str(len(self.published) + number) for number in range(count)]
        self.published += bodies
        self.driver.add(bodies)

    async def check(self) -> None:
        """Check that without further faults every message is handled, and closing returns."""
        self.driver.over.set()
        self.subscription.resume()
        self.publish(7)  # more than the window, so leaked credit would stall
        await until(lambda: self.driver.done.issuperset(self.published), within=LIMIT_SECONDS)
        await until(lambda: self.subscription.in_flight == 0, within=LIMIT_SECONDS)
        async with asyncio.timeout(LIMIT_SECONDS):
            await self.broker.aclose()
        await until(lambda: not core_tasks(), within=LIMIT_SECONDS)


@pytest.mark.parametrize("verb", CALLS)
@pytest.mark.parametrize("kind", FAULT_KINDS)
async def test_a_fault_of_the_client_stalls_nothing(verb: str, kind: str) -> None:
    client = FaultyClient()
    await client.start()
    if verb == "nack":
        client.handler_faults.append("unknown")
    if verb == "reject":
        client.handler_faults.append("reject")
    if verb in ("subscribe", "aclose"):
        client.driver.plan["receive"].append("source lost")
    client.driver.plan[verb] += [kind, kind]
    client.publish(4)
    await client.check()


@pytest.mark.parametrize("kind", FAULTS)
async def test_every_exception_of_a_handler_is_a_failed_attempt(kind: str) -> None:
    client = FaultyClient()
    await client.start(concurrency=1)
    client.handler_faults += [kind] * 3
    client.publish(3)
    await client.check()
    assert sum(client.driver.counts.values()) <= 3


class Faults(RuleBasedStateMachine):
    """A state machine that publishes, fails calls and handlers, pauses and resumes."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.client = FaultyClient()

    @initialize()
    def start(self) -> None:
        self.runner.run(self.client.start())

    @rule(count=st.integers(1, 6))
    def publish(self, count: int) -> None:
        self.client.publish(count)

    @rule(verb=st.sampled_from(CALLS), kind=st.sampled_from(FAULT_KINDS), times=st.integers(1, 3))
    def break_a_call(self, verb: str, kind: str, times: int) -> None:
        self.client.driver.plan[verb] += [kind] * times

    @rule(kind=st.sampled_from([*FAULTS, "reject"]))
    def break_a_handler(self, kind: str) -> None:
        self.client.handler_faults.append(kind)

    @rule()
    def pause(self) -> None:
        self.client.subscription.pause()

    @rule()
    def resume(self) -> None:
        self.client.subscription.resume()

    @rule(seconds=st.sampled_from([0.0, 0.005, 0.03]))
    def let_run(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    def teardown(self) -> None:
        try:
            if hasattr(self.client, "subscription"):
                self.runner.run(self.client.check())
        finally:
            self.runner.close()


TestFaults = Faults.TestCase
TestFaults.settings = settings(
    max_examples=12,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
TestFaults = pytest.mark.usefixtures("_impatient")(TestFaults)
