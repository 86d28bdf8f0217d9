"""`anymq trace`: the messages of one flow with their failures, on every backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import anymq as library
from anymq import AccessDenied, Acknowledge, DeadLetter, Middleware, Retry
from anymq.driver import Start, TopicSpec
from anymq.testing import random_name
from anymq.testing.tools import until
from anymq_sqlite.driver import SqliteDriver
from tests.cli.support import Command, run, start

CHAIN: list[Middleware] = [Acknowledge(), DeadLetter(), Retry(attempts=2, initial=0.01, cap=0.01)]
SECONDS = 60.0


@dataclass
class Shop:
    """A flow over four topics: an order causes a payment, which is shipped, and a failing audit."""

    topic: str
    id: str = field(default_factory=random_name)
    payment: str = ""

    def __post_init__(self) -> None:
        self.orders, self.payments, self.shipments, self.audit = (
            f"{self.topic}.{name}" for name in ("orders", "payments", "shipments", "audit")
        )

    @property
    def arguments(self) -> list[str]:
        """The options that restrict the search to these topics."""
        names = (self.shipments, self.payments, self.orders, self.audit)
        return [each for name in names for each in ("--topic", name)]

    async def run(self, url: str) -> None:
        """Publish the order, and return when all of it has happened."""
        shipped = False

        async def order(body: str) -> None:
            if body == "of another flow":
                return
            receipt = await broker.publish(self.payments, "paid", key="k")
            self.payment = receipt.id
            await broker.publish(self.audit, "noted")

        async def pay(body: str) -> None:
            nonlocal shipped
            await broker.publish(self.shipments, "shipped")
            shipped = True

        async def fail(body: str) -> None:
            raise ValueError("no\nsum")

        def handling(topic: str, handler: Any) -> library.Subscription:
            return broker.subscribe(topic, group="g", handler=handler, middleware=CHAIN)

        async with library.connect(url) as broker:
            await broker.admin.declare(self.shipments)
            async with (
                handling(self.orders, order),
                handling(self.payments, pay),
                handling(self.audit, fail),
            ):
                await broker.publish(self.orders, "o", id=self.id, key="o-17")
                await broker.publish(self.orders, "of another flow")
                letters = broker.admin.dead_letters(self.audit, "g")
                async with asyncio.timeout(SECONDS):
                    while await letters.count() < 1:  # noqa: ASYNC110 - only the broker knows
                        await asyncio.sleep(0.05)
                await until(lambda: shipped, within=SECONDS, what="shipped")


@pytest.fixture
def shop(url: str, topic: str) -> Shop:
    """The flow, after it has run."""
    made = Shop(topic)
    asyncio.run(made.run(url))
    return made


def places(data: Any) -> list[tuple[int, str]]:
    """Return depth and topic of each message, in order."""
    return [(each["depth"], each["topic"]) for each in data["messages"]]


def test_a_flow_as_a_tree(anymq: Command, url: str, shop: Shop) -> None:
    """The flow is looked for twice, and nothing of it is settled by that."""
    looking = ("trace", shop.id, "--url", url, *shop.arguments)
    lag = asyncio.run(_lag(url, shop.audit))
    data = anymq(*looking, "--json").data
    assert places(data) == [
        (0, shop.orders),
        (1, shop.payments),
        (2, shop.shipments),
        (1, shop.audit),
    ]
    order, payment, shipment, audit = data["messages"]
    assert (order["id"], order["key"], order["correlation_id"]) == (shop.id, "o-17", None)
    assert (payment["causation_id"], payment["correlation_id"]) == (shop.id, shop.id)
    assert shipment["causation_id"] == payment["id"] == shop.payment
    assert [len(each["stored"]) for each in data["messages"]] == [1, 1, 1, 1]
    assert (data["complete"], data["unread"], data["id"]) == (True, [], shop.id)
    assert (data["read"], data["topics"]) == (6, 5)
    (letter,) = audit["dead_letters"]
    assert (letter["group"], letter["state"], letter["attempts"]) == ("g", "open", 2)
    assert letter["stored_in"] == f"{shop.audit}.g.dlq"
    assert letter["error_type"] == "builtins.ValueError"

    shown = anymq(*looking, "--body")
    assert shown.err == "4 messages, 1 dead letter (1 open); read 6 messages of 5 topics\n"
    lines = shown.out.splitlines()
    assert lines[0].startswith(f"{shop.orders}  {shop.id}  key o-17  2")
    assert lines[1:8:2] == ["│  o", "│  │  paid", "│        shipped", "      noted"]
    assert [line.partition("  ")[0] for line in lines[2:7:2]] == [
        f"├─ {shop.payments}",
        "│",
        f"└─ {shop.audit}",
    ]
    failure = "      ✗ g: dead letter at attempt 2: ValueError: no sum (open, in "
    assert lines[8].startswith(f"{failure}{shop.audit}.g.dlq at ")
    assert asyncio.run(_lag(url, shop.audit)) == lag


def test_the_effects_of_one_message(anymq: Command, url: str, shop: Shop) -> None:
    found = anymq("trace", shop.payment, "--url", url, *shop.arguments)
    assert len(found.out.splitlines()) == 2
    assert f"it is part of the flow {shop.id}" in found.err
    data = anymq("trace", shop.payment, "--url", url, *shop.arguments, "--json").data
    assert places(data) == [(0, shop.payments), (1, shop.shipments)]


def test_what_became_of_the_dead_letters(anymq: Command, url: str, shop: Shop) -> None:
    asyncio.run(_redrive(url, shop.audit))
    data = anymq("trace", shop.id, "--url", url, "-t", shop.audit, "--json").data
    (audit,) = data["messages"]
    assert [each["state"] for each in audit["dead_letters"]] == ["redriven"]
    assert len(audit["stored"]) == 2


def test_since(anymq: Command, url: str, shop: Shop) -> None:
    looking = ("trace", shop.id, "--url", url, "-t", shop.orders, "--since")
    assert len(anymq(*looking, "1h", "--json").data["messages"]) == 1
    assert "(read 0 messages" in anymq(*looking, "@2100-01-01", code=1).err


def test_a_message_that_a_group_has_begun_twice(
    anymq: Command, backend: str, url: str, topic: str
) -> None:
    """NATS, RabbitMQ and unordered groups on Kafka do not report it."""
    id = asyncio.run(_begin_twice(url, topic))
    (message,) = anymq("trace", id, "--url", url, "-t", topic, "--json").data["messages"]
    found = [(each["group"], each["attempts"]) for each in message["pending"]]
    assert found == ([("g", 2)] if backend in ("memory", "sqlite", "redis") else [])
    shown = anymq("trace", id, "--url", url, "-t", topic)
    assert shown.out.count("↻ g: attempt 2, not settled") == len(found)
    assert shown.err.startswith("1 message, 1 unsettled attempt; " if found else "1 message; ")


def test_an_unknown_id(anymq: Command, url: str, shop: Shop) -> None:
    failed = anymq("trace", "no such id", "--url", url, *shop.arguments, code=1)
    assert failed.out == ""
    line, hint = failed.err.splitlines()
    assert line.startswith("anymq: no message has the id or the correlation id 'no such id' (")
    assert hint.startswith("hint: ")
    unknown = anymq("trace", "x", "--url", url, "-t", f"{shop.orders}s", code=1)
    assert unknown.err.startswith(f"anymq: there is no topic '{shop.orders}s'; did you mean ")
    assert len(unknown.err.splitlines()) == 1


@pytest.mark.parametrize("scheme", ["kafka", "amqp", "nats", "redis"])
def test_a_dead_broker(anymq: Command, scheme: str) -> None:
    url = f"{scheme}://u:hidden@127.0.0.1:1?connect_timeout=1"
    failed = anymq("trace", "x", "--url", url, "--json", code=1)
    assert failed.envelopes[0]["kind"] == "error"
    assert len(failed.err.splitlines()) == 1
    assert "hidden" not in failed.err + failed.out


# What is the same on every backend, on SQLite.


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The URL of a broker with no topic but those of the test."""
    return f"sqlite:///{tmp_path}/trace.db"


def test_all_topics(anymq: Command, file: str) -> None:
    shop = Shop("shop")
    asyncio.run(shop.run(file))
    data = anymq("trace", shop.id, "--url", file, "--json").data
    assert len(data["messages"]) == 4
    assert data["topics"] == 5


def test_no_topic_at_all(anymq: Command, file: str) -> None:
    assert "read 0 messages of 0 topics" in anymq("trace", "x", "--url", file, code=1).err


def test_a_topic_that_cannot_be_read(
    anymq: Command, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among all topics it is left out; by name it is an error."""
    browse = SqliteDriver.browse
    asyncio.run(_publish(file, [("secret", "x", {}), ("t", "x", {})]))

    def refusing(driver: SqliteDriver, topic: TopicSpec, start: Start = "earliest") -> Any:
        if topic.name == "secret":
            raise AccessDenied("not for you")
        return browse(driver, topic, start)

    monkeypatch.setattr(SqliteDriver, "browse", refusing)
    found = anymq("trace", "x", "--url", file)
    assert found.out.startswith("t  x  ")
    assert "warning: secret is left out: " in found.err
    data = anymq("trace", "x", "--url", file, "--json").data
    assert (data["complete"], data["topics"]) == (False, 1)
    assert [each["topic"] for each in data["unread"]] == ["secret"]
    assert "not for you" in anymq("trace", "x", "--url", file, "-t", "secret", code=1).err


def test_progress_on_a_terminal(file: str) -> None:
    asyncio.run(_publish(file, [("t", "x", {})]))
    terminal, end = pty.openpty()
    with start("trace", "x", "--url", file, stderr=end) as process:
        os.close(end)
        written = b""
        with contextlib.suppress(OSError):  # Linux reports the end of a terminal so.
            while part := os.read(terminal, 4096):
                written += part
        os.close(terminal)
    assert process.returncode == 0
    assert b"reading messages" in written
    assert b"1 message; read 1 message of 1 topic" in written


def test_causes_that_are_read_after_their_effects(anymq: Command, file: str) -> None:
    """The correlation ids differ, so that the causes alone lead from one to the next."""
    chain = {"d": "c", "c": "b", "b": "a", "a": None}
    asyncio.run(_publish(file, [(id, id, {"causation_id": cause}) for id, cause in chain.items()]))
    topics = [each for id in chain for each in ("-t", id)]
    data = anymq("trace", "a", "--url", file, *topics, "--json").data
    assert places(data) == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]


def test_a_correlation_id_that_is_no_message(anymq: Command, file: str) -> None:
    given = {"correlation_id": "flow"}
    asyncio.run(
        _publish(
            file,
            [
                ("t", "one", given),
                ("t", "two", given | {"causation_id": "elsewhere"}),
                ("t", "other", {"causation_id": "one"}),
            ],
        )
    )
    found = anymq("trace", "flow", "--url", file).out
    assert [line.split()[1] for line in found.splitlines()] == ["one", "two"]
    assert "caused by elsewhere" in found


def test_a_circle_of_causes(anymq: Command, file: str) -> None:
    circle = [("t", "a", {"causation_id": "b"}), ("t", "b", {"causation_id": "a"})]
    asyncio.run(_publish(file, [*circle, ("t", "c", {"causation_id": "c"})]))
    assert places(anymq("trace", "b", "--url", file, "--json").data) == [(0, "t"), (1, "t")]
    assert places(anymq("trace", "c", "--url", file, "--json").data) == [(0, "t")]


def test_at_most_as_many_as_asked_for(anymq: Command, file: str) -> None:
    given = {"correlation_id": "flow"}
    asyncio.run(_publish(file, [("t", f"m{number}", given) for number in range(5)]))
    limited = anymq("trace", "flow", "--url", file, "--max", "3")
    assert len(limited.out.splitlines()) == 3
    assert "warning: stopped after 3 stored messages: --max takes more" in limited.err
    assert anymq("trace", "flow", "--url", file, "--max", "3", "--json").data["complete"] is False
    assert "stopped" not in anymq("trace", "flow", "--url", file, "--max", "5").err
    assert anymq("trace", "flow", "--url", file, "--max", "0", code=2).out == ""


def test_a_time_that_is_none(anymq: Command, file: str) -> None:
    failed = anymq("trace", "x", "--url", file, "--since", "yesterday", code=2)
    assert "'yesterday' is no time" in failed.err


def test_a_dead_letter_whose_message_is_gone(anymq: Command, file: str) -> None:
    shop = Shop("shop")
    asyncio.run(shop.run(file))
    asyncio.run(_purge_and_drop(file, shop.audit))
    (audit,) = [
        each
        for each in anymq("trace", shop.id, "--url", file, "--json").data["messages"]
        if each["topic"] == shop.audit
    ]
    assert audit["stored"] == []
    assert [each["state"] for each in audit["dead_letters"]] == ["redriven or dropped"]
    assert "no longer stored" in anymq("trace", shop.id, "--url", file).out


def test_a_deep_flow_and_hostile_text(anymq: Command, file: str) -> None:
    deep = [
        ("t", f"m{number}", {"causation_id": f"m{number - 1}", "type": "a\u2028b" * 9})
        for number in range(1, 1500)
    ]
    asyncio.run(_publish(file, [("t", "m0", {}), *deep]))
    found = anymq("trace", "m0", "--url", file, "--max", "9999")
    assert len(found.out.split("\n")) == 1501
    assert found.out.splitlines()[-1].endswith("ms") or "s" in found.out.splitlines()[-1]


def test_a_terminal_without_unicode(file: str) -> None:
    shop = Shop("shop")
    asyncio.run(shop.run(file))
    found = run("trace", shop.id, "--url", file, env={"PYTHONIOENCODING": "ascii"})
    assert (found.code, found.out.splitlines()[1][:3]) == (0, "|- ")
    assert found.out.isascii()


async def _lag(url: str, topic: str) -> int | None:
    async with library.connect(url) as broker:
        return (await broker.admin.describe(topic, "g")).lag


async def _redrive(url: str, topic: str) -> None:
    async with library.connect(url) as broker:
        assert await broker.admin.dead_letters(topic, "g").redrive_all() == 1


async def _publish(url: str, messages: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    async with library.connect(url) as broker:
        for topic, id, options in messages:
            await broker.publish(topic, "x", id=id, **options)


async def _purge_and_drop(url: str, topic: str) -> None:
    async with library.connect(url) as broker:
        await broker.admin.dead_letters(topic, "g").drop_all()
        await broker.admin.purge(topic)


async def _begin_twice(url: str, topic: str) -> str:
    """Return the id of a message whose second attempt failed."""
    async with library.connect(url) as broker:
        receipt = await broker.publish(topic, "x")
        async with broker.subscribe(topic, group="g") as deliveries:
            async for delivery in deliveries:
                await delivery.nack(0 if delivery.attempt == 1 else 600)
                if delivery.attempt == 2:
                    break
    return receipt.id
