"""Native names: injective, within NATS's grammar, and never in each other's way."""

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anymq.errors import ConfigurationError
from anymq.names import check_topic
from anymq_nats.jetstream import schema as names

_FIRST = string.ascii_letters + string.digits
_SEGMENTS = st.builds(
    str.__add__,
    st.sampled_from(_FIRST),
    st.text(alphabet=_FIRST + "_-", max_size=6),
)
_TOPICS = st.lists(_SEGMENTS, min_size=1, max_size=4).map(".".join)
_TRICKY = st.text(alphabet="a._=-é0A", max_size=8)


@given(_TRICKY)
@example("a..b")
@example("a._b")
@example("._.__.")
@example("=2E")
def test_a_name_can_be_read_back(name: str) -> None:
    assert names.decode(names.encode(name)) == name


@given(_TRICKY, _TRICKY)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (names.encode(one) == names.encode(other)) == (one == other)


@given(_TOPICS | st.text(min_size=1, max_size=300))
def test_a_name_is_one_the_server_takes(name: str) -> None:
    encoded = names.encode(name)
    assert set(encoded) <= set(_FIRST + "_-=")
    assert len(encoded) <= 255


def test_long_names_differ_in_their_hash() -> None:
    one, other = names.encode("a_" * 200 + "b"), names.encode("a_" * 200 + "c")
    assert one != other
    assert len(one) <= 255


def _patterns(topic: str) -> list[str]:
    waiting = [names.private_pattern(topic), names.later_pattern(topic)]
    return [*names.partition_patterns(topic, 8), *waiting]


def _overlap(one: str, other: str) -> bool:
    left, right = one.split("."), other.split(".")
    return len(left) == len(right) and all(
        a == b or "*" in (a, b) for a, b in zip(left, right, strict=True)
    )


@given(_TOPICS, _TOPICS)
@example("orders", "orders.eu")
def test_the_streams_of_two_topics_never_overlap(one: str, other: str) -> None:
    if one != other:
        assert not [(a, b) for a in _patterns(one) for b in _patterns(other) if _overlap(a, b)]


@given(_TOPICS, _TOPICS)
def test_a_private_subject_is_no_topic(topic: str, group: str) -> None:
    consumer = names.encode(f"{topic}.{group}")
    for subject in (
        names.private_subject(topic, consumer),
        names.later_subject(topic, consumer, "any"),
        names.later_subject(topic, names.EVERYONE, "any"),
        names.partition_subject(topic, 8, 1),
    ):
        assert names.check_subject(subject)
        with pytest.raises(ConfigurationError):
            check_topic(subject)


@pytest.mark.parametrize("subject", ["", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a\r\nPUB"])
def test_what_is_no_subject_is_refused(subject: str) -> None:
    with pytest.raises(ConfigurationError):
        names.check_subject(subject)


def test_a_mapped_group_keeps_its_name() -> None:
    assert names.consumer_name("orders.billing") == "orders_billing"
    assert names.consumer_name("billing_v2") == "billing_v2"
    assert names.consumer_name("billing.v2") == "billing_v2"
