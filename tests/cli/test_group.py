"""`anymq group`, on every backend."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

import anymq as library
from anymq.testing import random_name
from anymq.testing.tools import bodies, eventually, take_acked
from tests.cli.groups import live_member, reject_one, settled_group
from tests.cli.support import Command, column, start
from tests.cli.terminal import terminal


def test_ls_and_show(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)
    (found,) = anymq("group", "ls", topic, "--json", "-u", url).data
    assert (found["topic"], found["group"], found["dead_letters"]) == (topic, "billing", 1)
    assert found["lag"] in (None, 1)
    assert found["lag_at_least"] == 1
    assert found["lag_seconds"] is None or 0 <= found["lag_seconds"] < 600
    assert found["in_flight"] in (None, 0)
    assert found["waiting"] in (None, 0)
    shown = anymq("group", "ls", topic, "-u", url).out
    assert column(shown, "TOPIC") == [topic]
    assert column(shown, "GROUP") == ["billing"]
    assert column(shown, "LAG")[0] in ("1", "1+")
    assert column(shown, "DEAD") == ["1"]
    assert (column(shown, "AGE") == ["-"]) == (found["lag_seconds"] is None)
    assert column(shown, "RETRIES")[0] == ("-" if found["waiting"] is None else "0")

    data = anymq("group", "show", topic, "billing", "--json", "-u", url).data
    assert (data["topic"], data["group"], data["dead_letters"]) == (topic, "billing", 1)
    assert data["members"] in (None, [])
    text = anymq("group", "show", topic, "billing", "-u", url).out
    assert re.search(r"^lag +1", text, re.MULTILINE)
    assert anymq("group", "ls", random_name(), "--json", "-u", url).data == []


def test_a_live_member_is_shown_and_protects_its_group(
    anymq: Command, url: str, topic: str
) -> None:
    asyncio.run(reject_one(url, topic))
    with live_member(url, topic, "billing"):
        found = anymq("group", "show", topic, "billing", "--json", "-u", url).data
        assert found["in_flight"] in (None, 1)
        text = anymq("group", "show", topic, "billing", "-u", url).out
        assert all(member["name"] in text for member in found["members"] or ())
        assert found["members"] is None or len(found["members"]) == 1
        for verb, *options in (["seek", "--to", "start"], ["delete", "--yes"]):
            failed = anymq("group", verb, topic, "billing", *options, "-u", url, code=1)
            assert "live members" in failed.err
            assert len(failed.err.splitlines()) == 1
        planned = anymq("group", "seek", topic, "billing", "--to", "end", "-n", "-u", url)
        assert "refused" in planned.out


@pytest.mark.parametrize("to", ["start", "@-1h", "end", "@2100-01-01T00:00Z"])
def test_seek(anymq: Command, url: str, topic: str, to: str) -> None:
    settled_group(url, topic)
    messages = 0 if to in ("end", "@2100-01-01T00:00Z") else 3
    arguments = ("group", "seek", topic, "billing", "--to", to, "-u", url)
    planned = anymq(*arguments, "--dry-run", "--json").data
    assert (planned["messages"], planned["dry_run"]) == (messages, True)
    assert anymq("group", "show", topic, "billing", "--json", "-u", url).data["lag_at_least"] == 1
    done = anymq(*arguments)
    assert f"{messages} messages to deliver" in done.out

    async def after() -> None:
        async with library.connect(url) as broker:
            await broker.publish(topic, "new", key="k")
            async with broker.subscribe(topic, group="billing") as deliveries:
                received = await take_acked(deliveries, messages + 1)
            assert bodies(received) == ["a", "b", "c", "new"][3 - messages :]

    asyncio.run(after())


def test_seek_to_a_position(anymq: Command, url: str, topic: str) -> None:
    async def prepare() -> str:
        async with library.connect(url) as broker:
            found = [each async for each in broker.admin.browse(topic)]
            return next(each.position for each in found if each.message.body == b"c")

    settled_group(url, topic)
    position = asyncio.run(prepare())
    arguments = ("group", "seek", topic, "billing", "--to", position, "-u", url, "--json")
    planned = anymq(*arguments, "--dry-run").data
    assert (planned["messages"], planned["to"]) == (1, position)
    assert anymq(*arguments).data == planned | {"dry_run": False}
    for bad in ("?!", "-1h", "@tomorrow", ""):
        failed = anymq("group", "seek", topic, "billing", f"--to={bad}", "-u", url, code=None)
        assert failed.code in (1, 2)
        assert len(failed.err.splitlines()) == 1
        assert "unexpected" not in failed.err


def test_delete_wants_yes(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)
    refused = anymq("group", "delete", topic, "billing", "-u", url, code=1)
    assert re.search(
        rf"deletes the group billing of {topic}: (at least )?1 unsettled message; "
        "1 dead letter stays; nothing was changed",
        refused.err,
    )
    assert f"anymq group delete {topic} billing --url" in refused.err
    assert [each["group"] for each in anymq("group", "ls", topic, "--json", "-u", url).data] == [
        "billing"
    ]
    done = anymq("group", "delete", topic, "billing", "--yes", "--json", "-u", url).data
    assert (done["group"], done["dead_letters"]) == ("billing", 1)
    assert anymq("group", "ls", topic, "--json", "-u", url).data == []
    (found,) = anymq("topic", "ls", f"{topic}*", "--json", "-u", url).data
    assert (found["name"], found["dead_letters"]) == (topic, 1)


def test_unknown_names_are_one_line_with_a_proposal(anymq: Command, url: str, topic: str) -> None:
    settled_group(url, topic)
    for verb, *options in (["show"], ["seek", "--to", "end"], ["delete", "--yes"]):
        unknown = anymq("group", verb, topic, "biling", *options, "-u", url, code=1)
        assert unknown.err == (
            f"anymq: topic '{topic}' has no group 'biling'; did you mean 'billing'?\n"
        )
        absent = anymq("group", verb, f"{topic}x", "billing", *options, "-u", url, code=1)
        assert absent.err == f"anymq: there is no topic '{topic}x'; did you mean '{topic}'?\n"


@pytest.mark.parametrize("url", ["memory://"])
def test_wrong_values(anymq: Command, url: str) -> None:
    for arguments in (
        ["ls", "--every", "2"],
        ["ls", "--watch", "--every", "1ms"],
        ["seek", "t", "g"],
        ["show", "t"],
    ):
        failed = anymq("group", *arguments, "-u", url, code=2)
        assert len(failed.err.splitlines()) == 1
    assert "not a group name" in anymq("group", "show", "t", "a.b", "-u", url, code=2).err


def test_a_dead_broker_is_one_line(anymq: Command) -> None:
    url = "redis://user:hunter2@127.0.0.1:1/?connect_timeout=0.5"
    for arguments in (["ls"], ["show", "t", "g"], ["seek", "t", "g", "--to", "end"]):
        failed = anymq("group", *arguments, "-u", url, code=1)
        assert "hunter2" not in failed.err
        assert len(failed.err.splitlines()) == 1


def test_watch_refreshes_a_terminal_until_interrupted(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/watched.db"
    asyncio.run(reject_one(url, "orders"))
    command = ("group", "ls", "--watch", "--every", "100ms", "-u", url)
    with terminal(*command) as shown:
        shown.until(r"orders +billing +1 ")

        async def settle() -> None:
            async with (
                library.connect(url) as broker,
                broker.subscribe("orders", group="billing") as deliveries,
            ):
                await take_acked(deliveries, 1)

        asyncio.run(settle())
        shown.until(r"\x1b\[2J(?s:.)*orders +billing +0 ")
        assert shown.interrupt() == 130
        assert "Traceback" not in shown.shown


def test_watch_writes_an_envelope_for_each_refresh(url: str, topic: str, backend: str) -> None:
    if backend == "memory":
        pytest.skip("a process of its own has a memory of its own")
    settled_group(url, topic)
    process = start(
        "group", "show", topic, "billing", "--watch", "--every", "100ms", "--json", "-u", url
    )
    assert process.stdout is not None
    with process:
        for _ in range(3):
            envelope = json.loads(process.stdout.readline())
            assert (envelope["kind"], envelope["data"]["group"]) == ("group", "billing")
        process.stdout.close()
        assert process.wait(60) == 141


def test_watch_ends_with_its_group(anymq: Command, url: str, topic: str) -> None:
    """A group deleted meanwhile ends the command with an error, and does not go on for ever."""
    settled_group(url, topic)

    async def delete() -> None:
        async with library.connect(url) as broker:
            await broker.admin.delete(topic, "billing")
            await eventually(lambda: broker.admin.groups(topic), lambda found: found == [])

    asyncio.run(delete())
    failed = anymq("group", "show", topic, "billing", "--watch", "-u", url, code=1)
    assert "has no group 'billing'" in failed.err
