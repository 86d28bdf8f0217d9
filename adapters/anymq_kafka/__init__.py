"""The Kafka backend of anymq, on aiokafka.

URLs and options
----------------
``kafka://host:9092,host2:9092``, or ``kafka+ssl://…`` for TLS (``ca=`` replaces the system's
certificate authorities; ``cert=`` and ``key_file=`` name a client certificate). A user and password
in the URL log in with SASL: ``sasl_mechanism=PLAIN`` (default), ``SCRAM-SHA-256`` or
``SCRAM-SHA-512``. The other options are the fields of `KafkaOptions`.

Native names
------------
Topic ``orders`` is the Kafka topic ``orders``. Group ``billing`` on it is the consumer group
``orders.billing``. A key is the record key in UTF-8, placed by the default partitioner of Kafka's
own clients. Headers are record headers, CloudEvents attributes with the prefix ``ce_`` (the
CloudEvents Kafka binding). The retry topics of the group are ``orders.billing._retry.5s``, ``.1m``,
``.15m`` and ``.long`` (`delays.retry_topics` has the exceptions). Delayed messages of the whole
cluster wait in the topics ``_anymq.delay.soon``, ``.2s`` … ``.5d``, which are created on first use
and read by the consumer group ``_anymq.delay``. Kafka refuses a topic whose name differs from an
existing one only in ``.`` and ``_``.

``Broker.native`` is the `aiokafka.AIOKafkaProducer` in use; ``Delivery.native`` is the
`aiokafka.ConsumerRecord`.

Delivery semantics
------------------
- publish: ``acks=all``, idempotent, in ready-made batches. A batch that is not confirmed within
  ``publish_timeout`` is given up together with its producer, so it is not sent later. A refused
  record affects no other record: the producer is replaced, and records that were only too large
  together are sent one by one.
- subscribe: the start offsets of a new group are committed for all partitions before it returns.
  Partitions that an operator adds later are read from their beginning.
- ack: marks the offset in a tracker and returns. The offset below which all is settled is committed
  in the background, ``commit_interval`` apart. Offsets settled above it are in the metadata of the
  same commit, so a crash redelivers little more than was in flight.
- nack: a copy with its due time is stored in a retry topic and confirmed, then the original is
  settled, and the partition continues. Members read the retry topics ahead and hold copies that are
  not due in memory. No copy is early, by the wall clock of the member.
- release: redelivered by the same member, or by the partition's next owner after a close.
- reject: the dead letter is stored and confirmed, then the record is settled.
- ordered: all members of a group are ordered, or none is. A partition in use moves only after its
  handlers have finished. Attempts are in the metadata of the commit, and nothing is copied.
- rebalance: a partition with messages in flight stays with its member. If it is assigned to
  another one, it is read no further, and moves when they are settled, or after ``handover``. Then,
  and when a member is lost, unsettled messages are redelivered and late settlements are ignored.
- broadcast: all partitions are read without a group. The position is in memory, also over
  reconnects.
- delayed publish: stored and confirmed in the topic of a waiting time. From there the record moves
  down through shorter ones, is held in memory for its last seconds, and is published to its own
  topic in the order of due times. Up to three of the processes that use anymq move records; each
  may die at any time. A record that its topic refuses is tried again every minute.

Limits
------
All members of a group must use this adapter, because they share an assignor of its own. Attempts
are counted in a header of the copies, so a message that kills its process is redelivered with the
same number. A retried message loses its place in the order of its key. The clocks of all processes
that retry or delay should agree. Retention deletes messages that no group has read, too. A group
that has been away for longer than the broker's ``offsets.retention.minutes`` (7 days) is a new
group. ``retry_window`` messages of a retry topic are held at a time; with more, one may be late by
up to the range of its topic. That of ``.long`` has no end: for waits of many messages over 15
minutes, publish with a delay instead.
Bodies over ``max_body`` need topics created for them. Batches compressed with snappy, lz4 or zstd
need aiokafka's extras. A batch that decompresses to more than ``max_decompressed`` (128 MiB) is not
read, and one dead letter has its offsets. No transactions; messages that other programs write in
transactions are read once they are committed.
"""

from .driver import KafkaDriver
from .options import KafkaOptions

__all__ = ["KafkaDriver", "KafkaOptions"]
