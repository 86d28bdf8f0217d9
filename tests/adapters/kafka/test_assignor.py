"""The assignor, as a function: everything given once, evenly, and what is busy where it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anymq_kafka.client.compat import MemberMetadata, TopicPartition
from anymq_kafka.group.assignor import Assignor, MemberState, Share, assign_partitions, read_state

TOPICS = ("orders", "orders.g._retry.5s", "other")


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, MemberState]]:
    counts = {topic: draw(st.integers(0, 12)) for topic in TOPICS}
    everything = [TopicPartition(topic, n) for topic in TOPICS for n in range(counts[topic] + 2)]
    states: dict[str, MemberState] = {}
    for number in range(draw(st.integers(1, 5))):
        owned = frozenset(draw(st.lists(st.sampled_from(everything), max_size=12)))
        busy = frozenset(
            draw(st.lists(st.sampled_from(sorted(owned)), max_size=6)) if owned else ()
        )
        topics = frozenset(draw(st.lists(st.sampled_from(TOPICS), min_size=1, unique=True)))
        states[f"m{number}"] = MemberState(topics, draw(st.integers(-1, 3)), owned, busy)
    return counts, states


def sizes(shares: dict[str, Share], topic: str) -> dict[str, int]:
    return {
        member: sum(tp.topic == topic for tp in share.partitions)
        for member, share in shares.items()
    }


@given(groups())
def test_everything_is_given_once_to_one_who_reads_it(
    group: tuple[dict[str, int], dict[str, MemberState]],
) -> None:
    counts, states = group
    shares = assign_partitions(counts, states)
    given_out = [tp for share in shares.values() for tp in share.partitions]
    readable = {topic for state in states.values() for topic in state.topics}
    assert sorted(given_out) == sorted(
        TopicPartition(topic, n)
        for topic in TOPICS
        if topic in readable
        for n in range(counts[topic])
    )
    for member, share in shares.items():
        assert {tp.topic for tp in share.partitions} <= states[member].topics
        assert set(share.surplus) <= set(share.partitions) & states[member].busy


@given(groups())
def test_it_is_even_but_for_what_is_to_be_let_go(
    group: tuple[dict[str, int], dict[str, MemberState]],
) -> None:
    counts, states = group
    shares = assign_partitions(counts, states)
    for topic in TOPICS:
        readers = [member for member in states if topic in states[member].topics]
        most = -(-counts[topic] // len(readers)) if readers else 0
        for member, size in sizes(shares, topic).items():
            surplus = sum(tp.topic == topic for tp in shares[member].surplus)
            assert size - surplus <= most


@given(groups())
def test_what_is_busy_stays_with_its_last_owner(
    group: tuple[dict[str, int], dict[str, MemberState]],
) -> None:
    counts, states = group
    shares = assign_partitions(counts, states)
    for member, state in states.items():
        for tp in state.busy:
            rivals = [
                other
                for name, other in states.items()
                if name != member and tp in other.owned and other.generation >= state.generation
            ]
            if not rivals and tp.topic in state.topics and tp.partition < counts[tp.topic]:
                assert tp in shares[member].partitions


@given(groups())
def test_a_second_round_moves_nothing_but_the_surplus(
    group: tuple[dict[str, int], dict[str, MemberState]],
) -> None:
    counts, states = group
    first = assign_partitions(counts, states)
    idle = {
        member: MemberState(
            states[member].topics, 9, frozenset(share.partitions) - set(share.surplus)
        )
        for member, share in first.items()
    }
    second = assign_partitions(counts, idle)
    for member, share in second.items():
        assert idle[member].owned <= set(share.partitions)
        assert not share.surplus


def test_a_newcomer_waits_for_what_is_busy() -> None:
    tps = [TopicPartition("orders", n) for n in range(4)]
    old = MemberState(frozenset({"orders"}), 1, frozenset(tps), frozenset(tps[:3]))
    shares = assign_partitions(
        {"orders": 4}, {"old": old, "new": MemberState(frozenset({"orders"}))}
    )
    assert shares["old"].partitions == tps[:3]
    assert shares["new"].partitions == tps[3:]
    assert len(shares["old"].surplus) == 1


class Cluster:
    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1} if topic == "orders" else None


def test_claims_travel() -> None:
    one, other = Assignor(), Assignor()
    tps = frozenset({TopicPartition("orders", 0), TopicPartition("orders", 1)})
    one.state = lambda: MemberState(frozenset(), 4, tps, tps)
    members = {"one": one.metadata(["orders"]), "other": other.metadata(["orders", "gone"])}
    members = {name: MemberMetadata.decode(said.encode()) for name, said in members.items()}
    assignments = one.assign(Cluster(), members)
    assert sorted(assignments["one"].partitions()) == sorted(tps)
    assert assignments["other"].partitions() == []
    one.on_assignment(assignments["one"])
    other.on_assignment(assignments["other"])
    assert len(one.surplus) == 1
    assert other.surplus == frozenset()


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b'{"generation": 1, "owned": {"a": 3}}']))
def test_what_others_write_claims_nothing(data: bytes) -> None:
    state = read_state(MemberMetadata(0, ["orders"], data))
    assert state.topics == {"orders"}
    assert not state.owned
