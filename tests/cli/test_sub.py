"""`anymq sub`, on every backend."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from anymq import Broker
from anymq.cli import following
from anymq.cli.stored import last_stored
from anymq.cli.values import Last
from tests.cli.reading import bodies, stored, topics, with_broker
from tests.cli.support import SERVERS, Command, Result, arguments_of, environment, start
from tests.cli.terminal import terminal

SHARED = [
    pytest.param(name, marks=[getattr(pytest.mark, name)] if name in SERVERS else [])
    for name in ("sqlite", *SERVERS)
]
"""The backends that two processes can use."""


def lines(result: Result) -> list[str]:
    return result.out.splitlines()


def publish(anymq: Command, url: str, topic: str, count: int) -> None:
    data = '{"n": {{count}}}'
    anymq("pub", topic, data, "--count", str(count), "-k", "k-{{count}}", "-u", url)


def publish_in_turn(url: str, topic: str, count: int) -> None:
    """Publish to several partitions; each message is stored before the next is sent."""

    async def publish_all(broker: Broker) -> None:
        for number in range(1, count + 1):
            await broker.publish(topic, {"n": number}, key=f"k-{number}")

    with_broker(url, publish_all)


def numbers(result: Result) -> list[int]:
    return [json.loads(line)["n"] for line in result.out.splitlines()]


class TestLooking:
    """Without a group nothing is settled."""

    def test_stored_messages_with_everything(self, anymq: Command, url: str, topic: str) -> None:
        options = ["-k", "o-17", "-H", "trace: a:b", "--id", "i-1", "--type", "placed"]
        anymq("pub", topic, '{"n": 1}', *options, "-u", url)
        shown = anymq("sub", topic, "--from", "start", "--json", "-u", url)
        (envelope,) = shown.envelopes
        assert envelope["kind"] == "message"
        data = envelope["data"]
        assert {name: data[name] for name in ("topic", "id", "key", "type", "body")} == {
            "topic": topic,
            "id": "i-1",
            "key": "o-17",
            "type": "placed",
            "body": '{"n": 1}',
        }
        assert data["headers"] == {"trace": "a:b"}
        assert data["content_type"] == "application/json"
        assert "group" not in data
        assert shown.err == f"looking at {topic} without a group: nothing is settled\n"

    def test_it_takes_nothing_from_a_group(self, anymq: Command, url: str, topic: str) -> None:
        publish(anymq, url, topic, 3)
        first = anymq("sub", topic, "-g", "g", "-n", "1", "-f", "raw", "-u", url)
        looked = anymq("sub", topic, "--until", "end", "-f", "raw", "-u", url)
        rest = anymq("sub", topic, "-g", "g", "--until", "end", "-f", "raw", "-u", url)
        assert sorted(numbers(looked)) == [1, 2, 3]
        assert sorted(numbers(first) + numbers(rest)) == [1, 2, 3]

    def test_each_start_position(self, anymq: Command, url: str, topic: str) -> None:
        publish_in_turn(url, topic, 7)
        every = anymq("sub", topic, "--from", "start", "-f", "{position} {data}", "-u", url)
        fourth = next(line for line in lines(every) if json.loads(line.split(" ", 1)[1])["n"] == 4)
        for position, expected in {
            "start": [1, 2, 3, 4, 5, 6, 7],
            "-3": [5, 6, 7],
            "-100": [1, 2, 3, 4, 5, 6, 7],
            "@-1h": [1, 2, 3, 4, 5, 6, 7],
            "@2100-01-01": [],
        }.items():
            found = anymq("sub", topic, "--from", position, "-f", "raw", "-u", url)
            assert sorted(numbers(found)) == expected, position
        found = anymq("sub", topic, "--from", fourth.split(" ")[0], "-f", "raw", "-u", url)
        assert set(numbers(found)) >= {4, 5, 6, 7}
        found = anymq("sub", topic, "--from", "end", "--until", "end", "-u", url)
        assert found.out == ""

    def test_a_number_of_messages(self, anymq: Command, url: str, topic: str) -> None:
        publish_in_turn(url, topic, 5)
        found = anymq("sub", topic, "--from", "start", "-n", "2", "-f", "raw", "-u", url)
        assert len(lines(found)) == 2
        options = ["--follow", "-f", "raw", "-u", url]
        found = anymq("sub", topic, "--from", "-4", "-n", "3", *options)
        assert numbers(found) == [2, 3, 4]
        found = anymq("sub", topic, "--from", "start", "-n", "5", *options)
        assert sorted(numbers(found)) == [1, 2, 3, 4, 5]

    def test_an_unknown_topic_is_one_line_and_not_created(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        publish(anymq, url, topic, 1)
        for options in ([], ["--from", "start"], ["-g", "g"]):
            failed = anymq("sub", f"{topic}x", *options, "-u", url, code=1)
            (said,) = failed.err.splitlines()
            assert said.startswith(f"anymq: there is no topic '{topic}x'")
            assert said.endswith("(--follow waits for it)")
        assert "there is no topic" in anymq("topic", "show", f"{topic}x", "-u", url, code=1).err

    @pytest.mark.parametrize("backend", ["sqlite"])
    def test_an_unknown_topic_comes_with_a_proposal(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        publish(anymq, url, topic, 1)
        failed = anymq("sub", f"{topic}x", "-u", url, code=1)
        assert f"did you mean '{topic}'?" in failed.err
        assert topics(url) == [topic]

    def test_what_is_published_while_the_last_are_searched_is_shown_once(
        self, url: str, topic: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def publish_first(broker: Broker, *arguments: Any, **options: Any) -> Any:
            await broker.publish(topic, {"n": 3}, key="one")
            return await last_stored(broker, *arguments, **options)

        async def follow(broker: Broker) -> list[int]:
            for number in (1, 2):
                await broker.publish(topic, {"n": number}, key="one")
            found: list[int] = []
            async with aclosing(following.followed(broker, topic, Last(2))) as messages:
                async for item in messages:
                    found.append(json.loads(item.message.body)["n"])
                    if found == [2, 3]:
                        await broker.publish(topic, {"n": 4}, key="one")
                    if len(found) == 3:
                        break
            return found

        monkeypatch.setattr(following, "last_stored", publish_first)
        assert with_broker(url, follow) == [2, 3, 4]

    def test_a_copy_through_pub(self, anymq: Command, url: str, topic: str) -> None:
        anymq("pub", topic, "text", "-k", "a", "-H", "h: v", "-u", url)
        anymq("pub", topic, '{"n": 1}', "--type", "placed", "-u", url)
        seen = anymq("sub", topic, "--from", "start", "--json", "-u", url)
        anymq("pub", f"{topic}.copy", "-u", url, stdin=seen.out)

        def parts(name: str) -> list[Any]:
            found = [item.message for item in stored(url, name)]
            return sorted(
                (each.body, each.key, dict(each.headers), each.content_type) for each in found
            )

        assert parts(f"{topic}.copy") == parts(topic)
        copies = [item.message for item in stored(url, f"{topic}.copy")]
        assert sorted(str(each.type) for each in copies) == sorted([topic, "placed"])


class TestGroups:
    """With a group messages are consumed."""

    def test_each_message_goes_to_a_group_once(self, anymq: Command, url: str, topic: str) -> None:
        publish(anymq, url, topic, 9)
        first = anymq("sub", topic, "-g", "g", "-n", "4", "-f", "raw", "-u", url)
        second = anymq("sub", topic, "-g", "g", "--until", "end", "--json", "-u", url)
        third = anymq("sub", topic, "-g", "g", "--until", "end", "-f", "raw", "-u", url)
        found = [json.loads(each["data"]["body"])["n"] for each in second.envelopes]
        assert len(numbers(first)) == 4
        assert sorted(numbers(first) + found) == list(range(1, 10))
        assert {each["data"]["group"] for each in second.envelopes} == {"g"}
        assert {each["data"]["attempt"] for each in second.envelopes} == {1}
        assert third.out == ""
        other = anymq("sub", topic, "-g", "other", "--until", "end", "-f", "raw", "-u", url)
        assert sorted(numbers(other)) == list(range(1, 10))

    def test_a_new_group_begins_where_it_is_told(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        publish_in_turn(url, topic, 9)
        options = ["--until", "end", "-f", "raw", "-u", url]
        last = anymq("sub", topic, "-g", "last", "--from", "-2", *options)
        assert set(numbers(last)) >= {8, 9}
        assert 1 not in numbers(last)
        late = anymq("sub", topic, "-g", "late", "--from", "end", *options)
        assert late.out == ""
        failed = anymq("sub", topic, "-g", "late", "--from", "start", *options, code=2)
        assert failed.err.splitlines() == [
            f"anymq: group late of {topic} exists and continues at its position; --from is for a "
            "new one",
            f"hint: to move it, type: anymq group seek {topic} late --to …",
        ]

    def test_an_ordered_group(self, anymq: Command, url: str, topic: str) -> None:
        async def take_one(broker: Broker) -> None:
            async with broker.subscribe(topic, group="g", ordered=True) as deliveries:
                async for delivery in deliveries:
                    await delivery.ack()
                    return

        anymq("pub", topic, '{"n": {{count}}}', "--count", "4", "-k", "one", "-u", url)
        with_broker(url, take_one)
        rest = anymq("sub", topic, "-g", "g", "--until", "end", "-f", "raw", "-u", url)
        assert numbers(rest) == [2, 3, 4]

    @pytest.mark.parametrize("backend", SHARED)
    def test_what_the_interrupt_key_left_unwritten_is_delivered_again(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        body = json.dumps({"n": "{{count}}", "more": "x" * 2000})
        anymq("pub", topic, body, "--count", "300", "-u", url)
        with start("sub", topic, "-g", "g", "-f", "raw", "-u", url) as process:
            assert process.stdout is not None
            written = process.stdout.readline()  # The pipe takes some more, and is full then.
            process.send_signal(signal.SIGINT)
            written += process.stdout.read()
            assert process.wait(60) == 130
        whole = [json.loads(line) for line in written.splitlines(True) if line.endswith("\n")]
        rest = anymq("sub", topic, "-g", "g", "--until", "end", "-f", "raw", "-u", url)
        assert 1 <= len(whole) < 300
        found = [int(each["n"]) for each in [*whole, *map(json.loads, lines(rest))]]
        assert sorted(found) == list(range(1, 301))

    @pytest.mark.parametrize("backend", SHARED)
    def test_what_a_closed_pipe_did_not_take_is_delivered_again(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        body = json.dumps({"n": "{{count}}", "more": "x" * 200_000})  # More than a pipe holds.
        anymq("pub", topic, body, "--count", "3", "-u", url)
        with start("sub", topic, "-g", "g", "-f", "raw", "-u", url) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            first = json.loads(process.stdout.readline())["n"]
            process.stdout.close()
            assert process.wait(60) == 141
            assert len(process.stderr.read().splitlines()) == 1  # the remark alone
        rest = anymq("sub", topic, "-g", "g", "--until", "end", "-f", "raw", "-u", url)
        found = [json.loads(line)["n"] for line in lines(rest)]
        assert sorted([first, *found]) == ["1", "2", "3"]


@pytest.mark.parametrize("backend", SHARED)
@pytest.mark.parametrize("options", [[], ["-g", "g"]], ids=["looking", "group"])
def test_two_terminals(url: str, topic: str, options: list[str]) -> None:
    """The first waits for the topic, which the other creates."""
    with terminal("sub", topic, "--follow", *options, "-u", url) as reader:
        reader.until(f"waiting for the topic {topic}")
        with terminal("pub", topic, "hello", "-k", "k-1", "-u", url) as writer:
            assert writer.end() == 0
            assert f"{topic} id=" in writer.shown
        reader.until(r"key=k-1(.|\n)*hello\r\n")
        with terminal("pub", topic, "again", "-u", url) as writer:
            assert writer.end() == 0
        reader.until(r"again\r\n")
        assert reader.interrupt() == 130
        assert reader.shown.count("hello\r\n") == 1
        assert "Traceback" not in reader.shown


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_pipe_that_closes_while_nothing_is_written(anymq: Command, url: str, topic: str) -> None:
    anymq("pub", topic, "x", "-u", url)
    for options in ([], ["-g", "g", "--from", "end"]):
        with start("sub", topic, *options, "-u", url) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stderr.readline()
            process.stdout.close()
            assert process.wait(60) == 141
            assert process.stderr.read() == ""


@pytest.mark.parametrize("backend", ["sqlite"])
def test_messages_are_written_to_a_file(
    anymq: Command, url: str, topic: str, tmp_path: Path
) -> None:
    publish(anymq, url, topic, 3)
    with open(tmp_path / "out", "wb") as out:
        line = ["sub", topic, "--from", "start", "-f", "raw", "-u", url]
        with start(*line, stdin=subprocess.DEVNULL, stdout=out) as process:
            assert process.wait(60) == 0
    assert (tmp_path / "out").read_text() == '{"n": 1}\n{"n": 2}\n{"n": 3}\n'


@pytest.mark.parametrize("backend", ["sqlite"])
class TestFormats:
    """The forms of a message."""

    def test_pretty(self, anymq: Command, url: str, topic: str) -> None:
        anymq("pub", topic, "hello", "-k", "k", "-H", "a: b", "--id", "i", "-u", url)
        anymq("pub", topic, json.dumps({"list": ["x" * 60, "y" * 60]}), "-u", url)
        shown = anymq("sub", topic, "--from", "start", "-u", url).out
        about = r"#1  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z  key=k  id=i\n  a: b\nhello\n#2  "
        assert re.match(about, shown)
        assert f'\n{{\n  "list": [\n    "{"x" * 60}",\n' in shown

    def test_control_characters_do_not_reach_a_terminal(
        self, anymq: Command, url: str, topic: str
    ) -> None:
        anymq("pub", topic, "a\x1b[2Jb\u202e\tc\nd", "-k", "k\x9b1", "-u", url)
        for options in ([], ["-f", "{key} {data}"]):
            with terminal("sub", topic, "--from", "start", *options, "-u", url) as shown:
                assert shown.end() == 0
            assert "a\\x1b[2Jb\\u202e\tc\r\nd\r\n" in shown.shown
            assert "k\\x9b1" in shown.shown

    def test_no_colour_where_it_is_unwanted(self, anymq: Command, url: str, topic: str) -> None:
        anymq("pub", topic, "x", "-u", url)
        for env, has_colours in (({}, True), ({"NO_COLOR": "1"}, False)):
            line = ["sub", topic, "--from", "start", "-u", url]
            with terminal(*line, env=env) as shown:
                assert shown.end() == 0
            assert ("\x1b[2m#1" in shown.shown) is has_colours

    def test_bodies_that_are_no_text(self, anymq: Command, url: str, topic: str) -> None:
        line = '{"anymq":1,"kind":"message","data":{"body_base64":"iVBORw=="}}'
        anymq("pub", topic, "-u", url, stdin=line)
        data = anymq("sub", topic, "--from", "start", "--json", "-u", url).data
        assert data["body_base64"] == "iVBORw=="
        assert "body" not in data
        shown = anymq("sub", topic, "--from", "start", "-u", url).out
        assert shown.endswith("\n(4 bytes) 89 50 4e 47\n")
        started = arguments_of("sub", topic, "--from", "start", "-f", "{data}", "-u", url)
        done = subprocess.run(started, env=environment(), capture_output=True, check=True)
        assert done.stdout == b"\x89PNG\n"

    @pytest.mark.parametrize(
        ("template", "shown"),
        [
            ("{key} {data}", "k hello"),
            (r"{topic}\t{id}\n{type}\\", "TOPIC\ti\nplaced\\"),
            ("{header[a]}|{header[none]}|{headers}", 'b||{"a": "b"}'),
            ("{{x}} {partition} {position} {attempt}", "{x} 0 1 "),
            ("{source} {content_type}", "anymq text/plain; charset=utf-8"),
        ],
    )
    def test_templates(
        self, anymq: Command, url: str, topic: str, template: str, shown: str
    ) -> None:
        options = ["-k", "k", "-H", "a: b", "--id", "i", "--type", "placed"]
        anymq("pub", topic, "hello", *options, "-u", url)
        found = anymq("sub", topic, "--from", "start", "-f", template, "-u", url).out
        assert found == shown.replace("TOPIC", topic) + "\n"


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["-f", "jsn"], "no format 'jsn'"),
        (["-f", "{ky}"], "did you mean {key}?"),
        (["-f", "{zzz}"], "there are data, key"),
        (["-f", "{}"], "no field {}"),
        (["-f", "{key"], "malformed"),
        (["-f", "{key:>10}"], "no format of its own"),
        (["--json", "-f", "raw"], "give one of them"),
        (["-n", "0"], "-n is at least 1"),
        (["-n", "x"], "-n"),
        (["--from", "-x"], "is no start"),
        (["--from", "-0"], "is no start"),
        (["--from", "@soon"], "is no time"),
        (["--until", "start"], "--until"),
        (["--until", "end", "--follow"], "exclude each other"),
        (["-g", "a b"], "a b"),
        (["--from", "no position"], "position"),
    ],
)
def test_wrong_usage(
    anymq: Command, url: str, topic: str, arguments: list[str], problem: str
) -> None:
    anymq("pub", topic, "x", "-u", url)
    failed = anymq("sub", topic, *arguments, "-u", url, code=2)
    assert problem in failed.err.splitlines()[-1]
    assert bodies(url, topic) == ["x"]


@pytest.mark.parametrize(
    "url",
    ["redis://127.0.0.1:1", "kafka://127.0.0.1:1", "amqp://127.0.0.1:1", "nats://127.0.0.1:1"],
)
def test_a_dead_broker_is_one_line(anymq: Command, url: str) -> None:
    (said,) = anymq("sub", "orders", "-u", f"{url}?connect_timeout=2", code=1).err.splitlines()
    assert url.partition("://")[2] in said
