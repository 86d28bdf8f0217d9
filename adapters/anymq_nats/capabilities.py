"""The capabilities of NATS JetStream."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native

CAPABILITIES = Capabilities(
    durability=(
        "confirmed by JetStream's file store: survives a kill of the server; nats-server forces "
        "to disk every 2 minutes (sync_interval), so a power cut can lose what is newer unless "
        "replicas=3 or sync_interval is always"
    ),
    persistent=native("streams on file storage"),
    processes=native(),
    groups=native("a durable pull consumer each"),
    broadcast=native("an ephemeral consumer that is made anew where it broke off"),
    earliest=native("as far back as the stream's retention reaches"),
    delayed_nack=native(
        "a scheduled message (nats-server 2.12 or newer); on older servers and on streams that "
        "anymq did not create a NAK with a delay, which may come early if the server is killed"
    ),
    attempt_count=native(
        "starts of handlers, noted in the stream `<stream>=cells`; on streams that anymq did not "
        "create the consumer counts what a lost member had fetched, too"
    ),
    release=emulated(
        "a copy to the group's private subject, then an ack; on streams that anymq did not create "
        "a NAK, which counts as an attempt"
    ),
    extend=native("+WPI"),
    dead_letters=emulated("stored and confirmed, then +TERM"),
    publish_dedup=native("Nats-Msg-Id, within the stream's duplicate window (2 minutes)"),
    ordered=emulated(
        "members lease partitions by compare-and-set in a second stream, `<stream>=cells`, and "
        "read them with ephemeral consumers"
    ),
    ordered_attempts=emulated("kept with the partition's place"),
    delayed_publish=native(
        "a scheduled message, up to 0.3 s late; what is due in the same quarter of a second comes "
        "in the order of publishing; older servers than 2.12 and streams that anymq did not make "
        "refuse it"
    ),
    replay=native(
        "positions are stream sequences; `seek` makes the group's consumer anew, and is not atomic"
    ),
    retention=native(
        "the stream's max_age and max_bytes: what is older or too much is deleted, read or not; "
        "delays are exempt, except from a size that was first asked for when the topic existed"
    ),
    admin=native(
        "live members answer over plain NATS; how long deliveries have been in flight, and which "
        "were tried often, only an ordered group knows"
    ),
)
