"""The abilities of this backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native, unsupported

CAPABILITIES = Capabilities(
    durability=(
        "acks=all: written by every in-sync replica, to the page cache rather than to disk; "
        "survives a crash of any broker, a power cut only where replicas are in other places"
    ),
    persistent=native("the log, for as long as its retention"),
    processes=native(),
    groups=native("a consumer group; at most as many members get work as there are partitions"),
    broadcast=native("each reader follows all partitions without a group"),
    earliest=native("as far back as the retention reaches"),
    delayed_nack=emulated(
        "a confirmed copy in a retry topic of the group, read back when it is due; "
        "by the wall clocks of the members"
    ),
    attempt_count=unsupported(
        "attempts are counted by a header on the copies that nack makes: a delivery whose process "
        "died comes back with the same number, so a message that kills its process is not counted"
    ),
    release=native("not committed; delivered again by the same member, or by the next owner"),
    extend=emulated("Kafka has no leases: the partition stays with its member while that lives"),
    dead_letters=emulated("published, confirmed, then marked as done: a duplicate is possible"),
    publish_dedup=unsupported(
        "the idempotent producer deduplicates only its own repetitions; a publish repeated after "
        "its deadline may be stored twice"
    ),
    ordered=native(
        "partitions; one in use moves to another member when its handlers have come to an end"
    ),
    ordered_attempts=native(
        "with the due times in the metadata of the committed offset: room for some 200 waits a "
        "partition; what is beyond that is forgotten in a crash"
    ),
    delayed_publish=emulated(
        "waits in topics shared by the whole cluster (_anymq.delay.…), moved on by up to three of "
        "the processes that use anymq, by their wall clocks; a mover that dies holds it up for a "
        "session timeout and may deliver a message twice"
    ),
    replay=native("as far back as the retention reaches; times are those of the publishers"),
    retention=native(
        "the broker deletes whole segments, read or not, when it looks: every 5 minutes by "
        "default; applies to topics that anymq creates"
    ),
    admin=native(
        "which messages are in flight Kafka does not know: the age of a lag is that of the oldest "
        "unsettled message; purging does not recall retries that live members hold already"
    ),
)
