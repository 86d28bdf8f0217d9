"""The grammar of names and headers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq import ConfigurationError, MessageTooLarge
from anymq.names import check_group, check_headers, check_key, check_topic

SEGMENT = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(st.lists(SEGMENT, min_size=1, max_size=5).map(".".join))
def test_topics_of_the_grammar_are_accepted(name: str) -> None:
    assert check_topic(name) == name


@given(st.text())
def test_a_topic_is_accepted_only_if_it_is_harmless(name: str) -> None:
    try:
        check_topic(name)
    except ConfigurationError:
        return
    assert name.isascii()
    assert not set(name) & set(" *>#$/\\\r\n\x00:{}'\"")
    assert not name.startswith(("-", ".", "_"))


def test_groups_have_no_dots() -> None:
    assert check_group("billing-2") == "billing-2"
    for name in ("a.b", "", "a" * 65):
        with pytest.raises(ConfigurationError):
            check_group(name)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_headers_are_copied_or_refused(headers: dict[str, str]) -> None:
    before = dict(headers)
    try:
        copy = check_headers(headers)
    except ConfigurationError:
        return
    assert copy == before == headers
    assert copy is not headers or not headers
    assert not any(char in text for item in copy.items() for text in item for char in "\r\n\x00")


def test_header_and_key_sizes_are_bounded() -> None:
    check_headers({"a": "ü" * 2048})
    with pytest.raises(MessageTooLarge):
        check_headers({"a": "ü" * 2049})
    with pytest.raises(MessageTooLarge):
        check_headers({f"h{n}": "x" * 4000 for n in range(5)})
    with pytest.raises(MessageTooLarge):
        check_key("k" * 1025)
