"""Dead letters as JSON values: what is read back, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq import ConfigurationError, Letter, Message
from anymq.operating.letter import letter_of
from anymq.topic import dead_letter_origin, dead_letter_topic

FAILURE = {
    "anymq-dlq-topic": "orders",
    "anymq-dlq-group": "billing",
    "anymq-dlq-reason": "no sum",
    "anymq-dlq-attempts": "3",
    "anymq-dlq-first-seen": "2026-11-28T09:00:00+00:00",
    "anymq-dlq-failed-at": "2026-11-28T10:00:00+00:00",
}
LINE: dict[str, Any] = {"topic": "orders", "group": "billing", "id": "o-1", "body": "{}"}

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
OPTIONAL = st.none() | TEXT


def letter_in(message: Message) -> Letter:
    return letter_of(message, position="7", topic="orders", group="billing")


@given(
    body=st.binary(max_size=50),
    id=TEXT.filter(bool),
    texts=st.lists(OPTIONAL, min_size=6, max_size=6),
    time=st.none() | st.datetimes(timezones=st.just(UTC)),
    headers=st.dictionaries(TEXT.map("x-{}".format), TEXT, max_size=3),
)
def test_a_letter_is_read_back_as_it_was(
    body: bytes, id: str, texts: list[str | None], time: datetime | None, headers: dict[str, str]
) -> None:
    key, kind, source, content_type, correlation, causation = texts
    message = Message(
        id=id,
        topic="orders.billing.dlq",
        body=body,
        key=key,
        type=kind,
        source=source,
        content_type=content_type,
        correlation_id=correlation,
        causation_id=causation,
        time=time,
        headers=MappingProxyType(FAILURE | headers),
    )
    letter = letter_in(message)
    assert Letter.from_dict(json.loads(json.dumps(letter.as_dict()))) == letter


def test_the_least_that_a_letter_needs() -> None:
    letter = Letter.from_dict(LINE)
    assert (letter.topic, letter.group, letter.message.body) == ("orders", "billing", b"{}")
    assert letter.message.topic == "orders.billing.dlq"
    assert Letter.from_dict(LINE | {"group": None}).message.topic == "orders.broadcast.dlq"


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"topic": None}, "topic is missing"),
        ({"topic": "a b"}, "not a topic name"),
        ({"group": "a.b"}, "not a group name"),
        ({"stored_in": "*"}, "not a topic name"),
        ({"stored_in": "orders"}, "stored_in is the topic itself"),
        ({"id": ""}, "id is empty"),
        ({"id": 7}, "id is no text"),
        ({"body": 7}, "body is no text"),
        ({"body_base64": "AA=="}, "either body or body_base64"),
        ({"key": "\ud800"}, "key is not valid Unicode"),
        ({"time": "yesterday"}, "time is no time"),
        ({"headers": []}, None),
        ({"headers": ["a"]}, "headers is no JSON object"),
        ({"headers": {"a": 1}}, "the header 'a' is no text"),
        ({"headers": {"": "1"}}, "reserved"),
        ({"headers": {"Nats-Msg-Id": "1"}}, "reserved"),
        ({"headers": {"anymq-only-group": "1"}}, "reserved"),
        ({"headers": {"\ud800": "1"}}, "not valid Unicode"),
        ({"headers": {"anymq-dlq-topic": "payments"}}, "not those in the headers"),
        ({"headers": {"anymq-dlq-group": "broadcast"}}, "not those in the headers"),
    ],
)
def test_what_is_no_letter_is_refused(changed: dict[str, Any], error: str | None) -> None:
    if error is None:
        assert Letter.from_dict(LINE | changed).message.headers == {}
        return
    with pytest.raises(ConfigurationError, match=error):
        Letter.from_dict(LINE | changed)


@pytest.mark.parametrize("data", [None, 7, "x", [LINE]])
def test_only_an_object_is_a_letter(data: object) -> None:
    with pytest.raises(ConfigurationError, match="JSON object"):
        Letter.from_dict(data)


def test_no_base64() -> None:
    line = {name: value for name, value in LINE.items() if name != "body"}
    for text in ("?", "AA", "AÄ=="):
        with pytest.raises(ConfigurationError, match="base64"):
            Letter.from_dict(line | {"body_base64": text})


def test_letters_of_broadcast_are_of_no_group() -> None:
    message = Message(
        id="1", topic="refused", body=b"", headers={**FAILURE, "anymq-dlq-group": "broadcast"}
    )
    assert letter_in(message).group is None
    assert letter_of(message, position="1", topic="orders", group=None).group is None
    assert letter_of(message, position="1", topic="orders", group="broadcast").group == "broadcast"


@pytest.mark.parametrize("name", ["orders", "orders.dlq", ".dlq", "a.dlq.x", "dlq", "x.dlq"])
def test_topics_that_are_not_for_dead_letters(name: str) -> None:
    assert dead_letter_origin(name) is None


def test_origins_of_dead_letter_topics() -> None:
    for topic, group in (("orders", "billing"), ("a.b", None), ("orders.billing.dlq", "g")):
        assert dead_letter_origin(dead_letter_topic(topic, group)) == (topic, group)
