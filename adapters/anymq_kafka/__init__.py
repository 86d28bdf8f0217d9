"""The Kafka backend of anymq, on aiokafka.

URLs and options
----------------
``kafka://host:9092,host2:9092`` and, encrypted, ``kafka+ssl://…`` (the system's certificate
authorities, or ``ca=``; ``cert=`` and ``key_file=`` for a client certificate). A user and password
in the URL log in by SASL: ``sasl_mechanism=PLAIN`` (default), ``SCRAM-SHA-256`` or
``SCRAM-SHA-512``. The other options are the fields of `KafkaOptions`.

Native names
------------
Topic ``orders`` is the Kafka topic ``orders``; group ``billing`` on it is the consumer group
``orders.billing``. A key is the record key in UTF-8, placed as every Kafka client's default
partitioner places it; headers are record headers, the CloudEvents attributes with the prefix
``ce_`` (the CloudEvents Kafka binding). The group's own retry topics are
``orders.billing._retry.5s``, ``.1m``, ``.15m`` and ``.long`` (`anymq_kafka.retry` tells the
exceptions). What is published with a delay waits in topics that the whole cluster shares,
``_anymq.delay.soon``, ``.2s`` … ``.5d``, made on first use, and is moved by the consumer group
``_anymq.delay``. Kafka refuses a topic whose name differs from an existing one only in ``.`` and
``_``.

``Broker.native`` is the `aiokafka.AIOKafkaProducer` in use; ``Delivery.native`` is the
`aiokafka.ConsumerRecord`.

Delivery semantics
------------------
- publish: ``acks=all``, idempotent, in ready-made batches. What is not confirmed within
  ``publish_timeout`` is given up together with its producer, so it is not sent later. A refused
  record costs nobody else: the producer is replaced, and records that were only too large together
  go again one by one.
- subscribe: the start offsets of a new group are committed for all partitions before it returns.
  Partitions that are added later are read from their beginning.
- ack marks the offset in a tracker. What is done without a gap is committed in the background,
  ``commit_interval`` apart; what is done above a gap goes into the metadata of the same commit and
  is read back by the partition's next owner, so a crash repeats little more than what was in
  flight. An ack returns before its commit.
- nack: a copy with its due time is stored in a retry topic of the group and confirmed, then the
  original is marked as done; the partition goes on. The group's consumer reads the retry topics
  ahead and holds what is not due in memory. Nothing is delivered early, by the wall clock.
- delayed publish: stored and confirmed in the topic of a waiting time, which is a queue: its head
  is always the next. From there it hops down until it is due within seconds, is held in memory
  then, and published to its own topic in the order of due times. Up to three of the processes that
  use anymq do this; each may die at any time. What its topic refuses is tried again every minute.
- ordered: all members of a group are, or none is. A partition in use moves only when its handlers
  have come to an end; attempts are noted in the commit metadata, and nothing is copied.
- release: delivered again by the same member; on close not committed, so the next owner has it.
- reject: the dead letter is stored and confirmed, then the record is marked as done.
- rebalances: a partition with messages in flight stays with its member, is read no further if it
  should be another's, and moves once they are settled, or after ``handover``. Only then, or when a
  member is lost, is what was in flight delivered again; late settlements have no effect.
- broadcast: all partitions without a group; the place is kept in memory, over reconnects too.

Limits
------
All members of a group must use this adapter: they share an assignor of its own. Attempts are
counted by a header on the copies: a delivery whose process died comes back with the same number, so
a message that kills its process is not counted. A retried message leaves its place in the order of
its key. The clocks of all who retry or delay should agree. Retention deletes what no group has
read, too. A group that has been away for longer than the broker's ``offsets.retention.minutes`` (7
days) is a new group. ``retry_window`` messages of a retry topic are held at a time: with more, one
may come late, by no more than its topic's range (that of ``.long`` has no end: for waits of many
messages over 15 minutes, publish with a delay instead).
Bodies over ``max_body`` need topics made for them. Batches compressed with snappy, lz4 or zstd need
aiokafka's extras; one that unpacks to more than ``max_decompressed`` (128 MiB) is not read, and a
letter with its offsets says so. No transactions; what others write in transactions is read once it
is committed.
"""

from .driver import KafkaDriver
from .options import KafkaOptions

__all__ = ["KafkaDriver", "KafkaOptions"]
