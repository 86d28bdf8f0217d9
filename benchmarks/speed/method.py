"""The measuring method, described for the report."""

from .accounting import MARKS
from .jobs import WARM_UP_MESSAGES
from .schedule import TICK
from .workloads import WORKLOADS

_PUBLISH = WORKLOADS[0]

METHOD = (
    "Every contestant publishes and consumes the same bodies on a topic of its own, and settles "
    "every message. The durability of each figure is shown beside it. Producers and consumers are "
    "separate processes, except on the memory backend, which only one process can use. These "
    "processes run through all rounds, so no interpreter or client start is measured. In a quick "
    "run they are forked from a process that has loaded every client library, so their resident "
    "memory includes all of these; in a full run each loads only the libraries it needs.",
    "A warm-up estimates how many messages each contestant handles in the available time. Then "
    "all contestants of a workload are measured in every round, in an order that changes. Figures "
    "are medians of the rounds, with the lowest and the highest value; ratios are medians of the "
    "ratios within each round. In a quick run the warm-up counts as a round unless three more "
    "follow. There, peers take part in one or two rounds, and idempotency in one round on Redis.",
    f"publish: {_PUBLISH.tasks} tasks share the messages, and each awaits one call per message. "
    f"publish-many: lists of {_PUBLISH.batch} messages, one call after the other. Every contestant "
    "awaits the confirmation of one list before it publishes the next; on Kafka the raw client "
    f"sends the whole list as one batch. The first {WARM_UP_MESSAGES} messages and the creation of "
    "messages are not timed. The raw client in its idiomatic form publishes bodies alone, without "
    "the headers that anymq sends, which is the strictest comparison. In its tuned form it sends "
    "those headers.",
    "consume: a backlog is published first. The rate is measured between a tenth and nine tenths "
    f"of it, with the time recorded at every {MARKS}th part, so neither joining the group nor "
    "emptying the last buffers counts. The handler copies a few bytes of each body. For a "
    "contestant measured in both workloads, the backlog is the one published for publish-many.",
    "Every body carries its producer and number. All messages of every run are consumed and "
    "counted, including those of publish runs. A run that loses a message is void, and so is an "
    "ordered run that delivers messages of one key out of order. At-least-once delivery allows "
    "duplicates; they are shown.",
    "latency: each contestant first runs at full speed, and the rate of the slowest is the "
    f"capacity for all. Messages are then due at fixed times, in steps of {TICK * 1000:g} ms, at "
    "shares of that rate, regardless of earlier messages. Latency counts from the intended send "
    "time to the handler, so a stalled client or server cannot hide it. The delay of each publish "
    "call and the time to its confirmation are recorded separately, from the same intended time. "
    "Percentiles come from one HdrHistogram over all rounds and are omitted where there are too "
    "few samples. The first tenth of each run is excluded.",
    "CPU seconds are those of the timed processes with all their threads, and of the server for "
    "publishing and consuming together. Memory is resident set size.",
)
"""One paragraph each."""
