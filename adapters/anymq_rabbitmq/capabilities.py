"""The capabilities of the backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native, unsupported

CAPABILITIES = Capabilities(
    durability=(
        "confirmed by the topic's log and every group's quorum queue, each written to disk on a "
        "majority of its members: confirmed messages survive a crash of a minority of the nodes, "
        "and a crash and restart of a single node"
    ),
    persistent=native("quorum queues and streams"),
    processes=native(""),
    groups=native("one quorum queue per group"),
    broadcast=native("each subscriber reads the topic's log, a stream"),
    earliest=emulated(
        "a new group's queue is filled from the topic's log, as far back as that reaches; messages "
        "published while the copying ends may be delivered twice"
    ),
    delayed_nack=emulated(
        "a copy passes through durable delay queues shared by all topics; steps of 0.1 s, at most "
        "310 days"
    ),
    attempt_count=native(
        "starts of handlers are recorded in a stream of the group; with declare=false, and on "
        "mapped groups, the queue also counts messages that a lost consumer had only fetched"
    ),
    release=emulated(
        "before RabbitMQ 4.3, a copy at the end of the queue, because returning a message counts"
    ),
    extend=emulated(
        "no leases: a message stays with its consumer until that is gone, or until RabbitMQ's "
        "consumer_timeout (30 minutes), which cannot be extended"
    ),
    dead_letters=emulated("stored and confirmed, then acknowledged"),
    ordered=native(
        "one quorum queue per partition, with a single active consumer; the server spreads "
        "partitions by priorities, a hash of member and queue, so a member may have none; before "
        "RabbitMQ 4.0 the first member has them all"
    ),
    ordered_attempts=emulated("written to a stream of the group before the message is retried"),
    delayed_publish=emulated(
        "the message passes through durable delay queues shared by all topics, and one of the "
        "connected anymq processes publishes it when due; if none is connected, the next one does"
    ),
    replay=emulated(
        "copied from the topic's log, a stream, into the group's queues; a position is an offset "
        "in the log, or a message's id, which has to be searched for"
    ),
    retention=native(
        "of the topic's log, which drops a whole segment when a new one begins; queues of groups "
        "are never trimmed"
    ),
    admin=emulated(
        "lists what anymq made, from a stream of names; AMQP does not report how many messages a "
        "topic keeps or delays, nor how many each member holds: those fields are None"
    ),
    publish_dedup=unsupported("a repeated publish is stored again"),
)
