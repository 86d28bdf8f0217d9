"""Random payload types, with values of theirs, and edits that make the next version of a type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Optional, Union
from uuid import UUID

from hypothesis import strategies as st
from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    NaiveDatetime,
    SecretStr,
    create_model,
)

NAMES = ("number", "total", "lines", "customer", "country")


@dataclass(frozen=True)
class Kind:
    """A type of a field: what pydantic takes, and the values it has."""

    type: Any
    values: st.SearchStrategy[Any]


@dataclass(frozen=True)
class Part:
    """A field of a shape."""

    kind: Kind | Shape
    required: bool = True


@dataclass(frozen=True)
class Shape:
    """A model with named fields."""

    parts: Mapping[str, Part]
    extra: Literal["ignore", "forbid", "allow"] = "ignore"

    def model(self) -> type[BaseModel]:
        """Return the model of this shape."""
        fields: dict[str, Any] = {}
        for name, part in self.parts.items():
            kind = part.kind.model() if isinstance(part.kind, Shape) else part.kind.type
            fields[name] = (kind, ...) if part.required else (kind | None, None)
        return create_model("Payload", __config__=ConfigDict(extra=self.extra), **fields)

    def values(self) -> st.SearchStrategy[dict[str, Any]]:
        """Return the strategy of what an instance is made of."""
        present: dict[str, st.SearchStrategy[Any]] = {}
        optional: dict[str, st.SearchStrategy[Any]] = {}
        for name, part in self.parts.items():
            values = part.kind.values() if isinstance(part.kind, Shape) else part.kind.values
            (present if part.required else optional)[name] = values
        return st.fixed_dictionaries(present, optional=optional)


class Color(Enum):
    """An enumeration of text."""

    RED = "red"
    BLUE = "blue"


class Line(BaseModel):
    """A model with a default."""

    code: str
    count: int = 1


class Tree(BaseModel):
    """A model inside itself."""

    below: list[Tree] = []


@dataclass(frozen=True)
class Point:
    """A dataclass."""

    x: int


class Card(BaseModel):
    """One alternative of a union."""

    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    """The other alternative."""

    kind: Literal["cash"] = "cash"


def grown(below: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """Return trees with those `below`."""
    return st.builds(Tree, below=st.lists(below, max_size=2))


TEXT = st.text(max_size=8)
WHOLE = st.integers(-(2**60), 2**60)
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1))
SIMPLE = (
    Kind(int, WHOLE),
    Kind(float, st.floats(allow_nan=False, allow_infinity=False)),
    Kind(str, TEXT),
    Kind(bool, st.booleans()),
    Kind(bytes, st.text(max_size=5).map(str.encode)),
    Kind(Decimal, st.decimals(-1000, 1000, places=2)),
    Kind(datetime, MOMENTS),
    Kind(date, st.dates(date(1970, 1, 2), date(2100, 1, 1))),
    Kind(timedelta, st.timedeltas(timedelta(0), timedelta(days=9))),
    Kind(UUID, st.uuids()),
    Kind(Any, st.one_of(WHOLE, TEXT, st.none())),
    Kind(dict[str, Any], st.dictionaries(TEXT, WHOLE, max_size=2)),
    Kind(Annotated[int, Field(ge=0)], st.integers(0, 2**60)),
    Kind(Annotated[int, Field(gt=0, le=10)], st.integers(1, 10)),
    Kind(Annotated[int, Field(multiple_of=4)], st.integers(-9, 9).map(lambda n: 4 * n)),
    Kind(Annotated[float, Field(ge=-1, lt=1)], st.floats(-1, 0.5)),
    Kind(Annotated[Decimal, Field(ge=1)], st.decimals(1, 1000, places=2)),
    Kind(Annotated[str, Field(min_length=1)], st.text(min_size=1, max_size=8)),
    Kind(Annotated[str, Field(max_length=4)], st.text(max_size=4)),
    Kind(Annotated[str, Field(pattern="^[a-z]*$")], st.text("abc", max_size=4)),
    Kind(Literal["new", "paid"], st.sampled_from(["new", "paid"])),
    Kind(Literal["new", "paid", "sent"], st.sampled_from(["new", "paid", "sent"])),
    Kind(Literal[1, "1"], st.sampled_from([1, "1"])),
    Kind(tuple[int, str], st.tuples(WHOLE, TEXT)),
    Kind(tuple[int, ...], st.lists(WHOLE, max_size=3).map(tuple)),
    Kind(set[int], st.sets(WHOLE, max_size=3)),
    Kind(dict[int, str], st.dictionaries(WHOLE, TEXT, max_size=3)),
    Kind(dict[str, str], st.dictionaries(TEXT, TEXT, max_size=3)),
    Kind(Annotated[Decimal, Field(max_digits=5, decimal_places=2)], st.decimals(-99, 99, places=2)),
    Kind(Annotated[Decimal, Field(decimal_places=3)], st.decimals(-99, 99, places=3)),
    Kind(AwareDatetime, MOMENTS.map(lambda moment: moment.replace(tzinfo=UTC))),
    Kind(NaiveDatetime, MOMENTS),
    Kind(SecretStr | None, st.none()),
    Kind(Color, st.sampled_from(Color)),
    Kind(Line, st.builds(Line, code=TEXT, count=WHOLE)),
    Kind(
        Tree,
        st.recursive(
            st.builds(Tree), lambda inner: st.builds(Tree, below=st.lists(inner, max_size=2))
        ),
    ),
    Kind(Point, st.builds(Point, x=WHOLE)),
    Kind(Card, st.builds(Card, number=TEXT)),
    Kind(Card | Cash, st.one_of(st.builds(Card, number=TEXT), st.builds(Cash))),
    Kind(
        Annotated[Card | Cash, Field(discriminator="kind")],
        st.one_of(st.builds(Card, number=TEXT), st.builds(Cash)),
    ),
)


def _list(kind: Kind) -> Kind:
    return Kind(list[kind.type], st.lists(kind.values, max_size=3))  # type: ignore[name-defined]


def _short_list(kind: Kind) -> Kind:
    short = Annotated[list[kind.type], Field(min_length=1, max_length=2)]  # type: ignore[name-defined]
    return Kind(short, st.lists(kind.values, min_size=1, max_size=2))


def _by_name(kind: Kind) -> Kind:
    return Kind(dict[str, kind.type], st.dictionaries(TEXT, kind.values, max_size=3))  # type: ignore[name-defined]


def _optional(kind: Kind) -> Kind:
    return Kind(Optional[kind.type], st.one_of(st.none(), kind.values))  # noqa: UP045


def _pair(kinds: tuple[Kind, Kind]) -> Kind:
    one, other = kinds
    return Kind(Union[one.type, other.type], st.one_of(one.values, other.values))  # noqa: UP007


simple = st.sampled_from(SIMPLE)
kinds = st.recursive(
    simple,
    lambda inner: st.one_of(
        inner.map(_list),
        inner.map(_short_list),
        inner.map(_by_name),
        inner.map(_optional),
        st.tuples(inner, inner).map(_pair),
    ),
    max_leaves=3,
)
EXTRAS: list[Literal["ignore", "forbid", "allow"]] = ["ignore", "ignore", "forbid", "allow"]
extras = st.sampled_from(EXTRAS)


def _shapes(part: st.SearchStrategy[Kind | Shape]) -> st.SearchStrategy[Shape]:
    parts = st.builds(Part, part, st.booleans())
    return st.builds(Shape, st.dictionaries(st.sampled_from(NAMES), parts, max_size=4), extras)


shapes = _shapes(st.one_of(kinds, kinds, _shapes(kinds)))


@st.composite
def edited(draw: st.DrawFn, shape: Shape) -> Shape:
    """Return the next version of `shape`, after up to three edits."""
    for _ in range(draw(st.integers(0, 3))):
        shape = draw(_edit(shape))
    return shape


@st.composite
def _edit(draw: st.DrawFn, shape: Shape) -> Shape:
    parts = dict(shape.parts)
    edit = draw(st.sampled_from(["add", "remove", "need", "type", "wrap", "inside", "extra"]))
    if edit == "extra":
        return replace(shape, extra=draw(extras))
    if edit == "add" or not parts:
        parts[draw(st.sampled_from(NAMES))] = Part(draw(kinds), draw(st.booleans()))
        return replace(shape, parts=parts)
    name = draw(st.sampled_from(sorted(parts)))
    part = parts[name]
    if edit == "remove":
        del parts[name]
    elif edit == "need":
        parts[name] = replace(part, required=not part.required)
    elif edit == "inside" and isinstance(part.kind, Shape):
        parts[name] = replace(part, kind=draw(_edit(part.kind)))
    elif edit == "wrap" and isinstance(part.kind, Kind):
        wrap = draw(st.sampled_from([_optional, _list, _by_name, lambda k: _pair((k, SIMPLE[0]))]))
        parts[name] = replace(part, kind=wrap(part.kind))
    else:
        parts[name] = replace(part, kind=draw(kinds))
    return replace(shape, parts=parts)
