"""`anymq demo`: a retry, a dead letter and its redrive, in some seconds and without a server."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ..broker import Broker
from ..connect import connect
from ..consuming.delivery import Delivery
from ..middleware import Acknowledge, DeadLetter, Middleware, Retry
from ..operating.dead_letters import DeadLetters
from ..operating.letter import Letter
from ..topic import dead_letter_topic
from .common import DEFAULT, Common
from .output import Output

GROUP = "billing"
ATTEMPTS = 3
RETRY = Retry(attempts=ATTEMPTS, initial=0.4, cap=1.0)
TIMEOUT = 60.0
"""Seconds after which a part of the demonstration that did not end is an error."""

FINE, FLAKY, POISON = "o-1", "o-2", "o-3"
ORDERS = {
    FINE: {"number": FINE, "total": 9.5},
    FLAKY: {"number": FLAKY, "total": 20},
    POISON: {"number": POISON, "total": "twelve"},
}


async def demo(*, common: Common = DEFAULT) -> None:
    """Publish three orders: one is handled, one fails twice, one ends in the dead letters.

    The dead letter is then mended and redriven. It runs on a temporary SQLite file, or on the
    broker of `--url`, `--context` or `--app`, whose topics it removes again.
    """
    output = common.output
    async with AsyncExitStack() as stack:
        if common.names_a_broker:
            broker = await stack.enter_async_context(common.connect())
            topic = f"anymq-demo-{secrets.token_hex(4)}"
            stack.push_async_callback(_remove, broker, topic)
            next_steps = ""
        else:
            url = f"sqlite:///{tempfile.mkdtemp(prefix='anymq-demo-')}/shop.db"
            broker = await stack.enter_async_context(connect(url, isolated=True))
            topic = "orders"
            next_steps = _next_steps(url)
        story = _Story(output)
        story.tell("broker", str(broker.url))
        billing = _Billing(story)
        async with _running(broker, topic, billing):
            story.tell("publish", f"{', '.join(ORDERS)} to {topic}")
            for number, order in ORDERS.items():
                await broker.publish(topic, order, key=number, id=number)
            await billing.has_billed(FINE, FLAKY)
            letters = broker.admin.dead_letters(topic, GROUP)
            letter = await _first(letters)
            story.tell("dead letter", f"{letter.message.id} in {letters.topic}: {letter.reason}")
            story.tell("redrive", f"{POISON}, with its total mended")
            await letters.redrive_edited(letter, {"number": POISON, "total": 12})
            await billing.has_billed(POISON)
        lines = "Every order was billed once. No message was lost, and no failure blocked another."
        summary = {
            "topic": topic,
            "group": GROUP,
            "attempts": billing.attempts,
            "dead_letters": await letters.count(),
        }
        output.result("demo", summary, f"\n{lines}{next_steps}")


@dataclass
class _Story:
    """The lines that say what happens."""

    output: Output

    def tell(self, actor: str, text: str) -> None:
        if not self.output.as_json:
            self.output.write(f"{actor:<12} {text}")


@dataclass
class _Billing:
    """The handler, and what it has done."""

    story: _Story
    attempts: dict[str, int] = field(default_factory=dict)
    """By order the attempt that billed it."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def has_billed(self, *numbers: str) -> None:
        """Return when these orders are billed."""
        async with asyncio.timeout(TIMEOUT), self._changed:
            await self._changed.wait_for(lambda: self.attempts.keys() >= set(numbers))

    async def bill(self, order: dict[str, Any], delivery: Delivery) -> None:
        number, attempt = order["number"], delivery.attempt
        if number == FLAKY and attempt < ATTEMPTS:
            self.story.tell("billing", f"{number}, attempt {attempt}: the bank does not answer")
            raise ConnectionError("the bank does not answer")
        if isinstance(order["total"], str):
            self.story.tell("billing", f"{number}, attempt {attempt}: {order['total']!r} is no sum")
            raise ValueError(f"{order['total']!r} is no sum")
        self.story.tell("billing", f"{number}, attempt {attempt}: billed {order['total']}")
        self.attempts[number] = attempt
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def _running(broker: Broker, topic: str, billing: _Billing) -> AsyncIterator[None]:
    chain: list[Middleware] = [Acknowledge(), DeadLetter(), RETRY]
    async with broker.subscribe(
        topic, group=GROUP, handler=billing.bill, concurrency=3, middleware=chain
    ):
        yield


async def _first(letters: DeadLetters) -> Letter:
    """Return the first dead letter as soon as there is one."""
    async with asyncio.timeout(TIMEOUT):
        while not (found := await letters.list(limit=1)):  # noqa: ASYNC110 - only the broker knows
            await asyncio.sleep(0.1)
    return found[0]


async def _remove(broker: Broker, topic: str) -> None:
    for name in (topic, dead_letter_topic(topic, GROUP)):
        await broker.admin.delete(name)


def _next_steps(url: str) -> str:
    return f"""

The file stays, so that you can look:

  export ANYMQ_URL={url}
  anymq topic ls
  anymq sub orders
  anymq pub orders '{{"number": "o-4", "total": 5}}'
  anymq group show orders {GROUP}

Then start your own: anymq new shop"""
