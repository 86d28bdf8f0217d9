"""Capabilities of the SQLite backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native

CAPABILITIES = Capabilities(
    durability=(
        "committed and forced to disk (WAL, synchronous=FULL): a confirmed message survives a "
        "crash of the process or the operating system, and a power cut; with synchronous=NORMAL or "
        "OFF, only a crash of the process"
    ),
    persistent=native("in the file"),
    processes=native("on one host; the file must not be on a network file system"),
    groups=native("rows with a lease"),
    broadcast=native("each subscriber reads the log by itself"),
    earliest=native("as far back as the retention reaches"),
    delayed_nack=native("a row with a due time"),
    attempt_count=native("starts of handlers are recorded in the message's row"),
    release=native("the count is restored"),
    extend=native("the lease is renewed in the row"),
    dead_letters=native("stored and settled in one transaction"),
    publish_dedup=native("a unique index, for as long as the message is kept"),
    ordered=emulated("members lease partitions by compare-and-set"),
    ordered_attempts=native("recorded in the file before a message is dispatched"),
    delayed_publish=native(
        "a row with a due time; the next process that uses the topic moves it into the log"
    ),
    replay=native("as far back as the retention reaches"),
    retention=native("messages that a group has not settled are kept longer"),
    admin=native(),
)
