"""Options, defaults and links: what the pages state is what the code has."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from anymq import App, Batch, Broker, Deadline, Idempotency, KillSwitch, Retry
from anymq.testing.tools import eventually
from anymq_kafka import KafkaOptions
from anymq_memory import MemoryOptions
from anymq_nats import NatsOptions
from anymq_rabbitmq import RabbitMQOptions
from anymq_redis import RedisOptions
from anymq_sqlite import SqliteOptions
from docs.site import generated
from tests.docs.pages import ROOT

DOCS = ROOT / "docs"
# The options of every URL, as a broker takes them.
COMMON: type[Any] = get_type_hints(Broker.__init__)["options"]
OPTIONS: dict[str, type[Any]] = {
    "kafka": KafkaOptions,
    "memory": MemoryOptions,
    "nats": NatsOptions,
    "rabbitmq": RabbitMQOptions,
    "redis": RedisOptions,
    "sqlite": SqliteOptions,
}
GENERATED = {Path("docs", name) for name, _ in generated()}
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(DOCS.rglob("*.md")),
]

_ROW = re.compile(r"\| `([a-z_]+)` \| ([^|]+) \| [^|]+ \|")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)


def options_of(cls: type[Any]) -> dict[str, str]:
    """Return the options of a URL with their defaults, as the pages write them."""
    return {item.name: _written(item.default) for item in fields(cls)}


def _written(default: object) -> str:
    if default is None:
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float) and default.is_integer():
        return str(int(default))
    return str(default)


def table_of(page: Path) -> dict[str, str]:
    """Return the options that a page lists, with their defaults."""
    text = page.read_text(encoding="utf-8")
    table = text.partition("| option | default | meaning |\n")[2].partition("\n\n")[0]
    return {name: default.strip() for name, default in _ROW.findall(table)}


@pytest.mark.parametrize("backend", OPTIONS)
def test_a_backends_page_lists_its_options(backend: str) -> None:
    page = DOCS / "backends" / f"{backend}.md"
    assert table_of(page) == options_of(OPTIONS[backend])


def test_the_guide_lists_the_options_of_every_url() -> None:
    assert table_of(DOCS / "guides" / "connecting.md") == options_of(COMMON)


async def test_the_page_of_metrics_lists_what_an_app_exposes() -> None:
    app = App("memory://", name="orders")

    async def handle(order: str) -> None: ...

    app.subscriber("orders", group="billing")(handle)
    async with app:
        await app.publish("orders", "o-1")
        text = await eventually(app.metrics, lambda text: "anymq_consumer_lag_time" in text)
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    exposed = set(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    assert set(re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.MULTILINE)) == exposed


def test_the_guarantees_show_the_defaults() -> None:
    text = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    connect, retry, switch, batch = COMMON(), Retry(), KillSwitch(), Batch()
    once, subscribe = Idempotency("memory://"), _defaults(Broker.subscribe)
    lease = subscribe["ack_deadline"]
    shown = {
        "`connect_timeout`, `publish_timeout` (URL)": f"{connect.connect_timeout:g} s each",
        "`max_body` (URL)": f"{connect.max_body:,} bytes",
        "`concurrency`": f"{subscribe['concurrency']}",
        "`ack_deadline`": f"{lease:g} s, renewed every {lease / 3:g} s",
        "`drain_timeout`": f"{subscribe['drain_timeout']:g} s",
        "`Retry`": f"{retry.attempts} attempts; waits double from {retry.initial:g} s "
        f"to {retry.cap:g} s, each shortened at random",
        "`Deadline`": f"{Deadline().seconds / 60:g} min",
        "`Idempotency`": f"`lease` {once.lease:g} s, `keep` {once.keep / 86_400:g} days",
        "`Batch`": f"`size` {batch.size}, `wait` {batch.wait:g} s",
        "`KillSwitch`": f"`threshold` {switch.threshold:g} of at least {switch.minimum} outcomes "
        f"within {switch.window:g} s, `pause` {switch.pause:g} s",
    }
    assert connect.connect_timeout == connect.publish_timeout
    for setting, default in shown.items():
        assert f"| {setting} | {default} |" in text


def _defaults(function: Any) -> Mapping[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {item.name: item.default for item in parameters}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        in_the_site_alone = target.resolve().relative_to(ROOT) in GENERATED
        assert target.exists() or in_the_site_alone, link
        if anchor and not in_the_site_alone:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def _anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
