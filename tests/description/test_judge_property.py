"""What the judge calls compatible is decoded: old bytes by the new model, new bytes by the old."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from anymq.description.judge import problems
from anymq.description.payload_schemas import schema_of
from anymq.payload import decode_body
from tests.description.payloads import SIMPLE, Kind, Shape, edited, shapes

pairs = shapes.flatmap(lambda shape: st.tuples(st.just(shape), edited(shape)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs, st.data())
def test_what_is_called_compatible_can_be_decoded(
    pair: tuple[Shape, Shape], data: st.DataObject
) -> None:
    for before, after in (pair, pair[::-1]):
        writer, reader = before.model(), after.model()
        if problems(schema_of(writer), schema_of(reader)):
            continue
        for _ in range(3):
            payload = writer.model_validate(data.draw(before.values()))
            # Raises `Reject` if the judge was wrong.
            decode_body(payload.model_dump_json(by_alias=True).encode(), reader)


@pytest.mark.parametrize("writer", SIMPLE, ids=lambda kind: str(kind.type))
def test_a_type_that_is_called_readable_as_another_can_be_decoded(writer: Kind) -> None:
    readers = [
        each for each in SIMPLE if not problems(schema_of(writer.type), schema_of(each.type))
    ]
    assert writer in readers

    @settings(max_examples=50, deadline=None)
    @given(writer.values)
    def decoded(value: object) -> None:
        adapter = TypeAdapter(writer.type)
        body = adapter.dump_json(adapter.validate_python(value))
        for reader in readers:
            TypeAdapter(reader.type).validate_json(body)

    decoded()
