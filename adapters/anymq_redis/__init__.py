"""The Redis backend of anymq, on Redis Streams. It needs Redis 7.0 or newer, or Valkey.

URLs and options
----------------
``redis://[[user]:password@]host[:6379][/database]``, or ``rediss://`` for TLS: the certificate and
the host name are always checked. A URL has one host; Cluster and Sentinel are not supported. The
options are the fields of `RedisOptions`. The idempotency store `RedisStore` takes the same URLs,
and the option ``prefix``.

Native names
------------
Topic ``orders`` is the stream ``orders``; group ``billing`` on it is the consumer group
``billing``. Header names are fields, and the body is the field ``data``. Any program may publish
with ``XADD orders * data hello``. An entry without ``data`` that is no CloudEvent becomes a JSON
object of all its fields. anymq's own keys share the topic's hash tag:

- ``{orders}._topic``: its declaration; a stream without one has one partition,
- ``{orders}._p1``, ``{orders}._p2``, …: the partitions after the first, which is ``orders`` itself,
- ``{orders}._delayed`` and ``{orders}._payloads``: records published with a delay,
- ``{orders}._cells``: the cursors and lease records of ordered groups,
- ``{orders}._sent.…``: for ``dedupe`` seconds, the number of a producer's last publish call,
- ``{orders}.billing._retry``: the group's retry stream, with copies for this group alone,
- ``{orders}.billing._delayed`` and ``{orders}.billing._payloads``: copies that are not due,
- ``{orders}.billing._members``: the heartbeats of the members,
- ``{orders}.billing._starts``: how many handlers have started, by pending entry.

A position is the id of the entry. In a topic of several partitions the partition comes first, as
in ``3:1700000000000-0``.

``Broker.native`` is the `redis.asyncio.Redis`; ``Delivery.native`` is a pair of str: the key of the
stream, and the id of the entry.

Delivery semantics
------------------
- publish: one script call for each topic stores its batch, in all partitions. A producer numbers
  its calls, and looks up a call whose reply was lost before it repeats it, so a retry stores
  nothing twice.
- delay: the record is stored in a sorted set. Every process that uses the topic, as a publisher or
  a subscriber, moves due records by the server's clock: the publishing process at the due time, the
  others once a second.
- subscribe: XGROUP CREATE, at the start position. If the group disappears later (FLUSHALL, a
  failover), it is created again at the earliest entry, with a warning.
- receive: XREADGROUP reads new entries and the group's retry stream. Every third of
  ``ack_deadline`` the member also claims entries whose lease has expired (XCLAIM), and after a
  broken connection the entries that the server had delivered to the lost read.
- ack: XACK. nack: a copy for this group, in the retry stream or, with a delay, in the sorted set;
  every member moves due copies. release: a copy with the same count. reject: the dead letter is
  stored. Each of them is one atomic step with XACK, taken only if the entry is still this
  consumer's. extend: XCLAIM … JUSTID, on the same condition.
- attempts are counted by Redis; copies carry the number.
- broadcast: XREAD; each reader keeps its cursors.
- ordered: XREAD too. Each partition is read by one member, which holds a lease on the partition's
  cell, written with compare-and-set.
- retention: every process that uses the topic trims it, but no entry that a group has not settled.
  ``retention_bytes`` bounds the memory of the streams approximately.
- seek, and deleting a group: refused for six seconds after a member's last heartbeat, unless that
  member has left.
- A member that leaves returns its unsettled entries at once, and deletes its consumer.

Limits
------
A confirmed publish is as durable as the server's append-only file. With ``appendonly no`` a crash
loses everything since the last snapshot (a warning is logged when connecting). Replication to a
standby is asynchronous. A stream grows without bound unless ``retention`` is set, in the URL or on
the topic. Entries that a group has not settled are never trimmed: delete a group that is no longer
used. A server that evicts keys (``maxmemory-policy allkeys-…``) evicts whole topics.

A user with restricted rights needs ``+@connection +@read +@write +eval +evalsha +time`` on the keys
``orders`` and ``{orders}.*``, and on those of the dead-letter topics.
"""

from .driver import RedisDriver
from .options import RedisOptions
from .store import RedisStore

__all__ = ["RedisDriver", "RedisOptions", "RedisStore"]
