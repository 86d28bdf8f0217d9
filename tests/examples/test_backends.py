"""The same program has the same figures on all six backends."""

from __future__ import annotations

from pathlib import Path

import pytest

from anymq import connect
from brokers import server
from examples.orders.cli import DATA
from examples.orders.feed import feed
from examples.orders.invoices import read_invoices
from examples.orders.reconcile import figures_of_file
from examples.orders.run import Run
from examples.orders.serve import application
from examples.orders.services import SERVICES
from examples.orders.system import settle
from examples.orders.view import View
from tests.examples.support import KEYS, as_object, program, row, write

LIMIT = 150

SERVERS = [
    pytest.param(name, marks=getattr(pytest.mark, name))
    for name in ("kafka", "rabbitmq", "nats", "redis")
]


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name: str = request.param
    if name == "memory":
        return "memory://"
    return f"sqlite:///{tmp_path}/orders.db" if name == "sqlite" else server(name).url


@pytest.mark.parametrize("url", ["memory", "sqlite", *SERVERS], indirect=True)
def test_the_figures_are_the_same_on(url: str) -> None:
    result = program("--url", url, "--limit", str(LIMIT), "--json")
    assert result.code == 0, result.err
    assert set(result.figures) == KEYS
    assert result.out.count("\n") == 1
    duplicates = result.figures["duplicates_filtered"]
    assert result.figures == as_object(figures_of_file(DATA, LIMIT), duplicates=duplicates)


@pytest.mark.parametrize("url", ["memory", "sqlite", *SERVERS], indirect=True)
def test_orders_expire_or_are_edited_and_redriven_on(url: str, tmp_path: Path) -> None:
    rows = [row(str(number), 2) for number in range(30)]
    rows += [row(f"h{number}", number - 2, "2.50") for number in range(3)]
    rows += [row(f"g{number}", 3, customer="") for number in range(4)]
    file = write(tmp_path / "some.csv", [*rows, row("C9", -1)])
    result = program("--url", url, "--data", str(file), "--json", "--mend")
    assert result.code == 0, result.err
    duplicates = result.figures["duplicates_filtered"]
    assert result.figures == as_object(figures_of_file(file, mended=True), duplicates=duplicates)
    assert (result.figures["orders_expired"], result.figures["dead_letters"]) == (3, 3)
    assert result.figures["orders_shipped"] == 34


@pytest.mark.parametrize("url", SERVERS, indirect=True)
def test_the_figures_are_the_same_with_processes_on(url: str) -> None:
    result = program("--url", url, "--limit", str(LIMIT), "--json", "--processes")
    assert result.code == 0, result.err
    duplicates = result.figures["duplicates_filtered"]
    assert result.figures == as_object(figures_of_file(DATA, LIMIT), duplicates=duplicates)


@pytest.mark.parametrize("url", ["memory", "sqlite", SERVERS[0]], indirect=True)
async def test_invoices_published_twice_count_once_on(url: str, tmp_path: Path) -> None:
    invoices = read_invoices(DATA, 40)
    run = Run(url, tmp_path.name.replace("_", "-"), tmp_path)
    async with application(run, *SERVICES.values()) as app, View(run, len(invoices)) as view:
        async with connect(url) as other:
            feeder = app.broker if url == "memory://" else other
            await feed(feeder, run, invoices)
            await feed(app.broker, run, invoices)
        assert await settle(view, lambda progress: None) is None
        figures = await view.figures()
    assert figures.differences(figures_of_file(DATA, 40)) == []
