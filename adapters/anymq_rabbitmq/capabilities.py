"""The capabilities of the backend."""

from __future__ import annotations

from anymq.driver import Capabilities, emulated, native, unsupported

CAPABILITIES = Capabilities(
    durability=(
        "confirmed by the topic's log and every group's quorum queue, each of which writes to disk "
        "on a majority of its members: survives a crash of a minority of the nodes, and of a lone "
        "node, with what it had confirmed"
    ),
    persistent=native("quorum queues and streams"),
    processes=native(""),
    groups=native("a quorum queue for each group"),
    broadcast=native("each reader follows the topic's log, a stream, by itself"),
    earliest=emulated(
        "a new group's queue is filled from the topic's log, as far back as that reaches; what is "
        "published while the copying ends may be delivered twice"
    ),
    delayed_nack=emulated(
        "a copy goes through durable delay queues shared by all topics; steps of 0.1 s, at most "
        "310 days"
    ),
    attempt_count=native(
        "starts of handlers, noted in a stream of the group; with declare=false, and on mapped "
        "groups, the queue counts what a lost consumer had been sent, whether handled or not"
    ),
    release=emulated(
        "before RabbitMQ 4.3 a copy is put at the end of the queue, since giving back is counted"
    ),
    extend=emulated(
        "there are no leases: a message stays with its consumer until that is gone, but for "
        "RabbitMQ's consumer_timeout (30 minutes), which cannot be extended"
    ),
    dead_letters=emulated("stored, confirmed, then acknowledged"),
    ordered=native(
        "a quorum queue for each partition, with a single active consumer; the server spreads "
        "partitions by priorities, a hash of member and queue, so that a member may have none; "
        "before RabbitMQ 4.0 the first member has them all"
    ),
    ordered_attempts=emulated("written to a stream of the group before the message is tried again"),
    delayed_publish=emulated(
        "through durable delay queues shared by all topics, then published by whichever process "
        "of anymq is connected: what is due while there is none enters its topic with the next"
    ),
    replay=emulated(
        "from the topic's log, a stream: it is copied into the group's queues; an offset in the "
        "log is a place, and so is the id of a message, which is looked for"
    ),
    retention=native(
        "of the topic's log, which drops whole segments when the next one begins; queues of groups "
        "are never trimmed"
    ),
    admin=emulated(
        "lists what anymq made, by a stream of names; AMQP tells nothing of how many messages a "
        "topic keeps or delays, nor of what members hold: these are None"
    ),
    publish_dedup=unsupported("RabbitMQ stores what it is sent; idempotency belongs to the group"),
)
