"""On real servers, a measurement counts every message and deletes everything it created."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aio_pika.exceptions import ChannelNotFoundEntity
from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]

import anymq
from anymq.url import URL
from benchmarks.speed.contestants import contestant
from benchmarks.speed.contestants.anymq import STORE_VARIABLE
from benchmarks.speed.environment import Environment
from benchmarks.speed.measurement import measure
from benchmarks.speed.targets import Target
from benchmarks.speed.workloads import WORKLOADS
from brokers import NAMES, server

BY_NAME = {workload.name: workload for workload in WORKLOADS}


async def on_kafka(native: Any, url: str, token: str) -> list[str]:
    hosts: Any = [f"{host}:{port}" for host, port in URL.parse(url).hosts]
    admin = AIOKafkaAdminClient(bootstrap_servers=hosts)
    await admin.start()
    try:
        return [name for name in await admin.list_topics() if token in name]
    finally:
        await admin.close()


async def on_rabbitmq(native: Any, url: str, token: str) -> list[str]:
    found: list[str] = []
    for name in (f"{token}-1", f"{token}-1.{token}-1-group"):
        channel = await native.channel()
        try:
            await channel.declare_queue(name, passive=True)
            found.append(name)
        except ChannelNotFoundEntity:
            pass  # the queue has been deleted
        finally:
            await channel.close()
    return found


async def on_nats(native: Any, url: str, token: str) -> list[str]:
    streams = await native.jetstream().streams_info()
    return [one.config.name for one in streams if token in one.config.name]


async def on_redis(native: Any, url: str, token: str) -> list[str]:
    return [name async for name in native.scan_iter(match=f"*{token}*", count=1000)]


LEFT: dict[str, Callable[[Any, str, str], Awaitable[list[str]]]] = {
    "kafka": on_kafka,
    "rabbitmq": on_rabbitmq,
    "nats": on_nats,
    "redis": on_redis,
}


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in NAMES])
def target(request: pytest.FixtureRequest) -> Target:
    backend: str = request.param
    return Target(backend=backend, url=server(backend).url)


@pytest.mark.parametrize("name", ["anymq", "raw"])
async def test_messages_are_counted_and_topics_deleted(
    target: Target, name: str, tmp_path: Path
) -> None:
    async with Environment(target, tmp_path) as environment:
        found = contestant(target.backend, name)
        sample = await measure(environment, BY_NAME["consume"], found, count=300, round=0)
        token = environment.token
    assert sample.account is not None
    assert (sample.account.messages, sample.account.lost) == (300, 0)
    await _nothing_left(target, token)


@pytest.mark.redis
async def test_idempotency_claims_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(backend="redis", url=server("redis").url)
    monkeypatch.setenv(STORE_VARIABLE, target.url)
    async with Environment(target, tmp_path) as environment:
        found = contestant("redis", "anymq+redis")
        await measure(environment, BY_NAME["consume"], found, count=100, round=0)
        token = environment.token
    await _nothing_left(target, token)


async def _nothing_left(target: Target, token: str) -> None:
    left: list[str] = []
    async with anymq.connect(target.url) as broker:
        for _ in range(50):  # deletion may continue after the answer
            left = await LEFT[target.backend](broker.native, target.url, token)
            if not left:
                return
            await asyncio.sleep(0.1)
    raise AssertionError(f"left behind: {left}")
