"""The judge, on histories that are made up."""

from __future__ import annotations

from typing import Any

from benchmarks.chaos import judge
from benchmarks.chaos.journal import Event


def history(*events: tuple[str, dict[str, Any]]) -> list[Event]:
    """Events a second apart, by `c1` unless they say otherwise."""
    return [
        {"event": kind, "at": float(second), "by": "c1", **fields}
        for second, (kind, fields) in enumerate(events)
    ]


def of(id: str, **fields: Any) -> dict[str, Any]:
    key, _, number = id.partition(".")
    return {"id": id, "key": key, "number": int(number or 0), **fields}


def published(id: str, outcome: str = "confirmed") -> tuple[tuple[str, dict[str, Any]], ...]:
    return ("attempt", of(id)), (outcome, of(id))


def test_what_was_confirmed_and_never_came_is_lost() -> None:
    found = judge.queue(history(*published("a.1"), *published("a.2"), ("delivered", of("a.2"))))
    assert (found.attempted, found.acknowledged, found.lost) == (2, 2, ["a.1"])


def test_a_dead_letter_has_arrived() -> None:
    found = judge.queue(history(*published("a.1"), ("letter", of("a.1"))))
    assert found.lost == []


def test_each_broadcast_reader_hears_everything() -> None:
    found = judge.readers(
        history(
            *published("a.1"),
            *published("a.2"),
            *published("a.3", "failed"),
            ("heard", of("a.1", by="r1")),
            ("heard", of("a.1", by="r1")),
            ("heard", of("a.2", by="r1")),
            ("heard", of("a.1", by="r2")),
        )
    )
    assert (found.readers, found.lost, found.repeated) == (2, ["r2: a.2"], 1)


def test_what_nobody_published_is_unexpected() -> None:
    assert judge.queue(history(("delivered", of("a.1")))).unexpected == ["a.1"]


def test_a_failed_publish_that_came_is_recovered_and_one_that_did_not_is_not_lost() -> None:
    events = history(*published("a.1", "failed"), *published("a.2", "failed"))
    found = judge.queue([*events, *history(("delivered", of("a.1")))])
    assert (found.recovered, found.lost, found.unexpected) == (1, [], [])


def test_a_publish_that_was_repeated_until_confirmed_is_acknowledged_not_recovered() -> None:
    events = history(
        *published("a.1", "failed"), *published("a.1"), *[("delivered", of("a.1"))] * 2
    )
    found = judge.queue(events)
    assert (found.attempted, found.acknowledged, found.recovered, found.duplicated) == (1, 1, 0, 1)


def test_an_effect_again_after_it_was_noted_is_twice() -> None:
    applied, noted = ("applied", of("a.1")), ("noted", of("a.1"))
    again = ("applied", of("a.1", by="c2"))
    found = judge.effects(history(applied, noted, ("died", {"who": "c1"}), again))
    assert (found.applied, found.twice, found.in_gap) == (1, ["a.1"], 0)


def test_an_effect_again_while_the_first_process_lives_is_twice() -> None:
    found = judge.effects(history(("applied", of("a.1")), ("applied", of("a.1", by="c2"))))
    assert found.twice == ["a.1"]


def test_an_effect_again_after_a_death_before_the_note_is_in_the_gap() -> None:
    again = ("applied", of("a.1", by="c2"))
    events = history(("applied", of("a.1")), ("died", {"who": "c1"}), again, ("noted", of("a.1")))
    found = judge.effects(events)
    assert (found.twice, found.in_gap, found.missing) == ([], 1, [])


def test_a_note_without_an_effect_is_missing() -> None:
    assert judge.effects(history(("noted", of("a.1")))).missing == ["a.1"]


def test_effects_in_one_transaction_with_the_note_have_no_gap() -> None:
    found = judge.effects([], rows=["a.1", "a.2", "a.1"])
    assert (found.committed, found.committed_twice) == (2, ["a.1"])


def test_first_deliveries_out_of_order_are_inversions() -> None:
    publishes = [event for id in ("a.1", "a.2", "b.1") for event in published(id)]
    done = ("done", of("a.2"))
    events = history(*publishes, ("delivered", of("a.2")), done, ("delivered", of("a.1")))
    assert judge.order(events).inversions == ["a.1"]


def test_redeliveries_and_unconfirmed_publishes_are_no_inversions() -> None:
    publishes = [*published("a.1"), *published("a.2"), *published("a.0", "failed")]
    deliveries = [
        step
        for id in ("a.1", "a.2", "a.1", "a.0")
        for step in (("delivered", of(id)), ("done", of(id)))
    ]
    found = judge.order(history(*publishes, *deliveries))
    assert (found.keys, found.inversions, found.overlaps) == (1, [], [])


def test_two_messages_of_a_key_side_by_side_are_an_overlap() -> None:
    both = history(("delivered", of("a.1")), ("delivered", of("a.2", by="c2")))
    assert judge.order(both).overlaps == ["a.2"]
    keys = history(("delivered", of("a.1")), ("delivered", of("b.2", by="c2")))
    assert judge.order(keys).overlaps == []


def test_a_handler_ends_with_its_process() -> None:
    died = ("died", {"who": "c1"})
    events = history(("delivered", of("a.1")), died, ("delivered", of("a.1", by="c2")))
    assert judge.order(events).overlaps == []


def test_a_call_may_outlast_its_limit_by_a_second() -> None:
    events = history(
        ("confirmed", of("a.1", took=2.9, limit=2.0)),
        ("failed", of("a.2", took=3.1, limit=2.0)),
        ("call", {"what": "ping", "took": 11.5, "limit": 10.0}),
    )
    found = judge.calls(events)
    assert (found.count, found.longest) == (3, 11.5)
    assert found.overdue == ["publish: 3.1 s of 2 s", "ping: 11.5 s of 10 s"]


def test_a_failure_for_want_of_room_must_say_so() -> None:
    events = history(
        ("cut", {"fault": 1, "what": "no room"}),
        ("failed", of("a.1", took=5.0, cause=None)),  # began before
        ("failed", of("a.2", took=0.5, cause="disk full")),
        ("failed", of("a.3", took=0.5, cause=None)),
        ("healed", {"fault": 1}),
        ("failed", of("a.4", took=0.5, cause=None)),
    )
    assert judge.unclear(events) == ["a.3"]


def test_recovery_counts_from_the_heal_to_what_was_published_after_the_cut() -> None:
    events = history(
        ("attempt", of("a.1")),
        ("cut", {"fault": 1}),
        ("delivered", of("a.1")),  # fetched before the fault: tells nothing
        ("attempt", of("a.2")),
        ("healed", {"fault": 1}),
        ("delivered", of("a.1")),
        ("delivered", of("a.2")),
        ("cut", {"fault": 2}),
        ("healed", {"fault": 2}),
    )
    found = judge.recovery(events)
    assert (found.seconds, found.unrecovered) == ([2.0], 1)
    assert (found.p50, found.p95, found.longest) == (2.0, 2.0, 2.0)


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert judge.percentiles(values, 50, 95, 100) == (50.0, 95.0, 100.0)
    assert judge.percentiles([7.0], 50, 95) == (7.0, 7.0)
    assert judge.percentiles([], 50) == (None,)


def test_a_delayed_message_before_its_time_is_early() -> None:
    events = history(
        ("delivered", of("a.1", due=10.0, time=9.9)),
        ("delivered", of("a.2", due=10.0, time=10.5)),
        ("delivered", of("a.2", due=10.0, time=30.0)),  # a redelivery: tells nothing
    )
    found = judge.delays(events)
    assert (found.count, found.early, found.late_p99) == (2, ["a.1"], 0.5)


def test_memory_grows_from_where_it_had_settled() -> None:
    sizes = [10, 50, *[60] * 17, 75]
    found = judge.memory(history(*(("rss", {"bytes": size}) for size in sizes)))
    assert (found.growth, found.largest) == (15, 75)
