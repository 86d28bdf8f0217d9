"""Records and entries: fast packing and decoding give the same as the simple forms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anymq.driver import Record, SharedHeaders
from anymq_redis.client.codec import bulk, words
from anymq_redis.messages import Entry, StreamRef, Token, _decoded, fields, packed, received

TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
HEADERS = st.dictionaries(TEXTS, TEXTS, max_size=5)
BYTES = st.binary(max_size=20) | st.sampled_from([b"anymq-attempt", b"anymq-only-group", b"ce-id"])
FIELDS = st.lists(st.tuples(BYTES, BYTES), min_size=0, max_size=5)


@given(common=HEADERS, own=HEADERS, body=st.binary(max_size=50))
def test_a_packed_record_has_its_fields(
    common: dict[str, str], own: dict[str, str], body: bytes
) -> None:
    own = {name: value for name, value in own.items() if name not in common}
    for _ in range(2):
        record = Record(
            topic="t", id="1", unique="1", body=body, headers=own, common=SharedHeaders(common)
        )
        size, shared, rest = packed(record)
        flat = fields(record)
        assert size == len(flat)
        assert shared + rest + body + b"\r\n" == bulk(flat)


@given(st.lists(TEXTS, max_size=4))
def test_texts_are_packed_as_their_bytes(texts: list[str]) -> None:
    assert words(*texts) == bulk([text.encode() for text in texts])


@given(
    pairs=FIELDS,
    prefix=st.sampled_from([b"", b"3:"]),
    id=st.sampled_from([b"1700000000000-0", b"5-1"]),
    count=st.integers(0, 2),
)
def test_an_entry_is_decoded_late_as_it_would_be_at_once(
    pairs: list[tuple[bytes, bytes]], prefix: bytes, id: bytes, count: int
) -> None:
    flat = [*(part for pair in pairs for part in pair), b"data", b"body"]
    stream = StreamRef(b"orders", 3, prefix)
    tokens = Token(id, 3, 0.0), Token(id, 3, 0.0)
    late = received(stream, (id, flat), tokens[0], count)
    soon = _decoded(stream, id, flat, tokens[1], count)
    assert isinstance(late, Entry)
    assert late.fresh == soon.fresh
    for name in ("body", "headers", "position", "native", "time", "redeliveries", "partition"):
        assert getattr(late, name) == getattr(soon, name), name
    assert (late.key, late.content_type) == (None, None)
    parts = [part.decode(errors="ignore") for pair in pairs for part in pair]
    for text in ("ce-id", "data", *parts):
        assert late.header(text) == soon.header(text)
    assert tokens[0].position == tokens[1].position
    assert late.headers is late.headers
