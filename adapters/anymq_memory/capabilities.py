"""What the memory backend can do."""

from anymq.driver import Capabilities, emulated, native, unsupported

CAPABILITIES = Capabilities(
    durability="A confirmed publish lives as long as the process.",
    persistent=unsupported("Nothing survives the process."),
    processes=unsupported("One process, one event loop."),
    groups=native(),
    broadcast=native(),
    earliest=native(),
    delayed_nack=native("By the monotonic clock."),
    attempt_count=native(),
    release=native(),
    extend=native("A lease in memory."),
    dead_letters=native("One step."),
    publish_dedup=unsupported(
        "Stored again, as on Kafka and RabbitMQ, so that a test without `Idempotency` shows it."
    ),
    ordered=emulated("Leases on partitions, written by compare-and-set."),
    ordered_attempts=native("For as long as the process lives."),
    delayed_publish=native("By the wall clock; gone with the process, like all else."),
    replay=native("As far back as the retention reaches."),
    retention=native("What a group has not been given yet is kept longer."),
    admin=native(),
)
