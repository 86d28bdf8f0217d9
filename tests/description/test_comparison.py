"""Changes between two AsyncAPI documents, and whom they break."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import pytest
from pydantic import BaseModel, create_model

import anymq
from anymq import ConfigurationError, Topic
from anymq.description import Change, asyncapi, compare, service
from tests.description.shop import shop


def event(name: str, types: str | tuple[str, ...] = (), **fields: Any) -> type[BaseModel]:
    made: type[BaseModel] = create_model(name, **fields)
    if types:
        made.__event_type__ = types  # type: ignore[attr-defined]
    return made


def document(
    *takes: type[BaseModel],
    sends: Sequence[type[BaseModel]] = (),
    unknown: Literal["reject", "ignore"] = "reject",
) -> Any:
    """Return the document of an app that handles and publishes these types on `orders`."""

    def topic_of(kinds: Sequence[type[BaseModel]]) -> Topic[Any]:
        union: Any = kinds[0]
        for each in kinds[1:]:
            union = union | each
        return Topic("orders", union)

    app = anymq.App("memory://", name="shop", publishes=[topic_of(sends)] if sends else [])
    if takes:

        @app.subscriber(topic_of(takes), group="billing", unknown=unknown)
        async def handle(order) -> None: ...  # type: ignore[no-untyped-def]

    return json.loads(json.dumps(asyncapi([service(app, name="shop")])))


def lines(old: Any, new: Any, **options: Any) -> list[str]:
    return [str(each) for each in compare(old, new, **options)]


def breaking(changes: Sequence[Change]) -> list[Change]:
    return [each for each in changes if each.breaks]


PLACED = event("Placed", number=(str, ...))
PAID = event("Paid", number=(str, ...))


def test_the_same_document_has_no_changes() -> None:
    app = shop()
    same = json.loads(json.dumps(asyncapi([service(app, name="shop")])))
    assert compare(same, deepcopy(same)) == []


def test_a_new_required_field_breaks_new_consumers_of_old_messages() -> None:
    after = event("Placed", number=(str, ...), total=(int, ...))
    assert lines(document(PLACED), document(after)) == [
        "orders Placed $.total: the field is required, but missing "
        "(new consumers cannot read old messages)"
    ]


def test_a_removed_field_breaks_old_consumers_of_new_messages() -> None:
    before = event("Placed", number=(str, ...), total=(int, ...))
    assert lines(document(before), document(PLACED)) == [
        "orders Placed $.total: the field is required, but missing "
        "(old consumers cannot read new messages)"
    ]


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {"total": (int, 1)}, "$.total: added (optional integer)"),
        ({"total": (int, 1)}, {}, "$.total: removed (optional integer)"),
        ({"total": (int, 1)}, {"total": (int, 2)}, "$.total: default 1 → 2"),
    ],
)
def test_harmless_changes_are_listed(before: Any, after: Any, text: str) -> None:
    old, new = (event("Placed", number=(str, ...), **each) for each in (before, after))
    assert lines(document(old), document(new)) == [f"orders Placed {text}"]


def test_one_direction_alone() -> None:
    wider = event("Placed", number=(str | None, ...))
    old, new = document(PLACED), document(wider)
    (change,) = breaking(compare(old, new))
    assert (change.breaks, change.path, change.text) == (
        "forward",
        "$.number",
        "null is not accepted",
    )
    assert breaking(compare(old, new, directions=["backward"])) == []
    (harmless,) = compare(old, new, directions=["backward"])
    assert harmless.text == "type string → null or string"


def test_a_nested_change_has_its_path() -> None:
    def order(code: Any) -> type[BaseModel]:
        line = create_model("Line", code=(code, ...))
        return event("Placed", lines=(list[line], ...))  # type: ignore[valid-type]

    found = compare(document(order(str)), document(order(int)))
    assert {(each.path, each.breaks) for each in found} == {
        ("$.lines[].code", "backward"),
        ("$.lines[].code", "forward"),
    }


def test_a_type_that_its_group_no_longer_takes_breaks() -> None:
    found = lines(document(PLACED, PAID), document(PLACED))
    assert found == [
        "orders Paid: billing no longer takes this type (new consumers cannot read old messages)",
        "orders Paid: removed",
    ]
    assert breaking(compare(document(PLACED, PAID), document(PLACED, unknown="ignore"))) == []


def test_a_new_type_breaks_old_consumers_once_it_is_sent() -> None:
    old = document(PLACED, sends=[PLACED])
    assert breaking(compare(old, document(PLACED, PAID, sends=[PLACED]))) == []
    found = lines(old, document(PLACED, PAID, sends=[PLACED, PAID]))
    assert (
        "orders Paid: sent, but billing did not take this type "
        "(old consumers cannot read new messages)"
    ) in found
    ignoring = document(PLACED, sends=[PLACED], unknown="ignore")
    assert breaking(compare(ignoring, document(PLACED, sends=[PLACED, PAID]))) == []


def test_a_type_may_be_renamed_if_consumers_know_both_names() -> None:
    both = event("Placed", ("shop.placed", "Placed"), number=(str, ...))
    renamed = event("Placed", "shop.placed", number=(str, ...))
    old, middle = document(PLACED, sends=[PLACED]), document(both, sends=[both])
    assert [each.breaks for each in breaking(compare(old, middle))] == ["forward"]
    assert breaking(compare(middle, document(renamed, sends=[renamed]))) == []
    other = event("Bought", number=(str, ...))
    found = breaking(compare(old, document(other, sends=[other])))
    assert {each.breaks for each in found} == {"backward", "forward"}


def test_topics_and_groups_that_come_and_go() -> None:
    empty, sender = document(), document(sends=[PLACED])
    assert lines(empty, document(PLACED))[0] == "orders: added"
    (gone,) = breaking(compare(document(PLACED), empty))
    assert (gone.text, gone.breaks) == ("removed, with its consumers", "backward")
    assert breaking(compare(sender, empty)) == []
    (last,) = breaking(compare(document(PLACED), sender))
    assert last.text == "billing no longer consumes, and nobody else does"
    assert "orders: billing consumes" in lines(sender, document(PLACED, sends=[PLACED]))


def test_another_content_type_breaks_both() -> None:
    def of(kind: Any) -> Any:
        app = anymq.App(publishes=[Topic("data", kind)])
        return asyncapi([service(app, name="shop")])

    found = compare(of(str), of(bytes))
    assert [each.breaks for each in found] == ["backward", "forward"]
    assert "text/plain; charset=utf-8 → application/octet-stream" in found[0].text


def test_a_document_of_another_tool() -> None:
    """Messages in components, schemas in another format's wrapper, no operations of ours."""
    payload = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    old = {
        "asyncapi": "3.0.0",
        "info": {"title": "t", "version": "1"},
        "channels": {"a/b": {"messages": {"m": {"$ref": "#/components/messages/m"}}}},
        "operations": {"r": {"action": "receive", "channel": {"$ref": "#/channels/a~1b"}}},
        "components": {"messages": {"m": {"payload": payload}}},
    }
    new = deepcopy(old)
    new["components"]["messages"]["m"]["payload"] = {  # type: ignore[index]
        "schemaFormat": "application/schema+json;version=draft-07",
        "schema": {**payload, "properties": {"n": {"type": "string"}}},
    }
    assert [each.path for each in compare(old, new)] == ["$.n", "$.n"]


CHANNELS: list[Any] = [
    [],
    {"a": 1},
    {"a": {"messages": []}},
    {"a": {"messages": {"m": {"payload": 5}}}},
    {"a": {"messages": {"m": {"payload": {"type": "record"}}}}},
    {"a": {"messages": {"m": {"payload": {"type": "object", "properties": 5}}}}},
    {"a": {"messages": {"m": {"payload": {"type": "string", "minLength": "x"}}}}},
    {"a": {"messages": {"m": {"$ref": "#/nowhere"}}}},
    {"a": {"messages": {"m": {"$ref": "#/channels/a/messages/m"}}}},
]


@pytest.mark.parametrize("channels", CHANNELS)
def test_a_damaged_document_is_refused(channels: Any) -> None:
    good = {
        "asyncapi": "3.0.0",
        "channels": {"a": {"messages": {"m": {"payload": {"type": "string", "minLength": 1}}}}},
    }
    with pytest.raises(ConfigurationError):
        compare({"asyncapi": "3.0.0", "channels": channels}, good)


@pytest.mark.parametrize("document", [None, [], {}, {"asyncapi": "2.6.0"}, {"openapi": "3.0.0"}])
def test_what_is_no_asyncapi_3_is_refused(document: Any) -> None:
    with pytest.raises(ConfigurationError, match="the old document is no AsyncAPI 3 document"):
        compare(document, {"asyncapi": "3.0.0"})
