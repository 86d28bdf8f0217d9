"""`anymq pub`, on every backend."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cli.reading import bodies, stored, topics
from tests.cli.support import Command, arguments_of, ends_with_its_pipe, environment, run, start
from tests.cli.terminal import terminal

LINES = '{"n": 1}\n\n{"n": 2}\n[3, "ä"]\n'


def test_one_message_with_everything(anymq: Command, url: str, topic: str) -> None:
    options = ["-k", "o-17", "-H", "trace: a:b", "-H", "x:", "--id", "i-1", "--type", "placed"]
    done = anymq("pub", topic, '{"n": 1}', *options, "-u", url)
    (found,) = stored(url, topic)
    message = found.message
    assert message.body == b'{"n": 1}'
    assert (message.key, message.id, message.type) == ("o-17", "i-1", "placed")
    assert message.content_type == "application/json"
    assert dict(message.headers) == {"trace": "a:b", "x": ""}
    assert done.out.startswith(f"{topic} id=i-1 position=")
    assert done.err == ""


def test_each_line_of_standard_input_is_a_message(anymq: Command, url: str, topic: str) -> None:
    done = anymq("pub", topic, "-k", "k", "-u", url, "--json", stdin=LINES)
    assert bodies(url, topic) == ['[3, "ä"]', '{"n": 1}', '{"n": 2}']
    found = [item.message for item in stored(url, topic)]
    assert [message.body for message in found] == [
        b'{"n": 1}',
        b'{"n": 2}',
        '[3, "ä"]'.encode(),
    ]
    assert [envelope["kind"] for envelope in done.envelopes] == ["receipt"] * 3
    assert [envelope["data"]["id"] for envelope in done.envelopes] == [each.id for each in found]
    assert done.err == f"published 3 to {topic}\n"


def test_a_bad_line_ends_it_and_nothing_after_it_is_published(
    anymq: Command, url: str, topic: str
) -> None:
    failed = anymq("pub", topic, "-u", url, stdin='{"n": 1}\n{"n": 2}\n{"n": \n{"n": 4}\n', code=1)
    assert failed.err.splitlines() == [
        "anymq: line 3: not JSON at column 7: Expecting value; --plain publishes lines as they "
        "are; published 2 before it"
    ]
    assert bodies(url, topic) == ['{"n": 1}', '{"n": 2}']


def test_templates_and_a_rate(anymq: Command, url: str, topic: str) -> None:
    data = "{{count}} {{uuid}} {{uuid}} {{time}} {{other}}"
    line = ["pub", topic, data, "--count", "3", "--rate", "100/s"]
    anymq(*line, "-k", "k-{{count}}", "--id", "i-{{count}}", "-H", "n:{{count}}", "-u", url)
    found = sorted((item.message for item in stored(url, topic)), key=lambda each: each.id)
    assert [message.id for message in found] == ["i-1", "i-2", "i-3"]
    assert [message.key for message in found] == ["k-1", "k-2", "k-3"]
    assert [message.headers["n"] for message in found] == ["1", "2", "3"]
    seen = set()
    for number, message in enumerate(found, 1):
        count, first, second, time, *rest = message.body.decode().split(" ")
        assert (count, first, rest) == (str(number), second, ["{{other}}"])
        assert abs((datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()) < 3600
        seen.add(first)
    assert len(seen) == 3


def test_a_delayed_message_is_not_there_before_its_time(
    anymq: Command, url: str, topic: str
) -> None:
    anymq("pub", topic, "now", "-u", url)
    anymq("pub", topic, "later", "--delay", "1h", "-u", url)
    anymq("pub", topic, "later", "--at", "2026-12-31T10:00", "-u", url)
    assert bodies(url, topic) == ["now"]


def test_many_lines_are_all_confirmed(anymq: Command, url: str, topic: str) -> None:
    """More than are unconfirmed at a time."""
    lines = [json.dumps({"n": number}) for number in range(2500)]
    anymq("pub", topic, "-u", url, "-k", "one", stdin="\n".join(lines))
    assert [item.message.body.decode() for item in stored(url, topic)] == lines


def test_the_interrupt_key_ends_it_and_says_what_was_published(url: str, topic: str) -> None:
    if url.startswith("memory:"):
        url = "memory://pub-in-a-process"
    line = ["pub", topic, "{{count}}", "--count", "100000", "--rate", "20/s", "-u", url]
    with terminal(*line) as shown:
        shown.until(r"[2-9]\d*/100000")
        assert shown.interrupt() == 130
        found = shown.until(r"interrupted: published (\d+)(, and perhaps \d+ more)? to ")
    if not url.startswith("memory:"):
        assert len(bodies(url, topic)) >= int(found[1]) > 1


@pytest.mark.parametrize("backend", ["sqlite"])
class TestText:
    """Bodies and their content types."""

    @pytest.mark.parametrize(
        ("data", "content_type"),
        [
            ('{"n": 1}', "application/json"),
            ("17", "application/json"),
            ("hello", "text/plain; charset=utf-8"),
            ("", "text/plain; charset=utf-8"),
            ("NaN", "text/plain; charset=utf-8"),
            ("ä\u2028\x00", "text/plain; charset=utf-8"),
        ],
    )
    def test_content_types(
        self, anymq: Command, url: str, topic: str, data: str, content_type: str
    ) -> None:
        anymq("pub", topic, data, "-u", url)
        (found,) = stored(url, topic)
        assert found.message.body == data.encode()
        assert found.message.content_type == content_type

    def test_plain_lines(self, anymq: Command, url: str, topic: str) -> None:
        envelope = '{"anymq": 1, "kind": "message", "data": {"body": "x"}}'
        anymq("pub", topic, "-", "--plain", "-u", url, stdin=f"hello\r\n{envelope}\nlast")
        assert bodies(url, topic) == sorted(["hello", envelope, "last"])

    def test_lines_of_sub_keep_what_the_message_had(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        data = {
            "id": "old",
            "key": "k",
            "type": "t",
            "content_type": "image/png",
            "correlation_id": "c",
            "causation_id": "d",
            "headers": {"h": "v", "anymq-attempt": "3", "ce-x": "1"},
            "body_base64": "iVBORw==",
            "position": "1",
        }
        line = json.dumps({"anymq": 1, "kind": "message", "data": data})
        anymq("pub", topic, "-H", "more:1", "-u", url, stdin=line)
        (found,) = stored(url, topic)
        message = found.message
        assert message.body == b"\x89PNG"
        assert dict(message.headers) == {"h": "v", "more": "1"}
        assert (message.key, message.type, message.content_type) == ("k", "t", "image/png")
        assert (message.correlation_id, message.causation_id) == ("c", "d")
        assert message.id != "old"


BAD_LINES: dict[str, tuple[str, str]] = {
    "text": ("hello", "not JSON at column 1"),
    "NaN": ("NaN", "not JSON: JSON has no NaN"),
    "deep": ("[" * 100_000, "not JSON: nested too deeply"),
    "two values": ("{} {}", "not JSON at column 4"),
    "large": (json.dumps("x" * 2_000_000), "at most 1000000 are allowed"),
    "version": ('{"anymq": 2, "kind": "message", "data": {}}', "another version"),
    "kind": ('{"anymq": 1, "kind": "receipt", "data": {}}', "kind 'receipt'"),
    "no data": ('{"anymq": 1, "kind": "message"}', "without data"),
    "no body": ('{"anymq": 1, "kind": "message", "data": {}}', "without body"),
    "base64": ('{"anymq": 1, "kind": "message", "data": {"body_base64": "?"}}', "decoded"),
    "a number": ('{"anymq": 1, "kind": "message", "data": {"body": 1}}', "body that is no text"),
    "headers": (
        '{"anymq": 1, "kind": "message", "data": {"body": "", "headers": {"a": 1}}}',
        "no object of texts",
    ),
    "a header": (
        '{"anymq": 1, "kind": "message", "data": {"body": "", "headers": {"a": "b\\nc"}}}',
        "header",
    ),
    "a key": ('{"anymq": 1, "kind": "message", "data": {"body": "", "key": "a\\nb"}}', "key"),
}


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines_are_named(anymq: Command, url: str, topic: str, name: str) -> None:
    line, problem = BAD_LINES[name]
    failed = anymq("pub", topic, "-u", url, stdin=f'{{"n": 1}}\n{line}\n{{"n": 3}}\n', code=1)
    (said,) = failed.err.splitlines()
    assert said.startswith("anymq: line 2: ")
    assert problem in said
    assert said.endswith("; published 1 before it")
    assert bodies(url, topic) == ['{"n": 1}']


@pytest.mark.parametrize("backend", ["sqlite"])
def test_bytes_that_are_no_text_are_named(url: str, topic: str) -> None:
    done = subprocess.run(
        arguments_of("pub", topic, "-u", url),
        input=b'{"n": 1}\n"\xff"\n',
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == b"anymq: line 2: not UTF-8 at byte 2; published 1 before it\n"


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["x", "--count", "0"], "--count is at least 1"),
        (["-", "--count", "2"], "standard input has its own number"),
        (["x", "--count", "2", "--id", "i"], "one id to many messages"),
        (["-", "--id", "i"], "one id to many messages"),
        (["x", "--delay", "1s", "--at", "2026-12-01"], "give one of them"),
        (["x", "--delay", "soon"], "is no duration"),
        (["x", "--rate", "0/s"], "is no rate"),
        (["x", "-H", "nocolon"], "is no header"),
        (["x", "-H", "a:1", "-H", "a:2"], "twice"),
        (["x", "-H", "anymq-attempt:2"], "anymq-attempt"),
        (["--tpye", "x"], "no option '--tpye'"),
        (["x", "-k", "a\nb"], "key"),
    ],
)
def test_wrong_usage_publishes_nothing(
    anymq: Command, url: str, topic: str, arguments: list[str], problem: str
) -> None:
    failed = anymq("pub", topic, *arguments, "-u", url, code=2)
    assert problem in failed.err.splitlines()[0]
    assert topics(url) == []


def test_a_bad_topic_is_one_line(anymq: Command) -> None:
    (said,) = anymq("pub", "a b", "x", "-u", "memory://", code=2).err.splitlines()
    assert "'a b'" in said


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1:1", "kafka://127.0.0.1:1", "amqp://127.0.0.1:1"]
)
def test_a_dead_broker_is_one_line(anymq: Command, url: str) -> None:
    (said,) = anymq("pub", "orders", "x", "-u", f"{url}?connect_timeout=2", code=1).err.splitlines()
    assert url.partition("://")[2] in said


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_broker_that_takes_no_more_is_said_with_what_was_published(
    anymq: Command, url: str, topic: str
) -> None:
    failed = anymq("pub", topic, "-u", f"{url}?declare=false", stdin='{"n": 1}\n{"n": 2}\n', code=1)
    (said,) = failed.err.splitlines()
    assert re.fullmatch(r"anymq: line 1: .*; published 0 before it; 1 after it failed too", said)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_receipts_into_a_pipe_that_closes_early(url: str, topic: str) -> None:
    line = ["pub", topic, "x", "--count", "20000", "--json", "-u", url]
    with start(*line, stdin=subprocess.DEVNULL) as process:
        ends_with_its_pipe(process)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_lines_are_published_as_they_are_typed(url: str, topic: str) -> None:
    with terminal("pub", topic, "-", "--json", "-u", url) as shown:
        shown.type('{"n": 1}\n')
        shown.until(r'"kind": "receipt"')
        assert bodies(url, topic) == ['{"n": 1}']
        shown.type("\x04")
        shown.until(f"published 1 to {topic}")
        assert shown.end() == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_terminal_without_data_is_wrong_usage(url: str, topic: str) -> None:
    with terminal("pub", topic, "-u", url) as shown:
        shown.until("no DATA")
        assert shown.end() == 2


@pytest.mark.parametrize("backend", ["sqlite"])
def test_termination_ends_a_command_that_waits_for_input(url: str, topic: str) -> None:
    with start("pub", topic, "--json", "-u", url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"n": 1}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["kind"] == "receipt"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        assert process.stderr is not None
        assert process.stderr.read() == f"interrupted: published 1 to {topic}\n"


def test_help_names_every_option() -> None:
    shown = run("pub", "--help").out
    for option in ("--key", "-H", "--id", "--type", "--delay", "--at", "--count", "--rate"):
        assert option in shown


def test_json_of_one_message(anymq: Command, topic: str) -> None:
    data: dict[str, Any] = anymq("pub", topic, "x", "--json", "-u", "memory://").data
    assert set(data) == {"id", "topic", "position", "duplicate"}
