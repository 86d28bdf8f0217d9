"""A crash of the server may forget the latest change that it confirmed: nothing relies on that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiormq import Channel

from anymq_rabbitmq import RabbitMQDriver
from anymq_rabbitmq.client import protocol
from anymq_rabbitmq.groups.group import Group
from tests.adapters.rabbitmq.support import Bench, eventually, store, take

pytestmark = pytest.mark.rabbitmq

NAMED = ("declare_exchange", "delete_exchange", "bind_exchange", "bind_queue")


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was bound, or deleted: a queue that is made is bound after that."""
    made: list[str] = []

    def noting(request: Callable[..., Any]) -> Callable[..., Any]:
        def ask(channel: Channel, name: str = "", *args: Any, **values: Any) -> Awaitable[Any]:
            made.append(name)
            return request(channel, name, *args, **values)  # type: ignore[no-any-return]

        return ask

    for name in NAMED:
        monkeypatch.setattr(protocol, name, noting(getattr(protocol, name)))
    monkeypatch.setattr(Channel, "queue_delete", noting(Channel.queue_delete))
    return made


def sealed(changes: list[str]) -> bool:
    """Whether there were others, and this is behind them; forgets them."""
    others = [name for name in changes if not name.startswith(protocol.FSYNC_EXCHANGE)]
    last = changes[-1]
    changes.clear()
    return bool(others) and last.startswith(protocol.FSYNC_EXCHANGE)


async def test_what_is_made_is_sealed(bench: Bench, changes: list[str]) -> None:
    driver = await bench.open()
    assert sealed(changes)
    source = await bench.join(driver, start="latest")
    assert sealed(changes)
    await store(driver, [bench.record(1)])
    (received,) = await take(source, 1)
    await source.nack([bench.nack(received, 0.1)])
    assert sealed(changes)
    await take(source, 1)
    await driver._delayed.prepare()
    assert sealed(changes)
    await driver.purge(bench.topic())
    assert sealed(changes)


async def test_what_is_filled_is_sealed(
    bench: Bench, driver: RabbitMQDriver, changes: list[str]
) -> None:
    await store(driver, [bench.record(1)])
    await take(await bench.join(driver), 1)
    jobs = Group(bench.name, f"{bench.name}.billing").checkpoints

    async def is_filled() -> bool:
        return jobs in changes and changes[-1].startswith(protocol.FSYNC_EXCHANGE)

    await eventually(is_filled)


async def test_what_is_deleted_is_sealed(
    bench: Bench, driver: RabbitMQDriver, changes: list[str]
) -> None:
    source = await bench.join(driver, start="latest")
    await source.aclose()
    changes.clear()
    await driver.delete_group(bench.topic(), f"{bench.name}.billing")
    assert sealed(changes)
    await driver.delete_topic(bench.topic())
    assert sealed(changes)


async def test_a_seal_leaves_nothing_behind(driver: RabbitMQDriver, changes: list[str]) -> None:
    await protocol.fsync_metadata(driver._consuming)
    assert not await protocol.exchange_exists(driver._consuming, changes[-1])
