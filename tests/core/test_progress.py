"""The progress watchdog: it replaces a stalled source, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from anymq.driver import Source, SourceLost, progress
from anymq.driver.progress import MAX_INTERVAL, Progress
from anymq.testing.tools import until
from tests.core.scripted import ScriptedSource, scripted

HANG = object()


def source_with_answers(*answers: object) -> Source:
    """Return a source whose `undelivered` returns, or raises, these answers in turn."""
    left = list(answers)

    class Answering(ScriptedSource):
        def __init__(self) -> None:
            self.looked_at = 0

        async def undelivered(self) -> object:
            self.looked_at += 1
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, BaseException):
                raise answer
            if answer is HANG:
                await asyncio.Event().wait()
            return answer

    return Answering()


async def looks(source: Source, *moments: float, moved: float | None = None) -> None:
    progress = Progress(source, 0.0)
    for moment in moments:
        if moved is not None and moment > moved:
            progress.moved(moved)
            moved = None
        await progress.look(moment)


async def test_the_same_answer_twice_means_a_stalled_source() -> None:
    with pytest.raises(SourceLost, match="delivers none"):
        await looks(source_with_answers(("q", 7)), 31, 62)


@pytest.mark.parametrize(
    "answers",
    [
        (None,),
        (("q", 7), ("q", 8), ("q", 9), ("q", 10)),
        (("q", 7), None, ("q", 7), None),
        (ConnectionError("down"),),
        (("q", 7), ConnectionError("down"), ("q", 7), ConnectionError("down")),
    ],
)
async def test_other_sources_are_left_running(answers: tuple[object, ...]) -> None:
    await looks(source_with_answers(*answers), 31, 62, 400, 800)


async def test_a_delivery_in_between_restarts_the_measurement() -> None:
    await looks(source_with_answers(("q", 7)), 31, 62, moved=40)


async def test_the_interval_between_checks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "ANSWER_TIMEOUT", 0.5)
    source = source_with_answers(HANG)
    await looks(source, 1, 29)
    assert source.looked_at == 0  # type: ignore[attr-defined]
    async with asyncio.timeout(30):
        await looks(source, 31)


async def test_an_idle_source_is_checked_at_growing_intervals() -> None:
    source = source_with_answers(None)
    hour = 3600
    await looks(source, *range(hour))
    assert hour / MAX_INTERVAL <= source.looked_at < hour / MAX_INTERVAL + 6  # type: ignore[attr-defined]


@pytest.mark.parametrize("group", ["g", None])
async def test_a_stalled_source_is_replaced(
    group: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent: list[ScriptedSource] = []
    receive: Callable[..., object] = ScriptedSource.receive

    async def mute(self: ScriptedSource, limit: int, wait: float) -> object:
        if not silent:
            silent.append(self)
        if self is silent[0]:
            await asyncio.sleep(0.01)
            return ()
        return await receive(self, limit, wait)  # type: ignore[misc]

    async def undelivered(self: ScriptedSource) -> object:
        return ("one waits", 1) if self is silent[0] else None

    monkeypatch.setattr(ScriptedSource, "stall", 0.05)
    monkeypatch.setattr(ScriptedSource, "receive", mute)
    monkeypatch.setattr(ScriptedSource, "undelivered", undelivered, raising=False)
    broker, driver = await scripted()
    async with broker.subscribe("t", group=group) as deliveries:
        await until(lambda: len(driver.sources) == 2)
        driver.sources[-1].put("x")
        async with asyncio.timeout(10):
            delivery = await anext(deliveries)
        assert delivery.message.body == b"x"
        await delivery.ack()
    await broker.aclose()
