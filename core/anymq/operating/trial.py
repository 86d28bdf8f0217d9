"""`try_topic`: every permission that anymq needs, tried on a temporary topic."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from ..driver.base import Driver
from ..driver.checks import Check
from ..driver.listener import Listener
from ..driver.records import Nack, Received, Record
from ..driver.source import Source
from ..driver.specs import ATTEMPT, SubscribeSpec, TopicSpec
from ..errors import AccessDenied, NotFound, Throttled, UnsupportedOperation, text_of, translate
from ..ids import new_id

STEP_SECONDS = 20.0
"""The most seconds of one step."""
GROUP = "doctor"

CREATE, PUBLISH, JOIN, RECEIVE, RETRY, ACK, DESCRIBE, DELETE = STEPS = (
    "can create topics",
    "can publish",
    "can create groups",
    "can receive",
    "can retry",
    "can acknowledge",
    "can describe",
    "can delete",
)
"""The steps, which are the keys of `Driver.grants`."""

Step = Callable[[], Awaitable[object]]


async def try_topic(driver: Driver, topic: TopicSpec) -> AsyncGenerator[Check, None]:
    """Do with `topic`, which must not exist, all that an application does, and delete it.

    Yield one check for each step. After a failure, the steps that depend on it are skipped. The
    topic is deleted in any case, also when the caller stops early or is cancelled.
    """
    trial = _Trial(driver, topic)
    try:
        async for check in trial.steps():
            yield check
    finally:
        deleted = await trial.end()
    yield deleted


class _Trial:
    """One temporary topic, with one message and one member of one group."""

    def __init__(self, driver: Driver, topic: TopicSpec) -> None:
        self._driver = driver
        self._topic = topic
        self._group = f"{topic.name}.{GROUP}"
        self._source: Source | None = None
        self._held: Received | None = None
        self._failed: str | None = None
        self._exists = False

    async def steps(self) -> AsyncGenerator[Check, None]:
        """Yield the checks of all steps but the last."""
        needed: dict[str, Step] = {
            CREATE: self._create,
            PUBLISH: self._publish,
            JOIN: self._join,
            RECEIVE: self._receive,
        }
        for name, step in needed.items():
            yield await self._check(name, step)
        # None of these depends on another.
        for name, step in {RETRY: self._retry, ACK: self._ack, DESCRIBE: self._describe}.items():
            check = await self._check(name, step)
            self._failed = None if self._held is not None else self._failed
            yield check

    async def end(self) -> Check:
        """Leave the group and delete the topic."""
        failed, self._failed = self._failed, None
        if self._source is not None:
            await self._quietly(self._source.aclose)
        if not self._exists:
            # Half of a topic may have been made.
            await self._quietly(lambda: self._driver.delete_topic(self._topic))
            return Check.skipped(DELETE, f"needs: {failed or CREATE}")
        check = await self._check(DELETE, lambda: self._driver.delete_topic(self._topic))
        if check.outcome == "ok":
            return check
        left = f"the temporary topic {self._topic.native} is left: delete it"
        return Check.failed(DELETE, check.detail, fix=f"{check.fix}; {left}" if check.fix else left)

    async def _check(self, name: str, step: Step) -> Check:
        if self._failed is not None:
            return Check.skipped(name, f"needs: {self._failed}")
        started = time.monotonic()
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await step()
        except TimeoutError:
            error: BaseException = TimeoutError(f"no answer within {STEP_SECONDS:g} s")
        except Exception as raw:
            error = raw
        else:
            return Check.ok(name, f"{(time.monotonic() - started) * 1000:.0f} ms")
        return self._failure(name, error)

    def _failure(self, name: str, raw: BaseException) -> Check:
        if isinstance(raw, UnsupportedOperation):
            return Check.unknown(name, text_of(raw))
        self._failed = name
        error = translate(raw, self._driver.errors, doing=name, where="")
        cause = self._driver.obstacle
        detail = text_of(raw) + (f" ({text_of(cause)})" if cause is not None else "")
        fix = "see the server's log"
        if isinstance(error, Throttled):
            fix = "free memory, disk or quota on the server"
        elif isinstance(error, AccessDenied | NotFound):
            fix = self._driver.grants.get(name, "give this user the right to do so")
        return Check.failed(name, detail, fix=fix)

    async def _quietly(self, step: Step) -> None:
        """Run a step whose failure changes nothing."""
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await step()
        except Exception:
            return

    async def _create(self) -> None:
        await self._driver.declare(self._topic)
        self._exists = True

    async def _publish(self) -> None:
        await self._store(self._record({}))

    async def _store(self, record: Record) -> None:
        (outcome,) = await self._driver.publish([record])
        if isinstance(outcome, BaseException):
            raise outcome

    async def _join(self) -> None:
        source = await self._driver.subscribe(self._subscription(), Listener())
        assert isinstance(source, Source)
        self._source = source

    async def _receive(self) -> None:
        assert self._source is not None
        self._held = None
        while self._held is None:
            for received in await self._source.receive(1, 1.0):
                self._held = received

    async def _retry(self) -> None:
        assert self._source is not None
        assert self._held is not None
        held = self._held
        copy = self._record({**held.headers, ATTEMPT: "2"})
        native = held.redeliveries + 2
        await self._source.nack([Nack(held, 0.0, 2, native_attempt=native, copy=copy)])
        await self._receive()

    async def _ack(self) -> None:
        assert self._source is not None
        assert self._held is not None
        await self._source.ack([self._held])

    async def _describe(self) -> None:
        await self._driver.describe_topic(self._topic)
        await self._driver.describe_group(self._topic, self._group)

    def _record(self, headers: dict[str, str]) -> Record:
        identity = new_id()
        own = {**headers, self._driver.binding.id: identity}
        return Record(
            topic=self._topic.name, id=identity, unique=identity, body=b"doctor", headers=own
        )

    def _subscription(self) -> SubscribeSpec:
        return SubscribeSpec(
            topic=self._topic,
            group=GROUP,
            native_group=self._group,
            start="earliest",
            ack_deadline=30.0,
            prefetch=1,
            first=1,
            member=new_id(),
        )
