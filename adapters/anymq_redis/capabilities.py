"""Capabilities of the Redis backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native

CAPABILITIES = Capabilities(
    durability=(
        "that of the server's append-only file: appendfsync=always survives a power cut, everysec "
        "survives a crash of the server and may lose the last second in a power cut; without an "
        "append-only file a crash loses everything since the last snapshot; a failover may lose "
        "messages that the replica had not received"
    ),
    persistent=native("with an append-only file (appendonly yes)"),
    processes=native("through the server"),
    groups=native("consumer groups"),
    broadcast=native("XREAD; each subscriber remembers its position"),
    earliest=native("as far back as the stream reaches"),
    delayed_nack=emulated("a copy waits in a sorted set, which every member of the group watches"),
    attempt_count=native("starts of handlers are recorded in a hash; copies carry the count on"),
    release=emulated(
        "a copy with the same attempt in the group's retry stream, in one atomic step"
    ),
    extend=native("XCLAIM … JUSTID, if this member still owns the message"),
    dead_letters=native("stored and settled in one atomic step"),
    publish_dedup=emulated(
        "each producer numbers its calls; a call repeated within `dedupe` seconds because its "
        "answer was lost is stored once"
    ),
    ordered=emulated(
        "one stream per partition, read by one member at a time; leases and cursors are fields of "
        "a hash"
    ),
    ordered_attempts=emulated("recorded with the partition's cursor"),
    delayed_publish=emulated(
        "the message waits in a sorted set, which every process that uses the topic watches; as "
        "durable as any other message, and due by the server's clock"
    ),
    replay=native("entry ids contain the time; as far back as the stream reaches"),
    retention=emulated(
        "members and publishers trim regularly, but never a message that a group has not settled; "
        "sizes are the memory that the server reports for the streams, to within one stream node"
    ),
    admin=emulated(
        "from the server's figures and from what members report every 2 s; a lag beyond a million "
        "messages may be unknown"
    ),
)
