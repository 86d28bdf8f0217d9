"""The Redis backend of anymq, on Redis Streams. It needs Redis 7.0 or newer, or Valkey.

URLs and options
----------------
``redis://[[user]:password@]host[:6379][/database]``, ``rediss://`` for TLS: the certificate and the
host name are always checked. One host: Cluster and Sentinel are not supported. The options are the
fields of `RedisOptions`; the idempotency store `RedisStore` takes the same URLs, and ``prefix``.

Native names
------------
Topic ``orders`` is the stream ``orders``; group ``billing`` on it is the consumer group
``billing``. Header names are fields, the body is the field ``data``; any program may publish with
``XADD orders * data hello``. An entry without ``data`` that is no CloudEvent becomes a JSON object
of all its fields. anymq's own keys share the topic's hash tag:

- ``{orders}._topic``: how it was declared; a stream without it has one partition,
- ``{orders}._p1``, ``{orders}._p2``, …: the partitions but the first, which is ``orders`` itself,
- ``{orders}._delayed`` and ``{orders}._payloads``: what was published with a delay,
- ``{orders}._cells``: how far the ordered groups are, and who reads which partition,
- ``{orders}._sent.…``: for ``dedupe`` seconds, the number of a producer's last publish,
- ``{orders}.billing._retry``: a stream of what comes back to the group,
- ``{orders}.billing._delayed`` and ``{orders}.billing._payloads``: what waits to come back,
- ``{orders}.billing._members``: who is there, and since when it holds something.

A position is the id of the entry; in a topic of several partitions the partition stands before it,
as in ``3:1700000000000-0``.

``Broker.native`` is the `redis.asyncio.Redis`; ``Delivery.native`` is a pair of str, the key of the
stream and the id of the entry.

Delivery semantics
------------------
- publish: one script call a topic stores the batch, for all of its partitions. The calls of a
  producer are numbered, and one whose answer was lost is looked up before it is repeated, so a
  retry stores nothing twice.
- delay: the record waits in the sorted set. Every process that uses the topic, as a publisher or a
  subscriber, moves what is due, by the server's clock: the one that published it at that very
  time, the others look every second.
- subscribe: XGROUP CREATE, at the place asked for. If the group is gone later (FLUSHALL, a
  failover) it is created again at the beginning, with a warning.
- receive: new entries and what has come back (XREADGROUP), and at intervals of a third of
  ``ack_deadline`` what other consumers have left for longer than that (XAUTOCLAIM). After a broken
  connection, also what the server had handed out to the dead read.
- ack: XACK. nack: a copy for this group, in the retry stream or, delayed, in the sorted set; every
  member moves what is due. release: a copy with the same count.
  reject: the dead letter is stored. In all of them that and XACK are one atomic step, taken only
  if the entry is still ours. extend: XCLAIM … JUSTID, on the same condition.
- attempts are counted by Redis; copies carry their number on.
- broadcast: XREAD; each reader remembers its places.
- ordered: XREAD too; each partition by one member, which holds a lease on its cell, written with
  compare-and-set.
- retention: every process that uses the topic trims it, but nothing that a group has not settled.
  ``retention_bytes`` is about the memory that the streams take.
- seek, and deleting a group: refused for six seconds after a member was last seen, unless it left.
- leaving hands over what is unsettled at once, and deletes the consumer.

Limits
------
A confirmed publish is as durable as the server's append-only file: with ``appendonly no`` a crash
loses everything since the last snapshot (a warning is logged when connecting), and replication
to a standby is asynchronous. A stream grows for ever unless ``retention`` is set, in the URL or on
the topic; what a group has not settled is never trimmed, also if that group never comes back:
delete it then. A server that evicts keys (``maxmemory-policy allkeys-…``) evicts whole topics.

A user of little right needs ``+@connection +@read +@write +eval +evalsha +time`` on the keys
``orders`` and ``{orders}.*``, and on those of the dead-letter topics.
"""

from .driver import RedisDriver
from .options import RedisOptions
from .store import RedisStore

__all__ = ["RedisDriver", "RedisOptions", "RedisStore"]
