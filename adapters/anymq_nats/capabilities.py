"""Capabilities of the NATS JetStream backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native

CAPABILITIES = Capabilities(
    durability=(
        "JetStream's file store: a confirmed message survives a kill of the server; nats-server "
        "forces data to disk every 2 minutes (sync_interval), so a power cut can lose newer "
        "messages unless replicas=3 or sync_interval is always"
    ),
    persistent=native("streams on file storage"),
    processes=native(),
    groups=native("one durable pull consumer per group"),
    broadcast=native(
        "an ephemeral consumer; if it is lost, a new one continues after the last message read"
    ),
    earliest=native("as far back as the stream's retention reaches"),
    delayed_nack=native(
        "a scheduled message (nats-server 2.12 or newer); on older servers, and on streams that "
        "anymq did not create, a NAK with a delay, which may be early if the server is killed"
    ),
    attempt_count=native(
        "starts of handlers are recorded in the stream `<stream>=cells`; on streams that anymq did "
        "not create, the consumer also counts messages that a lost member had only fetched"
    ),
    release=emulated(
        "a copy on the group's private subject, then an ack; on streams that anymq did not create, "
        "a NAK, which counts as an attempt"
    ),
    extend=native("+WPI"),
    dead_letters=emulated("stored and confirmed, then +TERM"),
    publish_dedup=native("`Nats-Msg-Id`, within the stream's duplicate window (2 minutes)"),
    ordered=emulated(
        "members lease partitions by compare-and-set in a second stream, `<stream>=cells`, and "
        "read them with ephemeral consumers"
    ),
    ordered_attempts=emulated("recorded with the partition's cursor"),
    delayed_publish=native(
        "a scheduled message, up to 0.3 s late; messages due within the same quarter of a second "
        "are delivered in publish order; refused on servers older than 2.12 and on streams that "
        "anymq did not create"
    ),
    replay=native(
        "positions are stream sequences; `seek` replaces the group's consumer and is not atomic"
    ),
    retention=native(
        "the stream's max_age and max_bytes, which delete messages whether they were read or not; "
        "delayed messages are exempt, except from a size limit added to a topic that already "
        "existed"
    ),
    admin=native(
        "live members answer over core NATS; only an ordered group knows how long deliveries have "
        "been in flight and which messages have failed repeatedly"
    ),
)
