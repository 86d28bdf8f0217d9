"""What this backend can do."""

from __future__ import annotations

from anymq.capabilities import Capabilities, emulated, native

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
    attempt_count=native("counted in the pending list; copies carry it on"),
    release=emulated("a copy with the same count in the group's retry stream, in one atomic step"),
    extend=native("XCLAIM … JUSTID, if the message is still ours"),
    dead_letters=native("stored and settled in one atomic step"),
    publish_dedup=emulated(
        "publishes are numbered by producer; one repeated within `dedupe` seconds is stored once"
    ),
)
