"""`anymq docs`: the AsyncAPI document, the graph of events, and the check of payloads."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Command, run
from tests.description.test_asyncapi import problems
from tests.description.test_graph import read_dot, read_mermaid

SHOP = "tests.description.shop:app"
URLS = {
    "kafka": "kafka://u:hidden@h1:9092,h2",
    "amqp": "amqp://u:hidden@h/v",
    "nats": "nats://u:hidden@h",
    "redis": "redis://:hidden@h/1",
    "sqlite": "sqlite:///a.db",
    "memory": "memory://",
}
APP = """
import anymq
from pydantic import BaseModel

class Order(BaseModel):
    number: str
    {field}

app = anymq.App({arguments})

@app.subscriber("orders", group="billing")
async def bill(order: Order) -> None: ...
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with modules that no other test has."""
    monkeypatch.chdir(tmp_path)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if not name.startswith(("anymq", "tests")):
            del sys.modules[name]


def write(folder: Path, name: str, *, field: str = "total: int = 0", arguments: str = "") -> str:
    """Write the module `name` with an app, and return its place."""
    (folder / f"{name}.py").write_text(APP.format(field=field, arguments=arguments))
    return f"{name}:app"


@pytest.mark.parametrize("protocol", URLS)
def test_asyncapi_for_every_backend_without_a_connection(anymq: Command, protocol: str) -> None:
    written = anymq("docs", "asyncapi", SHOP, "--url", URLS[protocol])
    document = json.loads(written.out)
    assert problems(document) == []
    assert {each["protocol"] for each in document["servers"].values()} == {protocol}
    assert "hidden" not in written.out


@pytest.mark.parametrize("protocol", URLS)
def test_a_graph_for_every_backend(anymq: Command, protocol: str) -> None:
    url = ("--url", URLS[protocol])
    assert "orders" in read_mermaid(anymq("docs", "graph", SHOP, *url).out)
    assert "orders" in read_dot(anymq("docs", "graph", SHOP, "-f", "dot", *url).out)
    data = json.loads(anymq("docs", "graph", SHOP, "--format", "json", *url).out)
    assert "orders" in [each["name"] for each in data["topics"]]
    assert anymq("docs", "graph", SHOP, "--json", *url).data == data


def test_json_wraps_the_document(anymq: Command) -> None:
    (envelope,) = anymq("docs", "asyncapi", SHOP, "--json").envelopes
    assert envelope["kind"] == "asyncapi"
    assert problems(envelope["data"]) == []


def test_the_url_is_that_of_the_options_the_app_or_the_environment(
    anymq: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_url = write(folder, "with_url", arguments='"nats://own"')
    without = write(folder, "without_url")

    def hosts(*arguments: str) -> list[str]:
        document = json.loads(anymq("docs", "asyncapi", *arguments).out)
        return [each["host"] for each in document.get("servers", {}).values()]

    assert hosts(without) == []
    monkeypatch.setenv("ANYMQ_URL", "nats://environment")
    assert hosts(without) == ["environment"]
    assert hosts(with_url) == ["own"]
    assert hosts(with_url, "--url", "nats://option") == ["option"]
    anymq("context", "add", "staging", "nats://context")
    assert hosts(with_url, "--context", "staging") == ["context"]
    assert hosts(with_url, without) == ["own", "environment"]


def test_apps_are_named_for_their_module_or_attribute(anymq: Command, folder: Path) -> None:
    billing, named = write(folder, "billing"), write(folder, "named", arguments='name="pay"')
    (folder / "factory.py").write_text("import anymq\ndef shipping(): return anymq.App()\n")
    graph = anymq("docs", "graph", billing, named, "factory:shipping()", "-f", "json")
    assert [each["name"] for each in json.loads(graph.out)["services"]] == [
        "billing",
        "pay",
        "shipping",
    ]
    assert json.loads(anymq("docs", "graph", "--app", billing, "-f", "json").out)["services"]


def test_two_apps_of_one_name_are_refused(anymq: Command, folder: Path) -> None:
    one, other = (write(folder, name, arguments='name="pay"') for name in ("one", "other"))
    failed = anymq("docs", "asyncapi", one, other, code=2)
    assert failed.err == ("anymq: 2 apps are called 'pay'\nhint: give each a name: App(name=…)\n")


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("nowhere:app", "there is no module 'nowhere'"),
        ("nowhere.py:app", "write its module, nowhere:app"),
        ("tests.description.shop:ap", "did you mean tests.description.shop:app?"),
        ("tests.description.shop:ORDERS", "is no App but a Topic"),
        ("no place", "names no app; write module:attribute"),
        ("broken:app", "importing broken failed: ZeroDivisionError: division by zero"),
    ],
)
@pytest.mark.parametrize("document", ["asyncapi", "graph"])
def test_a_bad_place(anymq: Command, folder: Path, document: str, place: str, line: str) -> None:
    (folder / "broken.py").write_text("1 / 0\n")
    failed = anymq("docs", document, place, code=2)
    assert failed.out == ""
    assert line in failed.err
    assert len(failed.err.splitlines()) == 1


def test_no_app_at_all(anymq: Command) -> None:
    assert "no app given" in anymq("docs", "asyncapi", code=2).err
    assert "no app given" in anymq("docs", "graph", code=2).err


def test_a_bad_url_is_refused_without_its_password(anymq: Command, folder: Path) -> None:
    place = write(folder, "bad_url", arguments='"nats://u:hidden@h:port"')
    failed = anymq("docs", "asyncapi", place, code=2)
    assert "hidden" not in failed.err


def test_output_is_the_same_in_a_file(anymq: Command, folder: Path) -> None:
    for command in (["asyncapi", SHOP], ["graph", SHOP], ["graph", SHOP, "-f", "json"]):
        shown = anymq("docs", *command).out
        written = anymq("docs", *command, "--output", "doc.txt")
        assert (written.out, written.err) == ("", "wrote doc.txt\n")
        assert (folder / "doc.txt").read_text() == shown
    failed = anymq("docs", "asyncapi", SHOP, "-o", "nowhere/doc.txt", code=1)
    assert failed.err == "anymq: nowhere/doc.txt: No such file or directory\n"
    assert anymq("docs", "asyncapi", SHOP, "-o", "doc.txt", "--check", "doc.txt", code=2).out == ""


def test_a_check_of_the_same_app_is_compatible(anymq: Command, folder: Path) -> None:
    (folder / "old.json").write_text(anymq("docs", "asyncapi", SHOP).out)
    assert anymq("docs", "asyncapi", SHOP, "--check", "old.json").out == "compatible\n"


def test_a_check_lists_harmless_changes(anymq: Command, folder: Path) -> None:
    old = write(folder, "old", arguments='name="s"')
    new = write(folder, "new", arguments='name="s"', field='total: int = 0; note: str = ""')
    (folder / "old.json").write_text(anymq("docs", "asyncapi", old).out)
    checked = anymq("docs", "asyncapi", new, "--check", "old.json")
    assert checked.out == "compatible\norders Order $.note: added (optional string)\n"


def test_a_check_ends_with_1_and_a_line_for_each_break(anymq: Command, folder: Path) -> None:
    old = write(folder, "old_shop", arguments='name="s"')
    new = write(folder, "new_shop", arguments='name="s"', field="total: float; vat: int")
    (folder / "old.json").write_text(anymq("docs", "asyncapi", old).out)
    checked = anymq("docs", "asyncapi", new, "--check", "old.json", code=1)
    assert checked.out.splitlines() == [
        "orders Order $.total: the field is required, but may be missing "
        "(new consumers cannot read old messages)",
        "orders Order $.total: number is written, integer is read "
        "(old consumers cannot read new messages)",
        "orders Order $.vat: the field is required, but missing "
        "(new consumers cannot read old messages)",
    ]
    data = anymq("docs", "asyncapi", new, "--check", "old.json", "--json", code=1).data
    assert data["compatible"] is False
    assert {each["breaks"] for each in data["changes"]} == {"backward", "forward"}
    assert data["changes"][0]["path"] == "$.total"


def test_a_check_of_one_direction(anymq: Command, folder: Path) -> None:
    old = write(folder, "narrow", arguments='name="s"')
    new = write(folder, "wide", arguments='name="s"', field="total: int | None = 0")
    (folder / "old.json").write_text(anymq("docs", "asyncapi", old).out)
    check = ("docs", "asyncapi", new, "--check", "old.json")
    assert "null is not accepted" in anymq(*check, code=1).out
    assert anymq(*check, "--compatibility", "backward").out.startswith("compatible\n")
    assert "null is not accepted" in anymq(*check, "--compatibility", "forward", code=1).out
    assert anymq(*check, "--compatibility", "sideways", code=2).out == ""


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "old.json: not JSON"),
        (b"asyncapi: 3.0.0\n", "old.json: not JSON"),
        (b"\xff\xfe", "old.json: not a text in UTF-8"),
        (b"[" * 100_000, "old.json: nested too deeply"),
        (b"[]", "old.json: the old document is no AsyncAPI 3 document"),
        (b'{"asyncapi": "2.6.0"}', "old.json: the old document is no AsyncAPI 3 document"),
    ],
)
def test_a_bad_old_file(anymq: Command, folder: Path, content: bytes, line: str) -> None:
    (folder / "old.json").write_bytes(content)
    failed = anymq("docs", "asyncapi", SHOP, "--check", "old.json", code=2)
    assert line in failed.err
    assert len(failed.err.splitlines()) == 1


def test_a_missing_old_file(anymq: Command, folder: Path) -> None:
    failed = anymq("docs", "asyncapi", SHOP, "--check", "nowhere.json", code=2)
    assert failed.err == "anymq: nowhere.json: No such file or directory\n"


def test_as_a_process_in_a_project(folder: Path) -> None:
    place = write(folder, "project")
    written = run("docs", "asyncapi", place, cwd=folder)
    assert (written.code, written.err) == (0, "")
    assert problems(json.loads(written.out)) == []
    (folder / "old.json").write_text(written.out)
    write(folder, "project", field="total: str")
    assert run("docs", "asyncapi", place, "--check", "old.json", cwd=folder).code == 1
