"""The assignor, as a function: everything given once, evenly, and what is busy where it is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from anymq_kafka.client.internals import MemberMetadata, TopicPartition
from anymq_kafka.group.assignor import Balancer, Claim, Share, balance, read_claim

TOPICS = ("orders", "orders.g._retry.5s", "other")


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, int], dict[str, Claim]]:
    counts = {topic: draw(st.integers(0, 12)) for topic in TOPICS}
    everything = [TopicPartition(topic, n) for topic in TOPICS for n in range(counts[topic] + 2)]
    claims: dict[str, Claim] = {}
    for number in range(draw(st.integers(1, 5))):
        owned = frozenset(draw(st.lists(st.sampled_from(everything), max_size=12)))
        busy = frozenset(
            draw(st.lists(st.sampled_from(sorted(owned)), max_size=6)) if owned else ()
        )
        topics = frozenset(draw(st.lists(st.sampled_from(TOPICS), min_size=1, unique=True)))
        claims[f"m{number}"] = Claim(topics, draw(st.integers(-1, 3)), owned, busy)
    return counts, claims


def sizes(shares: dict[str, Share], topic: str) -> dict[str, int]:
    return {
        member: sum(tp.topic == topic for tp in share.partitions)
        for member, share in shares.items()
    }


@given(groups())
def test_everything_is_given_once_to_one_who_reads_it(
    group: tuple[dict[str, int], dict[str, Claim]],
) -> None:
    counts, claims = group
    shares = balance(counts, claims)
    given_out = [tp for share in shares.values() for tp in share.partitions]
    readable = {topic for claim in claims.values() for topic in claim.topics}
    assert sorted(given_out) == sorted(
        TopicPartition(topic, n)
        for topic in TOPICS
        if topic in readable
        for n in range(counts[topic])
    )
    for member, share in shares.items():
        assert {tp.topic for tp in share.partitions} <= claims[member].topics
        assert set(share.surplus) <= set(share.partitions) & claims[member].busy


@given(groups())
def test_it_is_even_but_for_what_is_to_be_let_go(
    group: tuple[dict[str, int], dict[str, Claim]],
) -> None:
    counts, claims = group
    shares = balance(counts, claims)
    for topic in TOPICS:
        readers = [member for member in claims if topic in claims[member].topics]
        most = -(-counts[topic] // len(readers)) if readers else 0
        for member, size in sizes(shares, topic).items():
            surplus = sum(tp.topic == topic for tp in shares[member].surplus)
            assert size - surplus <= most


@given(groups())
def test_what_is_busy_stays_with_its_last_owner(
    group: tuple[dict[str, int], dict[str, Claim]],
) -> None:
    counts, claims = group
    shares = balance(counts, claims)
    for member, claim in claims.items():
        for tp in claim.busy:
            rivals = [
                other
                for name, other in claims.items()
                if name != member and tp in other.owned and other.generation >= claim.generation
            ]
            if not rivals and tp.topic in claim.topics and tp.partition < counts[tp.topic]:
                assert tp in shares[member].partitions


@given(groups())
def test_a_second_round_moves_nothing_but_the_surplus(
    group: tuple[dict[str, int], dict[str, Claim]],
) -> None:
    counts, claims = group
    first = balance(counts, claims)
    idle = {
        member: Claim(claims[member].topics, 9, frozenset(share.partitions) - set(share.surplus))
        for member, share in first.items()
    }
    second = balance(counts, idle)
    for member, share in second.items():
        assert idle[member].owned <= set(share.partitions)
        assert not share.surplus


def test_a_newcomer_waits_for_what_is_busy() -> None:
    tps = [TopicPartition("orders", n) for n in range(4)]
    old = Claim(frozenset({"orders"}), 1, frozenset(tps), frozenset(tps[:3]))
    shares = balance({"orders": 4}, {"old": old, "new": Claim(frozenset({"orders"}))})
    assert shares["old"].partitions == tps[:3]
    assert shares["new"].partitions == tps[3:]
    assert len(shares["old"].surplus) == 1


class Cluster:
    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return {0, 1} if topic == "orders" else None


def test_claims_travel() -> None:
    one, other = Balancer(), Balancer()
    tps = frozenset({TopicPartition("orders", 0), TopicPartition("orders", 1)})
    one.claim = lambda: Claim(frozenset(), 4, tps, tps)
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
    claim = read_claim(MemberMetadata(0, ["orders"], data))
    assert claim.topics == {"orders"}
    assert not claim.owned
