"""Capabilities of the Kafka backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native, unsupported

CAPABILITIES = Capabilities(
    durability=(
        "acks=all: every in-sync replica has written the message to its page cache, not "
        "necessarily to disk; it survives a crash of any broker process, and a power cut only if a "
        "replica elsewhere keeps its power"
    ),
    persistent=native("the log, for as long as its retention"),
    processes=native(),
    groups=native(
        "a consumer group; at most as many members as there are partitions receive messages"
    ),
    broadcast=native("each subscriber reads all partitions, without a consumer group"),
    earliest=native("as far back as the retention reaches"),
    delayed_nack=emulated(
        "a confirmed copy in a retry topic of the group, read back when it is due by the clock of "
        "the member that reads it"
    ),
    attempt_count=unsupported(
        "only failed attempts are counted, in a header of the copy: after a crash the message is "
        "redelivered with the same attempt, so a message that kills its consumer needs "
        "`Retry(marker=…)`"
    ),
    release=native(
        "not committed; redelivered by the same member or by the partition's next owner"
    ),
    extend=emulated("no leases: a member keeps its partitions for as long as its session lives"),
    dead_letters=emulated(
        "stored and confirmed, then the original is committed: a crash in between may duplicate "
        "the dead letter"
    ),
    publish_dedup=unsupported(
        "the idempotent producer recognises only its own retries; a publish repeated by the "
        "application is stored again"
    ),
    ordered=native("a partition moves to another member only after its handlers have finished"),
    ordered_attempts=native(
        "attempts and due times are in the metadata of the committed offset, which holds about 200 "
        "waits per partition; a crash forgets those beyond that"
    ),
    delayed_publish=emulated(
        "the message waits in topics shared by the whole cluster (`_anymq.delay.…`); up to three "
        "of the processes that use anymq move it on, by their own clocks; if such a process dies, "
        "delivery is late by up to a session timeout and may be duplicated"
    ),
    replay=native("as far back as the retention reaches; times are those of the publishers"),
    retention=native(
        "for topics that anymq creates; the broker checks every 5 minutes by default and deletes "
        "whole segments, whether they were read or not"
    ),
    admin=native(
        "Kafka does not know which messages are in flight, so the age of the lag is that of the "
        "oldest unsettled message; `purge` does not reach retries that live members already hold"
    ),
)
