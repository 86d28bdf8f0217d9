"""The capabilities of the Redis backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native

CAPABILITIES = Capabilities(
    durability=(
        "as the server's append-only file: appendfsync always survives a power cut, everysec may "
        "lose the last second in one and nothing in a crash of the server; without an append-only "
        "file a crash loses what came after the last snapshot, and a failover may lose what "
        "the replica had not received"
    ),
    persistent=native("with an append-only file (appendonly yes)"),
    processes=native("through the server"),
    groups=native("consumer groups"),
    broadcast=native("XREAD; each reader remembers its place"),
    earliest=native("as far back as the stream reaches"),
    delayed_nack=emulated("a copy waits in a sorted set, which every member of the group watches"),
    attempt_count=native("starts of handlers, noted in a hash; copies carry it on"),
    release=emulated("a copy with the same attempt in the group's retry stream, in one step"),
    extend=native("XCLAIM … JUSTID, if the message is still ours"),
    dead_letters=native("stored and settled in one atomic step"),
    publish_dedup=emulated(
        "publishes are numbered by producer; one repeated within `dedupe` seconds is stored once"
    ),
    ordered=emulated(
        "a stream a partition, read by one member at a time; leases and cursors are cells of a hash"
    ),
    ordered_attempts=emulated("kept in the cell of the partition"),
    delayed_publish=emulated(
        "the record waits in a sorted set, which every process that uses the topic watches; it is "
        "as durable as a published one, and due by the server's clock"
    ),
    replay=native("ids carry the time; as far back as the stream reaches"),
    retention=emulated(
        "members and publishers trim now and then, but nothing that a group has not settled; sizes "
        "are what the server says the streams take in memory, give or take a node of the stream"
    ),
    admin=emulated(
        "from the server's own figures and what members say every two seconds; a lag beyond "
        "a million messages may be unknown"
    ),
)
