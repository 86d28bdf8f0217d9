"""Capabilities of the memory backend."""

from anymq.driver import Capabilities, emulated, native, unsupported

CAPABILITIES = Capabilities(
    durability="a confirmed message lives as long as the process",
    persistent=unsupported("nothing survives the process"),
    processes=unsupported("one process, one event loop"),
    groups=native(),
    broadcast=native(),
    earliest=native(),
    delayed_nack=native("by the monotonic clock"),
    attempt_count=native(),
    release=native(),
    extend=native("a lease in memory"),
    dead_letters=native("stored and settled in one step"),
    publish_dedup=unsupported(
        "stored again, as on Kafka and RabbitMQ, so that a test reveals a missing `Idempotency`"
    ),
    ordered=emulated("members lease partitions by compare-and-set"),
    ordered_attempts=native("for as long as the process lives"),
    delayed_publish=native("due by the wall clock; lost with the process, like everything else"),
    replay=native("as far back as the retention reaches"),
    retention=native(
        "messages that a group has not received yet, or an ordered group has not settled, are kept "
        "longer"
    ),
    admin=native(),
)
