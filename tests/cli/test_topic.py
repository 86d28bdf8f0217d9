"""`anymq topic`, on every backend."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import anymq as library
from anymq.testing import random_name
from tests.cli.groups import reject_one
from tests.cli.support import Command, column


def listed(anymq: Command, url: str, topic: str, *options: str) -> list[Any]:
    found = anymq("topic", "ls", topic, "--json", "-u", url, *options).data
    assert isinstance(found, list)
    return found


def test_ls_and_show(anymq: Command, url: str, topic: str) -> None:
    asyncio.run(reject_one(url, topic))
    (found,) = listed(anymq, url, topic)
    assert found["name"] == topic
    assert found["messages"] in (None, 2, 3)
    assert found["dead_letters"] == 1
    (group,) = found["groups"]
    assert (group["group"], group["dead_letters"]) == ("billing", 1)
    assert group["lag"] in (None, 1)
    assert group["lag_at_least"] == 1
    shown = anymq("topic", "ls", topic, "-u", url).out
    assert column(shown, "TOPIC") == [topic]
    assert column(shown, "DEAD") == ["1"]
    assert column(shown, "GROUPS:LAG")[0] in ("billing:1", "billing:1+")

    data = anymq("topic", "show", topic, "--json", "-u", url).data
    assert (data["name"], data["groups"][0]["group"]) == (topic, "billing")
    assert [part["number"] for part in data["partitions"]] == list(range(len(data["partitions"])))
    text = anymq("topic", "show", topic, "-u", url).out
    assert "billing" in text
    assert "PARTITION" in text


def test_all_lists_dead_letters_and_their_log(anymq: Command, url: str, topic: str) -> None:
    asyncio.run(reject_one(url, topic))
    anymq_dlq = f"{topic}.billing.dlq"

    async def settle() -> None:
        async with library.connect(url) as broker:
            assert await broker.admin.dead_letters(topic, "billing").drop_all() == 1

    asyncio.run(settle())
    names = [each["name"] for each in listed(anymq, url, topic, "--all")]
    assert names == [topic, anymq_dlq, f"{anymq_dlq}._settled"]
    (found,) = listed(anymq, url, topic)
    assert (found["name"], found["dead_letters"]) == (topic, 0)


def test_create(anymq: Command, url: str, topic: str) -> None:
    options = ["--partitions", "2", "--retention", "7d", "--retention-bytes", "1GB", "-u", url]
    assert "created" in anymq("topic", "create", topic, *options).out
    data = anymq("topic", "show", topic, "--json", "-u", url).data
    assert len(data["partitions"]) == 2
    assert data["retention"] in (None, 7 * 86400)
    assert data["retention_bytes"] in (None, 10**9)
    again = anymq("topic", "create", topic, "--json", "-u", url).data
    assert again == {"name": topic, "partitions": 2, "created": False}
    refused = anymq("topic", "create", topic, "--partitions", "3", "-u", url, code=2)
    assert "2 partitions" in refused.err


@pytest.mark.parametrize("verb", ["delete", "purge"])
def test_destroying_wants_yes(anymq: Command, url: str, topic: str, verb: str) -> None:
    asyncio.run(reject_one(url, topic))

    async def delay() -> None:
        async with library.connect(url) as broker:
            await broker.publish(topic, "later", delay=3600)

    asyncio.run(delay())
    refused = anymq("topic", verb, topic, "-u", url, code=1)
    assert refused.out == ""
    assert re.search(
        rf"{verb}s {topic}: [23] messages, (1 delayed message, )?1 group with "
        r"(0|possibly) live members; 1 dead letter stays; nothing was changed",
        refused.err,
    )
    assert f"anymq topic {verb} {topic} --url" in refused.err
    assert "--yes" in refused.err
    (found,) = listed(anymq, url, topic)
    assert found["groups"][0]["lag_at_least"] == 1

    done = anymq("topic", verb, topic, "--yes", "--json", "-u", url).data
    assert (done["name"], done["groups"]) == (topic, ["billing"])
    assert done["messages"] in (None, 2, 3)
    assert done["members"] in (None, 0)
    assert done["delayed"] in (None, 1)
    assert done["dead_letters"] == 1
    left = [each["name"] for each in listed(anymq, url, topic)]
    assert left == ([f"{topic}.billing.dlq"] if verb == "delete" else [topic])


def test_an_unknown_topic_is_one_line_with_a_proposal(anymq: Command, url: str, topic: str) -> None:
    anymq("topic", "create", topic, "-u", url)
    for verb in (["show"], ["delete", "--yes"], ["purge", "--yes"]):
        failed = anymq("topic", *verb, f"{topic}x", "-u", url, code=1)
        assert failed.err == f"anymq: there is no topic '{topic}x'; did you mean '{topic}'?\n"
    assert listed(anymq, url, random_name()) == []


@pytest.mark.parametrize("url", ["memory://"])
def test_wrong_values(anymq: Command, url: str) -> None:
    for option, value in (
        ("--retention", "7"),
        ("--retention-bytes", "1XB"),
        ("--partitions", "x"),
    ):
        failed = anymq("topic", "create", "t", option, value, "-u", url, code=2)
        assert option in failed.err
        assert len(failed.err.splitlines()) == 1
    assert "not a topic name" in anymq("topic", "create", "a b", "-u", url, code=2).err
    assert "scheme://" in anymq("topic", "ls", "-u", "nonsense", code=2).err


def test_the_command_to_type_shows_no_password(anymq: Command, topic: str) -> None:
    failed = anymq("topic", "ls", "-u", "redis://user:hunter2@127.0.0.1:1/", code=1)
    assert "hunter2" not in failed.err
    assert len(failed.err.splitlines()) == 1
