"""Every contestant delivers all messages and settles those it has handled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex

import pytest
from _pytest.mark import ParameterSet

from anymq.driver import utc
from anymq.driver.registry import load_driver
from anymq.ids import new_id
from anymq.message import Message
from anymq.wire.cloudevents import encode
from benchmarks.speed.check import check
from benchmarks.speed.contestant import BenchTopic, Contestant, Item
from benchmarks.speed.contestants import BACKENDS, contestants, faststream, mq_bridge
from benchmarks.speed.contestants.anymq import STORE_VARIABLE
from benchmarks.speed.contestants.headers import Headers
from benchmarks.speed.payload import Bodies, head_of
from brokers import NAMES, server

MESSAGES = 200
PATIENCE = 240.0
STORED = "anymq+redis"
# Messages fetched and not handled by these are redelivered long after they have ended.
KEEP_WHAT_THEY_FETCH = (faststream.OnRedis, mq_bridge.OnNATS, mq_bridge.OnRedis)


def cases(ability: str | None = None, *, leave_out: Sequence[str] = ()) -> list[ParameterSet]:
    """Each contestant with this ability, with the marks of the servers it needs."""
    found: list[ParameterSet] = []
    for backend in BACKENDS:
        for kind in contestants(backend):
            needs = {backend, "redis"} if kind.name == STORED else {backend}
            marks = [getattr(pytest.mark, name) for name in NAMES if name in needs]
            if kind.name not in leave_out and ability in (None, *kind.can):
                found.append(pytest.param(kind, id=f"{backend}-{kind.name}", marks=marks))
    return found


@pytest.fixture
def url(kind: type[Contestant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(STORE_VARIABLE, server("redis").url)
    if kind.backend == "memory":
        return f"memory://{token_hex(4)}"
    return (
        f"sqlite:///{tmp_path}/bench.db" if kind.backend == "sqlite" else server(kind.backend).url
    )


@pytest.mark.parametrize("kind", cases())
async def test_nothing_is_lost(kind: type[Contestant], url: str) -> None:
    assert kind.missing() is None
    handled = await check(kind, url, MESSAGES)
    assert sorted(handled) == list(range(MESSAGES))


@pytest.mark.parametrize("kind", cases("typed"))
async def test_models_are_read(kind: type[Contestant], url: str) -> None:
    handled = await check(kind, url, MESSAGES, typed=True)
    assert sorted(handled) == list(range(MESSAGES))


class Consumption:
    """Counts the messages of a contestant over several calls of `consume`."""

    def __init__(self, contestant: Contestant) -> None:
        self.handled: Counter[int] = Counter()
        self._contestant = contestant
        self._loop = asyncio.get_running_loop()
        self._came = asyncio.Event()

    def _handle(self, body: bytes) -> None:
        self.handled[head_of(body, typed=False)[1]] += 1
        self._loop.call_soon_threadsafe(self._came.set)

    async def until(self, done: Callable[[], bool]) -> None:
        """Consume until done."""
        await self._contestant.consume(self._handle, done, typed=False)

    async def cancelled_at(self, count: int) -> None:
        """Consume until `count` distinct messages are handled, then cancel."""
        consuming = asyncio.ensure_future(self.until(lambda: False))
        while len(self.handled) < count:
            self._came.clear()
            await self._came.wait()
        consuming.cancel()
        await asyncio.wait({consuming})
        if not consuming.cancelled():
            consuming.result()


@pytest.mark.parametrize("kind", cases("consume", leave_out=("anymq+idempotency", STORED)))
async def test_handled_messages_are_settled(kind: type[Contestant], url: str) -> None:
    contestant = kind(BenchTopic(url=url, name=f"settled-{token_hex(6)}"))
    consumption = Consumption(contestant)
    handled = consumption.handled
    bodies = Bodies(0, 64)
    async with asyncio.timeout(PATIENCE):
        await contestant.prepare()
        async with contestant.publishing() as publishing:
            await publishing.many(bodies.items(0, MESSAGES))
            if kind not in KEEP_WHAT_THEY_FETCH:
                await consumption.until(lambda: len(handled) >= MESSAGES // 2)
            if len(handled) < MESSAGES:
                await consumption.until(lambda: len(handled) >= MESSAGES)
            await publishing.many(bodies.items(MESSAGES, 10))
            await consumption.cancelled_at(MESSAGES + 10)
            if kind not in KEEP_WHAT_THEY_FETCH:
                await publishing.one(bodies.item(MESSAGES + 10))
                await consumption.until(lambda: len(handled) > MESSAGES + 10)
    if kind in KEEP_WHAT_THEY_FETCH:
        # They settle in the background, so the last messages may be redelivered; and a cancelled
        # read may take the next message with it.
        assert set(handled) == set(range(MESSAGES + 10))
    else:
        assert handled == Counter(range(MESSAGES + 11))


def test_names_are_unique_on_a_backend() -> None:
    for backend in BACKENDS:
        kinds = contestants(backend)
        assert kinds[0].name == "anymq"
        assert len({kind.name for kind in kinds}) == len(kinds)
        assert all(kind.how and kind.durability and kind.can for kind in kinds)
        assert {kind.backend for kind in kinds} == {backend}


@pytest.mark.parametrize(
    ("backend", "made"),
    [
        ("kafka", Headers("orders", prefix="ce_", content_type="content-type", keyed=False)),
        ("amqp", Headers("orders", prefix="cloudEvents:", content_type=None, keyed=True)),
        ("nats", Headers("orders", prefix="ce-", content_type="ce-datacontenttype", keyed=True)),
        ("redis", Headers("orders", prefix="ce-", content_type="content-type", keyed=True)),
    ],
)
def test_raw_clients_carry_the_headers_that_anymq_sends(backend: str, made: Headers) -> None:
    message = Message(
        id=new_id(),
        topic="orders",
        body=b"",
        key="k-1",
        content_type="application/octet-stream",
        type="orders",
        source="anymq",
        time=utc(1_800_000_000.5),
    )
    sent = encode(message, load_driver(backend).binding, unique=message.id).headers
    items = [Item(body=b"", key="k-1"), Item(body=b"", key="k-1")]
    (_, first, headers), (_, second, _) = made.of(items)
    assert headers.keys() == sent.keys()
    assert {name: len(value) for name, value in headers.items()} == {
        name: len(value) for name, value in sent.items()
    }
    assert first != second
