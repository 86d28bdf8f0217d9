"""The NATS JetStream backend (nats-server 2.10 or newer, best 2.12; nats-py 2.16 or newer).

URLs and options
----------------
``nats://host``, ``nats://user:password@one,two:4223``, ``nats://token@host``; the port is 4222
where none is given. ``tls://`` demands encryption: nothing is sent to a server that does not offer
it, on connect or on any later reconnect. With ``nats://`` the connection is encrypted if the server
asks for it or a TLS option is set. The options are the fields of `NatsOptions`. A creds file needs
``pip install 'nats-py[nkeys]'``.

Native names
------------
- Topic ``orders`` is the subject ``orders``, in the stream that stores it. If no stream does and
  anymq may create one, the stream has the topic's name, with ``.`` written ``_`` and ``_`` written
  ``__`` (``orders.eu`` is the stream ``orders_eu``). It is stored in files and keeps messages for
  the topic's retention or ``max_age``.
- Group ``billing`` on it is the durable pull consumer ``orders_billing``.
- A topic with ``partitions=8`` has the subjects ``orders`` (the first) and ``orders._part.8.1`` to
  ``orders._part.8.7``; the number is in the stream's metadata, as ``anymq-partitions``.
- Two more subjects of the stream belong to anymq. ``orders._retry.<consumer>`` returns a message
  to one group. ``orders._later.<consumer>.<id>`` stores a delayed message, for all groups if
  ``<consumer>`` is ``@``. Consumers made with other tools should filter on the topic's subjects,
  as anymq's own do.
- An ordered group is a durable consumer that delivers nothing. Its lease records are in the stream
  ``orders=cells``, on subjects that begin with ``_anymq.cell``. Members of any group answer on
  ``_anymq.member.<stream>.<consumer>``; ``broker.admin`` finds them by that.
- ``Broker.native`` is the `nats.aio.client.Client`; another one replaces it when nats-py has closed
  it for good. ``Delivery.native`` is the `nats.aio.msg.Msg`. Do not acknowledge it by hand.

Delivery semantics
------------------
- publish: a batch is one write. The call returns when the stream has confirmed or refused every
  message. Each carries a ``Nats-Msg-Id``, so a repeated publish after an ambiguous failure is
  stored once (within ``duplicate_window``). ``Receipt.position`` is the stream sequence.
- receive: overlapping pull requests of at most 2 s, sent again after every reconnect.
- ack, extend: ``+ACK``, ``+WPI``. The call returns when the server has read them. The server would
  apply a late one to the member that has the message by then, so the adapter watches the leases
  and drops a settlement that comes after the end of its lease.
- nack: without a delay ``-NAK``. With a delay a copy is stored as a scheduled message, confirmed,
  and the original acked, because delayed NAKs were redelivered early, even at once, when the
  server was killed. A copy is a message of its own with the attempt in its header.
- release: a copy to the group's private subject, because every NAK counts as an attempt.
- reject: the dead letter is stored and confirmed, then ``+TERM``.
- broadcast: an ephemeral consumer that acknowledges nothing. The position is kept in memory. After
  a lost connection or consumer, a new consumer starts right after it.
- ordered: the member that holds the lease of a partition reads it with such a consumer.
- delay: a scheduled message in the topic's own stream, exempt from ``max_age``. The server checks
  every 0.25 s. A topic made with ``retention_bytes`` stores delayed messages in another stream,
  ``orders=later``, from which the server copies them when they are due.
- start, seek: a position is a stream sequence, one order for all partitions. ``seek`` replaces the
  durable consumer; if the process is killed between the two steps, there is no group.

Limits
------
- A killed server may lose the last 0.1 s of acks and delivery counts: those messages are
  redelivered.
- ``max_payload`` of the server (1 MiB by default) bounds body and headers together, of which 16 KiB
  are left free for retries and dead letters. The default ``max_body`` fits; for larger ones set
  both higher.
- On servers older than 2.12 and in streams that anymq did not make, delays of nacks are NAKs, a
  release counts as an attempt, and delayed publishing is refused. Adding ``orders._retry.*`` and
  ``orders._later.*.*`` to such a stream, with ``allow_msg_schedules`` and ``allow_msg_ttl``, makes
  them as good as anymq's own.
- Retention deletes messages that are too old or too many, read or not. When a group returns, a
  warning names the sequences that are gone. A ``retention_bytes`` that is first set on an existing
  topic also deletes delayed messages, because the server cannot remove scheduling from a stream.
- All members of a group must use the same ``ack_deadline``; the last to subscribe sets it.
- A consumer made by hand is refused if it cannot keep the delivery contract: push delivery,
  another ack policy, a ``max_deliver``, or an ``ack_wait`` below ``ack_deadline``.
- A stream that is deleted and created again restarts its sequences, and so the ids of messages that
  carry none.
"""

from .driver import NatsDriver
from .options import NatsOptions

__all__ = ["NatsDriver", "NatsOptions"]
