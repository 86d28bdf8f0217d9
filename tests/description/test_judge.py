"""What the judge of payloads says, change by change."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from anymq import ConfigurationError
from anymq.description import problems, schema_of


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"


class Cheque(BaseModel):
    kind: Literal["cheque"] = "cheque"
    bank: str


class Old(Enum):
    NEW, PAID = "new", "paid"


class More(Enum):
    NEW, PAID, SENT = "new", "paid", "sent"


Tagged = Annotated[Card | Cash, Field(discriminator="kind")]
Wider = Annotated[Card | Cash | Cheque, Field(discriminator="kind")]
Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Short = Annotated[str, Field(max_length=5)]
Money = Annotated[Decimal, Field(max_digits=8, decimal_places=2)]
Letters = Annotated[str, Field(pattern="^[a-z]+$")]

WIDENED: list[tuple[Any, Any, str]] = [
    (int, float, "number is written, integer is read"),
    (int, int | None, "null is not accepted"),
    (int, int | str, "string is written, integer is read"),
    (int, Any, "any value is written, integer is read"),
    (Short, str, "maxLength 5 is accepted, any size is written"),
    (Letters, str, "only text that matches ^[a-z]+$ is accepted"),
    (date, str, "text in the format date is read, any text is written"),
    (AwareDatetime, datetime, "only text that matches ([Zz]|[+-]\\d\\d:?\\d\\d)$ is accepted"),
    (Positive, Natural, "only numbers > 0 are accepted"),
    (Natural, int, "only numbers >= 0 are accepted"),
    (Annotated[int, Field(multiple_of=10)], Annotated[int, Field(multiple_of=5)], "only multiples"),
    (float, Decimal, "string (decimal) is written, number is read"),
    (Money, Decimal, "only numbers of the format decimal(8,2) are accepted"),
    (Money, Annotated[Decimal, Field(max_digits=9, decimal_places=3)], "format decimal(8,2)"),
    (Money, Annotated[Decimal, Field(max_digits=9)], "format decimal(8,2)"),
    (Literal["a"], Literal["a", "b"], "the value 'b' is not accepted"),
    (Literal["a"], str, "string is written, only 'a' is accepted"),
    (Old, More, "the value 'sent' is not accepted"),
    (tuple[int, int], list[int], "minItems 2 is required, 0 is written"),
    (Annotated[list[int], Field(max_length=3)], list[int], "maxItems 3 is accepted"),
    (set[int], list[int], "items that repeat are not accepted"),
    (dict[int, int], dict[str, int], "text in the format integer is read, any text is written"),
    (dict[Letters, int], dict[str, int], "names of fields follow another pattern"),
    (dict[Old, int], dict[str, int], "string is written, only 'new' or 'paid' is accepted"),
    (Tagged, Wider, "the value 'cheque' is not accepted"),
    (Card, Tagged, "the value 'cash' is not accepted"),
]
"""Old type, new type that takes more, and what an old reader says to the new one."""

CHANGED: list[tuple[Any, Any, str]] = [
    (int, str, "integer is written, string is read"),
    (str, bool, "string is written, boolean is read"),
    (datetime, date, "text in the format date is read, the format date-time is written"),
    (list[int], list[str], "integer is written, string is read"),
    (tuple[int, str], tuple[str, int], "integer is written, string is read"),
    (dict[str, int], dict[str, bool], "integer is written, boolean is read"),
    (Money, Annotated[Decimal, Field(max_digits=8, decimal_places=3)], "format decimal(8,3)"),
    (Card, Cash, "the value 'card' is not accepted"),
    (int | None, str, "null is not accepted"),
    (Old, int, "the value 'new' is not accepted"),
]


def said(written: Any, read: Any) -> str:
    return "\n".join(map(str, problems(schema_of(written), schema_of(read))))


@pytest.mark.parametrize(("old", "new", "reason"), WIDENED)
def test_a_wider_type_breaks_old_readers_alone(old: Any, new: Any, reason: str) -> None:
    assert said(old, new) == ""
    assert reason in said(new, old)


@pytest.mark.parametrize(("old", "new", "reason"), CHANGED)
def test_another_type_breaks(old: Any, new: Any, reason: str) -> None:
    assert reason in said(old, new)
    assert said(new, old)


def model(extra: Literal["ignore", "forbid", "allow"] = "ignore", **fields: Any) -> Any:
    return create_model("Order", __config__=ConfigDict(extra=extra), **fields)


ONE: Any = model(a=(int, ...))
TWO: Any = model(a=(int, ...), b=(int, ...))


@pytest.mark.parametrize(
    ("written", "read", "reason"),
    [
        (ONE, model(a=(int, ...), b=(str, "x")), ""),
        (ONE, model(a=(int, ...), b=(str, ...)), "$.b: the field is required, but missing"),
        (model(a=(int, 1)), ONE, "$.a: the field is required, but may be missing"),
        (ONE, model(), ""),
        (ONE, model("forbid"), "$.a: a field of this name is not accepted"),
        (ONE, dict[str, int], ""),
        (ONE, dict[str, str], "$.a: integer is written, string is read"),
        (dict[str, int], ONE, "$.a: the field is required, but may be missing"),
        (model("allow", a=(int, ...)), model(a=(int, ...), b=(str, "x")), "$.b: any value"),
        (model("allow"), model("forbid"), "$.*: further fields are not accepted"),
        (model(c=(ONE, ...)), model(c=(model(a=(str, ...)), ...)), "$.c.a: integer is written"),
        (
            model(c=(list[ONE], ...)),
            model(c=(list[TWO], ...)),
            "$.c[].b: the field is required, but missing",
        ),
        (model(c=(dict[str, int], ...)), model(c=(dict[str, bool], ...)), "$.c.*: integer"),
        (model(c=(tuple[int, int], ...)), model(c=(tuple[int, str], ...)), "$.c[1]: integer"),
        (ONE, Annotated[Card | Cash, Field(discriminator="kind")], "selects the alternative"),
    ],
)
def test_fields(written: Any, read: Any, reason: str) -> None:
    found = said(written, read)
    assert reason in found
    assert bool(found) is bool(reason)


def test_a_type_inside_itself() -> None:
    def tree(kind: Any) -> Any:
        return {
            "$ref": "#/$defs/Tree",
            "$defs": {
                "Tree": {
                    "type": "object",
                    "properties": {
                        "value": {"type": kind},
                        "below": {"type": "array", "items": {"$ref": "#/$defs/Tree"}},
                    },
                }
            },
        }

    assert problems(tree("integer"), tree("number")) == []
    found = problems(tree("string"), tree("number"))
    assert str(found[0]) == "$.value: string is written, number is read"
    assert {each.path for each in found} == {"$.value", "$.below[].value"}


def test_what_the_judge_does_not_know_is_a_problem() -> None:
    odd = {"type": "string", "not": {"const": "x"}}
    assert problems(odd, odd) == []
    assert [str(each) for each in problems({"type": "string"}, odd)] == [
        "$: not limits what is accepted"
    ]
    assert problems(odd, {"type": "string"}) == []


def test_alternatives_fit_one_by_one() -> None:
    assert said(Literal["a", 1], str | int) == ""
    assert said(int | str, Annotated[int, Field(ge=0)] | str) == "$: only numbers >= 0 are accepted"


@pytest.mark.parametrize(
    "schema",
    [
        5,
        {"type": "record"},
        {"$ref": "#/nowhere"},
        {"$ref": "http://example.org/schema"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
    ],
)
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError):
        problems(schema, {"type": "string"})
    with pytest.raises(ConfigurationError):
        problems({"type": "string"}, schema)
