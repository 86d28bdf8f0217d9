"""`anymq dlq`: every subcommand on every backend, bad input, and nothing lost."""

from __future__ import annotations

import asyncio
import json
import re
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

import anymq as library
from anymq import Acknowledge, DeadLetter, Reject, Retry
from anymq.cli.dlq_transfer import KIND
from anymq.driver import Record
from anymq.testing.tools import eventually, silent, take_acked, until
from tests.cli.support import BACKEND_PARAMETERS, Command, column, run, start
from tests.cli.terminal import terminal

GROUP = "billing"
CHAIN = (Acknowledge(), DeadLetter(), Retry(attempts=1))
BODIES: tuple[Any, ...] = ({"number": 1, "total": None}, {"number": 2}, b"\xff\x00\r\n", {"a": "Ł"})


async def bill(body: bytes) -> None:
    """Fail with one error for JSON, and reject everything else."""
    if body.startswith(b"{"):
        raise KeyError("total")
    raise Reject("not an order: [binary]")


async def reject_all(url: str, topic: str, bodies: tuple[Any, ...] = BODIES) -> None:
    """Publish `bodies` as `o-0`, `o-1` …, and have them dead-lettered."""
    async with library.connect(url) as broker:
        for number, body in enumerate(bodies):
            headers = {"tenant": "Köln"}
            await broker.publish(topic, body, key=f"k-{number}", id=f"o-{number}", headers=headers)
        letters = broker.admin.dead_letters(topic, GROUP)
        async with broker.subscribe(topic, group=GROUP, handler=bill, middleware=CHAIN):
            await eventually(letters.count, lambda count: count == len(bodies))


async def received(url: str, topic: str, count: int) -> dict[str, library.Message]:
    """Return the messages that the group receives, by id: `count`, and no more."""
    async with library.connect(url) as broker, broker.subscribe(topic, group=GROUP) as deliveries:
        messages = [delivery.message for delivery in await take_acked(deliveries, count)]
        await silent(deliveries, 0.2)
    return {message.id: message for message in messages}


@pytest.fixture
def rejected(url: str, topic: str) -> str:
    """The topic, of which four messages are dead letters."""
    asyncio.run(reject_all(url, topic))
    return topic


class Dlq:
    """`anymq dlq` for the dead letters of one topic."""

    def __init__(self, anymq: Command, url: str, topic: str) -> None:
        self._anymq = anymq
        self._options = ("-u", url, "--topic", topic)
        self._url = ("-u", url)

    def __call__(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        """Return the data of a command with --json."""
        return self.run(*arguments, "--json", code=code, stdin=stdin).data

    def run(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        """Return the result of a command."""
        options = self._url if arguments[0] == "import" else self._options
        return self._anymq("dlq", *arguments, *options, code=code, stdin=stdin)

    def ids(self) -> set[str]:
        """Return the ids of the letters."""
        return {letter["id"] for letter in self("ls", "--max", "1000")["letters"]}


@pytest.fixture
def dlq(anymq: Command, url: str, rejected: str) -> Dlq:
    return Dlq(anymq, url, rejected)


def test_ls_counts_and_then_lists(dlq: Dlq, rejected: str) -> None:
    data = dlq("ls")
    assert data["total"] == 4
    assert [(kind["letters"], kind["error_type"]) for kind in data["kinds"]] == [
        (3, "builtins.KeyError"),
        (1, None),
    ]
    assert {kind["reason"] for kind in data["kinds"]} == {
        "retries exhausted after 1 attempts: KeyError: 'total'",
        "not an order: [binary]",
    }
    assert {(kind["topic"], kind["group"]) for kind in data["kinds"]} == {(rejected, GROUP)}
    binary = next(letter for letter in data["letters"] if letter["id"] == "o-2")
    assert (binary["size"], binary["key"], binary["attempts"]) == (4, "k-2", 1)
    assert not {"body", "body_base64", "headers"} & binary.keys()
    text = dlq.run("ls", "--max", "1")
    counts, listed = text.out.split("\n\n")
    assert column(counts, "LETTERS") == ["3", "1"]
    assert len(column(listed, "ID")) == 1
    assert "3 letters not listed" in text.err
    assert "\n\n" not in dlq.run("ls", "--max", "0").out


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--reason", "[BINARY]"], {"o-2"}),
        (["--reason", "not*order*"], {"o-2"}),
        (["--error-type", "KeyError"], {"o-0", "o-1", "o-3"}),
        (["--since", "1h"], {"o-0", "o-1", "o-2", "o-3"}),
        (["--since", "2199-01-01T00:00Z"], set[str]()),
        (["--id", "o-1", "--id", "o-2"], {"o-1", "o-2"}),
        (["--key", "k-3", "--error-type", "builtins.*"], {"o-3"}),
        (["--group", GROUP, "--key", "k-0"], {"o-0"}),
        (["--group", "other"], None),
    ],
)
@pytest.mark.parametrize("backend", ["memory", "sqlite"])
def test_filters(dlq: Dlq, options: list[str], ids: set[str] | None) -> None:
    if ids is None:
        assert "has no group 'other'" in dlq.run("ls", *options, code=1).err
        return
    assert {letter["id"] for letter in dlq("ls", *options)["letters"]} == ids
    assert dlq("redrive", "--dry-run", *options)["letters"] == len(ids)
    assert len(dlq.run("export", *options).out.splitlines()) == len(ids)


def test_show(dlq: Dlq) -> None:
    data = dlq("show", "o-2")
    assert (data["body_base64"], data["headers"]["tenant"]) == ("/wANCg==", "Köln")
    assert dlq("show", data["position"])["id"] == "o-2"
    text = dlq.run("show", "o-0").out
    assert "KeyError: 'total'" in text
    assert "\nheader tenant" in text
    assert text.endswith('{"number":1,"total":null}\n')
    assert dlq.run("show", "o-9", code=1).err == "anymq: there is no dead letter 'o-9'\n"


def test_redrive(dlq: Dlq, url: str, rejected: str) -> None:
    planned = dlq("redrive", "--error-type", "KeyError", "--dry-run")
    assert (planned["letters"], planned["dry_run"]) == (3, True)
    assert dlq.ids() == {"o-0", "o-1", "o-2", "o-3"}
    refused = dlq.run("redrive", code=1)
    assert refused.out == ""
    assert f"redrives 4 letters of {rejected} ({GROUP}); nothing was changed" in refused.err
    assert f"anymq dlq redrive --topic {rejected} --url" in refused.err

    done = dlq("redrive", "--error-type", "KeyError", "--max", "1", "--rate", "100/s")
    assert (done["letters"], done["reduced"], done["dry_run"]) == (1, 0, False)
    assert len(dlq.ids()) == 3
    text = dlq.run("redrive", "--yes")
    assert text.out == f"redriven: 3 letters of {rejected} ({GROUP})\n"
    assert text.err == ""
    assert dlq.ids() == set()
    messages = asyncio.run(received(url, rejected, 4))
    assert sorted(messages) == ["o-0", "o-1", "o-2", "o-3"]
    assert (messages["o-2"].body, messages["o-2"].key) == (b"\xff\x00\r\n", "k-2")
    assert dlq("redrive", "--yes")["letters"] == 0


def test_drop_wants_yes(dlq: Dlq, rejected: str) -> None:
    options = ["--id", "o-0", "--id", "o-1", "--since", "1h", "--key", "k-0"]
    refused = dlq.run("drop", *options, "--max", "5", code=1)
    assert f"drops 1 letter of {rejected} ({GROUP}); nothing was changed" in refused.err
    for option in ("--id=o-0", "--id=o-1", "--key=k-0", "--max 5", "--since="):
        assert option in refused.err
    assert dlq("drop", *options, "--dry-run")["letters"] == 1
    assert len(dlq.ids()) == 4
    assert dlq("drop", *options, "--yes")["letters"] == 1
    assert dlq.ids() == {"o-1", "o-2", "o-3"}
    assert dlq.run("drop", "--yes").out == f"dropped: 3 letters of {rejected} ({GROUP})\n"
    assert dlq.ids() == set()


def editor(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make a Python script, whose variable `file` is the text to edit, the editor."""
    program = folder / "editor.py"
    program.write_text(f"import pathlib, sys\nfile = pathlib.Path(sys.argv[1])\n{script}\n")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("VISUAL", f"{sys.executable} {program}")


def drafts(folder: Path) -> list[Path]:
    """Return the texts that an editor has left."""
    return sorted([*folder.glob("anymq-*.json"), *folder.glob("anymq-*.txt")])


def test_edit(
    dlq: Dlq, url: str, rejected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(
        tmp_path, monkeypatch, "file.write_text(file.read_text().replace('null', '9.5') + '\\n')"
    )
    data = dlq("edit", "o-0")
    assert data == {"id": "o-0", "topic": rejected, "group": GROUP, "redriven": True}
    assert dlq.ids() == {"o-1", "o-2", "o-3"}
    assert drafts(tmp_path) == []
    new = tmp_path / "new"
    new.write_bytes(b"\x00\x01\n")
    assert "redriven, edited: o-2" in dlq.run("edit", "o-2", "--body", str(new)).out
    dlq("edit", "o-3", "--body", "-", stdin='{"a": 1}')
    messages = asyncio.run(received(url, rejected, 3))
    assert messages["o-0"].body == b'{\n  "number": 1,\n  "total": 9.5\n}'
    assert messages["o-0"].content_type == "application/json"
    assert messages["o-0"].headers["tenant"] == "Köln"
    assert (messages["o-2"].body, messages["o-2"].key) == (b"\x00\x01\n", "k-2")
    assert messages["o-3"].body == b'{"a": 1}'


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_edit_that_changes_nothing_redrives_nothing(
    dlq: Dlq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, "file.write_text(file.read_text() + '\\n')")
    assert dlq("edit", "o-0")["redriven"] is False
    assert dlq.run("edit", "o-0").err == "the body is unchanged; nothing was redriven\n"
    assert len(dlq.ids()) == 4
    assert drafts(tmp_path) == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_edit_that_fails_keeps_letter_and_text(
    dlq: Dlq, url: str, rejected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor(tmp_path, monkeypatch, "file.write_text('{')")
    failed = dlq.run("edit", "o-0", code=1)
    assert "not JSON, as its content type says" in failed.err
    (draft,) = drafts(tmp_path)
    assert f"--body {draft}" in failed.err
    assert draft.read_text() == "{"
    assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    draft.unlink()

    editor(tmp_path, monkeypatch, "file.write_text('{}'); sys.exit(3)")
    assert (
        "exit code 3; nothing was redriven\nhint: your text" in dlq.run("edit", "o-0", code=1).err
    )
    drafts(tmp_path)[0].unlink()
    editor(tmp_path, monkeypatch, "sys.exit(3)")
    assert "hint" not in dlq.run("edit", "o-0", code=1).err
    assert drafts(tmp_path) == []

    # Somebody else drops the letter meanwhile.
    script = f"""
import asyncio, anymq
async def drop():
    async with anymq.connect({url!r}) as broker:
        await broker.admin.dead_letters({rejected!r}, {GROUP!r}).drop_all()
asyncio.run(drop())
file.write_text("{{}}")"""
    editor(tmp_path, monkeypatch, script)
    assert "no dead letters" in dlq.run("edit", "o-0", code=1).err
    assert drafts(tmp_path)[0].read_text() == "{}"
    asyncio.run(received(url, rejected, 0))


@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_cannot_be_edited(dlq: Dlq, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.delenv("EDITOR", raising=False)
    assert "--body FILE" in dlq.run("edit", "o-0", code=2).err
    monkeypatch.setenv("EDITOR", str(tmp_path / "none"))
    assert "does not start" in dlq.run("edit", "o-0", code=2).err
    assert "the body is no text" in dlq.run("edit", "o-2", code=2).err
    assert "none: No such file" in dlq.run("edit", "o-0", "--body", f"{tmp_path}/none", code=1).err
    assert "there is no dead letter 'o-9'" in dlq.run("edit", "o-9", "--body", "-", code=1).err
    assert len(dlq.ids()) == 4


def test_export_and_import(
    dlq: Dlq, anymq: Command, url: str, rejected: str, tmp_path: Path
) -> None:
    file = tmp_path / "letters.ndjson"
    assert dlq("export", "-o", str(file)) == {"letters": 4, "file": str(file)}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = [json.loads(line) for line in file.read_text().splitlines()]
    streamed = [json.loads(line) for line in dlq.run("export").out.splitlines()]
    enveloped = dlq.run("export", "--json")
    data = [envelope["data"] for envelope in enveloped.envelopes]
    # The order of partitions differs from one export to the next.
    assert by_id(written) == by_id(streamed) == by_id(data)
    assert {envelope["kind"] for envelope in enveloped.envelopes} == {KIND}

    assert dlq("import", str(file)) == {"letters": 0, "present": 4, "dry_run": False, "kinds": []}
    dlq("drop", "--id", "o-0", "--id", "o-2", "--yes")
    planned = dlq("import", str(file), "--dry-run")
    assert (planned["letters"], planned["present"], planned["dry_run"]) == (2, 2, True)
    assert dlq.ids() == {"o-1", "o-3"}
    done = dlq.run("import", stdin=enveloped.out)
    assert done.out == f"imported: 2 letters of {rejected} ({GROUP})\n"
    assert done.err == "2 letters left out, because they are there already\n"
    again = [json.loads(line) for line in dlq.run("export").out.splitlines()]
    assert sorted(map(content, again)) == sorted(map(content, written))
    dlq("redrive", "--yes")
    assert asyncio.run(received(url, rejected, 4))["o-2"].body == b"\xff\x00\r\n"


def by_id(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return letters in the order of their ids."""
    return sorted(lines, key=lambda line: str(line["id"]))


def content(line: dict[str, Any]) -> str:
    """Return all of a letter but its position."""
    return json.dumps({name: line[name] for name in sorted(line) if name != "position"})


def test_letters_are_imported_on_another_backend(
    dlq: Dlq, anymq: Command, backend: str, rejected: str, tmp_path: Path
) -> None:
    other = f"sqlite:///{tmp_path}/other.db"
    lines = dlq.run("export").out
    assert anymq("dlq", "import", "--json", "-u", other, stdin=lines).data["letters"] == 4
    there = anymq("dlq", "export", "-u", other).out.splitlines()
    here = lines.splitlines()
    assert sorted(content(json.loads(line)) for line in there) == sorted(
        content(json.loads(line)) for line in here
    )
    back = anymq("dlq", "export", "-u", other, "--json").out
    dlq("drop", "--yes")
    assert dlq("import", stdin=back)["letters"] == 4
    assert dlq("redrive", "--yes")["letters"] == 4


GOOD = {"topic": "orders", "group": GROUP, "id": "o-1", "body": "{}"}


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"id": ', "not JSON"),
        (b"\xff", "not a text in UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "a dead letter is a JSON object"),
        (b"{}", "topic is missing"),
        (json.dumps(GOOD | {"body_base64": ""}).encode(), "either body or body_base64"),
        (json.dumps(GOOD | {"headers": {"Nats-Msg-Id": "1"}}).encode(), "reserved"),
        (b'{"anymq": 1, "kind": "message", "data": {}}', "a result of the kind 'message'"),
    ],
)
@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_bad_line_is_named_and_nothing_is_imported(
    anymq: Command, url: str, tmp_path: Path, line: bytes, error: str
) -> None:
    file = tmp_path / "letters"
    file.write_bytes(json.dumps(GOOD).encode() + b"\n\n" + line + b"\n")
    failed = anymq("dlq", "import", str(file), "-u", url, code=2)
    assert failed.err.startswith(f"anymq: {file}, line 3: ")
    assert error in failed.err
    assert len(failed.err.splitlines()) == 1
    assert anymq("dlq", "ls", "--json", "-u", url).data["total"] == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_wrong_usage(anymq: Command, url: str, topic: str, tmp_path: Path) -> None:
    for arguments, error, code in (
        (["ls", "--since", "soon"], "--since", 2),
        (["ls", "--max", "-1"], "--max", 2),
        (["redrive", "--reason", ""], "--reason is empty", 2),
        (["drop", "--yes", "--topic="], "--topic is empty", 2),
        (["drop", "--yes", "orders", ""], "--group is empty", 2),
        (["ls", "orders", "--topic", "o"], "the topic is given twice: orders and --topic o", 2),
        (["redrive", "--id", "o-1", "--id", ""], "--id is empty", 2),
        (["redrive", "--max", "0"], "--max", 2),
        (["redrive", "--rate", "fast"], "--rate", 2),
        (["ls", "--topic", "a b"], "not a topic name", 2),
        (["import", "--dry"], "no option '--dry'", 2),
        (["import", str(tmp_path / "none")], "No such file", 1),
        (["ls", "--stored-in", topic], "there is no topic", 1),
        (["redrive", "--topic", topic, "--yes"], "there is no topic", 1),
        (["show", "o-1"], "there is no dead letter 'o-1'", 1),
        (["redrve"], 'Did you mean "redrive"?', 2),
    ):
        failed = anymq("dlq", *arguments, "-u", url, code=code)
        assert error in failed.err
        assert len(failed.err.splitlines()) == 1
    anymq("topic", "create", topic, "-u", url)
    assert (
        f"did you mean '{topic}'?" in anymq("dlq", "ls", "-t", f"{topic}x", "-u", url, code=1).err
    )
    assert "has no group" in anymq("dlq", "ls", topic, "none", "-u", url, code=1).err
    assert "has no group" in anymq("dlq", "ls", "-t", topic, "-g", "none", "-u", url, code=1).err
    assert anymq("dlq", "ls", "--topic", topic, "--json", "-u", url).data["total"] == 0


@pytest.mark.parametrize("scheme", ["redis", "nats", "kafka", "amqp"])
def test_a_dead_broker_is_one_line(anymq: Command, scheme: str, tmp_path: Path) -> None:
    file = tmp_path / "letters"
    file.write_text(json.dumps(GOOD))
    url = f"{scheme}://user:hunter2@127.0.0.1:1/?connect_timeout=1"
    for arguments in (["ls"], ["import", str(file)]):
        failed = anymq("dlq", *arguments, "-u", url, code=1)
        assert len(failed.err.splitlines()) == 1
        assert "hunter2" not in failed.err


def test_letters_in_a_topic_of_their_own(anymq: Command, url: str, topic: str) -> None:
    refused = f"{topic}.refused"

    async def fill() -> None:
        handled: list[bytes] = []

        async def refuse(body: bytes) -> None:
            handled.append(body)
            raise Reject("not an order")

        chain = (Acknowledge(), DeadLetter(topic=refused))
        async with library.connect(url) as broker:
            await broker.publish_many(topic, ["a", "b"])
            async with broker.subscribe(topic, group=GROUP, handler=refuse, middleware=chain):
                await until(lambda: len(handled) == 2)

    asyncio.run(fill())
    dlq = Dlq(anymq, url, topic)
    lines = dlq.run("export", "--stored-in", refused).out
    assert dlq("drop", "--stored-in", refused, "--yes")["letters"] == 2
    assert dlq("import", stdin=lines)["letters"] == 2
    assert dlq("redrive", "--stored-in", refused, "--reason", "order")["letters"] == 2
    assert {message.body for message in asyncio.run(received(url, topic, 2)).values()} == {
        b"a",
        b"b",
    }


@pytest.mark.parametrize("backend", ["memory"])
def test_reduced_letters_are_left_for_edit(anymq: Command, url: str, topic: str) -> None:
    async def forge() -> None:
        await reject_all(url, topic, ("whole",))
        async with library.connect(url) as broker:
            letters = broker.admin.dead_letters(topic, GROUP)
            (whole,) = await letters.list()
            headers = {**whole.message.headers, "anymq-dlq-reduced": "body"}
            record = Record(topic=letters.topic, id="o-9", unique="9", body=b"", headers=headers)
            await broker.driver.publish([record])

    asyncio.run(forge())
    dlq = Dlq(anymq, url, topic)
    (reduced,) = [each for each in dlq("ls")["letters"] if each["reduced"]]
    assert "body, which the broker refused" in dlq.run("show", reduced["position"]).out
    left = dlq.run("redrive", "--yes")
    assert left.out == f"redriven: 1 letter of {topic} ({GROUP})\n"
    assert "left: 1 letter without body or headers" in left.err
    assert dlq("edit", reduced["position"], "--body", "-", stdin="x")["redriven"] is True
    messages = asyncio.run(received(url, topic, 2)).values()
    assert {message.body for message in messages} == {b"whole", b"x"}


@pytest.mark.parametrize("backend", BACKEND_PARAMETERS[1:])
def test_ctrl_c_leaves_each_letter_listed_or_redriven(anymq: Command, url: str, topic: str) -> None:
    many = tuple(f"{number:03}" for number in range(120))
    asyncio.run(reject_all(url, topic, many))
    dlq = Dlq(anymq, url, topic)
    options = ["--yes", "--rate", "30/s", "-u", url, "--topic", topic]
    with terminal("dlq", "redrive", *options, env={"TERM": "xterm", "COLUMNS": "80"}) as shown:
        shown.until(r"redriving .*[1-9][0-9]*/120")
        assert shown.interrupt() == 130
    assert re.search(r"[0-9]+ of 120 letters redriven\r\n", shown.shown)
    assert "Traceback" not in shown.shown
    left = dlq.ids()
    assert 0 < len(left) < 120
    messages = asyncio.run(received(url, topic, 120 - len(left)))
    assert left | messages.keys() == {f"o-{number}" for number in range(120)}
    assert not left & messages.keys()


@pytest.mark.parametrize("backend", ["sqlite"])
def test_no_bar_in_a_pipe_and_none_that_is_left(url: str, rejected: str) -> None:
    options = ["--yes", "--error-type", "KeyError", "--rate", "20/s", "-u", url]
    done = run("dlq", "redrive", *options)
    assert done.err == ""
    assert done.out == f"redriven: 3 letters of {rejected} ({GROUP})\n"
    with terminal("dlq", "drop", "--yes", "-u", url, env={"TERM": "xterm"}) as shown:
        assert shown.end() == 0
    assert shown.shown.endswith(f"dropped: 1 letter of {rejected} ({GROUP})\r\n")


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_import_that_waits_for_input_ends_at_ctrl_c(url: str) -> None:
    with terminal("dlq", "import", "-u", url) as shown:
        shown.until("reads letters from standard input")
        assert shown.interrupt() == 130


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_export_to_a_pipe_that_is_closed_early(url: str, topic: str) -> None:
    asyncio.run(reject_all(url, topic, tuple("x" * 3000 for _ in range(100))))
    with start("dlq", "export", "-u", url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""
