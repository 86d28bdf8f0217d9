"""The graph of events, and its drawings in Mermaid and DOT."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest

import anymq
from anymq.description import Service, dot, graph, mermaid, service
from tests.description.shop import shop

NASTY = [
    'quote"s',
    "a]b[c",
    "end",
    "x --> y",
    "semi;colon",
    "#35;",
    "back\\slash",
    "é ü 注文",
    "{|}",
]


@dataclass
class Mail:
    text: str


MAILS = anymq.Topic("mails", Mail)


def services() -> list[Service]:
    mailer = anymq.App(name="mailer")

    @mailer.subscriber("payments.captured", group="mails", to=MAILS)
    async def thank(payment: dict[str, Any]) -> Mail | None:
        return Mail("thank you")

    feed = anymq.App(name="feed", publishes=["orders"])
    return [service(each, name="unused") for each in (shop(), mailer, feed)]


def test_services_meet_at_topics() -> None:
    found = graph(services())
    names = {each.id: each.name for each in found.services}
    names |= {each.id: each.name for each in found.topics}
    names |= {each.id: each.name for node in found.services for each in node.handlers}
    edges = {(names[each.source], each.kind, names[each.target]) for each in found.edges}
    assert edges == {
        ("orders", "consumes", "bill, refund"),
        ("bill, refund", "dead letters", "orders.billing.dlq"),
        ("orders.billing.dlq", "consumes", "mend"),
        ("mend", "dead letters", "orders.billing.dlq.mend.dlq"),
        ("notes", "consumes", "keep"),
        ("keep", "dead letters", "notes.notes.dlq"),
        ("images", "consumes", "show"),
        ("texts", "consumes", "read"),
        ("read", "dead letters", "texts.texts.dlq"),
        ("shop", "publishes", "payments.captured"),
        ("shop", "publishes", "audit"),
        ("shop", "publishes", "orders"),
        ("feed", "publishes", "orders"),
        ("payments.captured", "consumes", "thank"),
        ("thank", "dead letters", "payments.captured.mails.dlq"),
        ("thank", "publishes", "mails"),
    }
    topics = {each.name: each for each in found.topics}
    assert topics["mails"].types == ("Mail",)
    assert topics["orders"].types == ("OrderPlaced", "shop/order.cancelled")
    assert topics["orders.billing.dlq"].dead_letters
    assert not topics["orders"].dead_letters


def test_the_graph_is_the_same_each_time() -> None:
    first, second = graph(services()), graph(services())
    assert mermaid(first) == mermaid(second)
    assert json.dumps(first.as_json()) == json.dumps(second.as_json())


MERMAID = [
    r"flowchart LR",
    r'    subgraph s\d+\["LABEL"\]',
    r'    s\d+\["LABEL"\]',
    r'        s\d+h\d+\["LABEL"\]',
    r"    end",
    r'    t\d+\[\("LABEL"\)\]',
    r'    (?:s\d+|s\d+h\d+|t\d+) (?:-->|-\.->)(?:\|"LABEL"\|)? (?:s\d+h\d+|t\d+)',
]
MERMAID_LINE = re.compile("|".join(MERMAID).replace("LABEL", r"(?:[\w .,()-]|#\d+;)+"))


def read_mermaid(text: str) -> list[str]:
    """Return the labels of a flowchart; every line must be one of the language."""
    for line in text.splitlines():
        assert MERMAID_LINE.fullmatch(line), line
    opened = len(re.findall(r"^ +subgraph ", text, re.MULTILINE))
    assert opened == len(re.findall(r"^ +end$", text, re.MULTILINE))
    return [
        re.sub(r"#(\d+);", lambda code: chr(int(code[1])), label)
        for label in re.findall(r'"([^"]*)"', text)
    ]


TOKEN = re.compile(r'\s*(?:("(?:[^"\\]|\\.)*")|([A-Za-z_][A-Za-z0-9_]*)|(->|[{}\[\]=;,]))')


def read_dot(text: str) -> list[str]:
    """Return the labels of a digraph, read by the grammar of DOT."""
    tokens: list[str] = []
    at = 0
    while text[at:].strip():
        found = TOKEN.match(text, at)
        assert found, text[at : at + 40]
        tokens.append(found[0].strip())
        at = found.end()
    labels: list[str] = []
    assert tokens[:1] == ["digraph"]
    rest = _dot_block(tokens[2:], labels)
    assert rest == []
    return labels


def _dot_block(tokens: list[str], labels: list[str]) -> list[str]:
    assert tokens[0] == "{"
    tokens = tokens[1:]
    while tokens[0] != "}":
        if tokens[0] == "subgraph":
            tokens = _dot_block(tokens[2:], labels)
            continue
        end = tokens.index(";")
        _dot_statement(tokens[:end], labels)
        tokens = tokens[end + 1 :]
    return tokens[1:]


def _dot_statement(tokens: list[str], labels: list[str]) -> None:
    if tokens[1:2] == ["->"]:
        assert re.fullmatch(r"[st]\w+", tokens[2])
        attributes = tokens[3:]
    elif tokens[1:2] == ["="]:
        attributes = ["[", *tokens, "]"]
    else:
        attributes = tokens[1:]
    if not attributes:
        return
    assert (attributes[0], attributes[-1]) == ("[", "]")
    for each in [*attributes[1:-1], ","][::4]:
        assert re.fullmatch(r"[a-z]+", each)
    for name, equals, value in zip(*(attributes[1:-1][n::4] for n in range(3)), strict=True):
        assert equals == "="
        if name == "label":
            labels.append(re.sub(r"\\(.)", r"\1", value.strip('"')))


def test_drawings_are_in_their_languages() -> None:
    found = graph(services())
    assert "shop 1.4" in read_mermaid(mermaid(found))
    assert "shop 1.4" in read_dot(dot(found))
    assert "OrderPlaced, shop/order.cancelled" in read_mermaid(mermaid(found))
    assert "OrderPlaced, shop/order.cancelled" in read_dot(dot(found))


@pytest.mark.parametrize("name", NASTY)
def test_names_are_escaped(name: str) -> None:
    app = anymq.App(name=name)

    async def handle(order: dict[str, Any]) -> None: ...

    handle.__qualname__ = name
    app.subscriber("orders", group="billing")(handle)
    found = graph([service(app, name="unused")])
    for labels in (read_mermaid(mermaid(found)), read_dot(dot(found))):
        assert name in labels
        assert f"{name} (billing)" in labels


def test_the_grammars_find_mistakes() -> None:
    found = graph(services())
    for wrong in (
        mermaid(found).replace("-->", "->"),
        mermaid(found).replace("    end\n", "", 1),
        mermaid(found).replace("(", '"', 1),
    ):
        with pytest.raises(AssertionError):
            read_mermaid(wrong)
    for wrong in (dot(found).replace("];", "]", 1), dot(found).replace('"', "", 1)):
        with pytest.raises((AssertionError, ValueError, IndexError)):
            read_dot(wrong)


def test_an_app_with_nothing_is_a_graph_too() -> None:
    found = graph([service(anymq.App(), name="idle")])
    assert read_mermaid(mermaid(found)) == ["idle"]
    assert "idle" in read_dot(dot(found))
