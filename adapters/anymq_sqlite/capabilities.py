"""What this backend can do."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native

CAPABILITIES = Capabilities(
    durability=(
        "committed and forced to disk (WAL, synchronous=FULL): survives a crash of the process, of "
        "the operating system and a power cut; with synchronous=NORMAL or OFF, of the process only"
    ),
    persistent=native("in the file"),
    processes=native("on one host; the file must not be on a network file system"),
    groups=native("rows with a lease"),
    broadcast=native("each reader follows the log by itself"),
    earliest=native("as far back as the retention reaches"),
    delayed_nack=native("a row with a time"),
    attempt_count=native("starts of handlers, noted in the row of the message"),
    release=native("the count is put back"),
    extend=native("the lease begins anew"),
    dead_letters=native("stored and settled in one transaction"),
    publish_dedup=native("a unique index, for as long as the message is kept"),
    ordered=emulated("leases on partitions, written by compare-and-set"),
    ordered_attempts=native("noted in the file before a message is handed out"),
    delayed_publish=native("a row with a time, let into the log by whoever uses the topic next"),
    replay=native("as far back as the retention reaches"),
    retention=native("what a group has not settled is kept longer"),
    admin=native(),
)
