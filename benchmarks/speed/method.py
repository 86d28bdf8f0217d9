"""How it is measured, in words for the report."""

from .accounting import MARKS
from .jobs import WARM
from .schedule import TICK
from .workloads import WORKLOADS

_USUAL = WORKLOADS[0]

METHOD = (
    "Every contestant publishes and consumes the same bodies on a topic of its own, with the "
    "durability that stands beside its figures, and settles every message. Producers and consumers "
    "are processes of their own, except on the memory backend, which one process has to itself. "
    "They live through all rounds, so that no start of an interpreter or client is measured. Those "
    "of a quick run are forked from one that has loaded every client library, so their resident "
    "memory is that of all of them; in a full run each loads what it needs.",
    "After a warm-up, which also tells how many messages each can do in the time, all contestants "
    "of a workload take their turns within each round, in an order that changes. Figures are "
    "medians of the rounds, with the lowest and the highest; ratios are medians of the ratios "
    "within each round. In a quick run the warm-up is a round, which counts unless three more "
    "follow; peers take part in one or two of the others, and idempotency in one, on Redis.",
    f"publish: {_USUAL.tasks} tasks share the messages, each awaits one call a message. publish-"
    f"many: lists of {_USUAL.batch} messages, one call after the other, for everybody: a raw "
    "client too awaits the confirmation of one list before it begins the next, on Kafka that of "
    f"one batch of the whole list. The first {WARM} messages are not timed, and neither is making "
    "the messages. The raw client as usual publishes bodies alone, without the headers that anymq "
    "sends, which is the strictest comparison; its best technique carries those headers.",
    "consume: a backlog is published first; the rate is that between a tenth and nine tenths of "
    f"it, by the clock at every {MARKS}th part: neither joining nor emptying the last buffers "
    "counts. The handler copies a few bytes of each body. Where somebody takes part in both, the "
    "backlog is the one whose publishing is timed as publish-many.",
    "Every body carries its producer and number. All messages of every run are consumed, also "
    "those of publishing, and counted: a run in which one is missing is void, and so is an ordered "
    "one that hands out messages of a key in another order. Duplicates are allowed by "
    "at-least-once, and shown.",
    "latency: both sides are first run at full speed, and the slower contestant's rate is the "
    f"capacity for all. Messages are then due at fixed moments, in steps of {TICK * 1000:g} ms, at "
    "shares of that rate, whatever became of those before; latency counts from the moment a "
    "message was meant to be sent to its handler, so that a client or server that stalls cannot "
    "hide it. How late the calls were made, and how long the confirmations took from the same "
    "moment, are series of their own. Percentiles are those of an HdrHistogram over all rounds, "
    "and left out where there are too few samples; the first tenth of a run is not part of it.",
    "CPU seconds are those of the timed processes with all their threads, and of the server for "
    "publishing and consuming together. Memory is resident set size.",
)
"""One paragraph each."""
