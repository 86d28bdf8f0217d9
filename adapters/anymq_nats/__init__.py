"""The NATS JetStream backend (nats-server 2.10 or newer, best 2.12; nats-py 2.16 or newer).

URLs and options
----------------
``nats://host``, ``nats://user:password@one,two:4223``, ``nats://token@host``; the port is 4222
where none is given. ``tls://`` demands encryption: nothing is said to a server that does not offer
it, on connect or on any later reconnect. With ``nats://`` the connection is encrypted if the server
asks for it or a TLS option is set. The options are the fields of `NatsOptions`. A creds file needs
``pip install 'nats-py[nkeys]'``.

Native names
------------
- Topic ``orders`` is the subject ``orders``, in whatever stream stores it. If there is none and
  anymq may create one, it is called like the topic, with ``.`` written ``_`` and ``_`` written
  ``__`` (``orders.eu`` is the stream ``orders_eu``); it is kept in files and ages after the topic's
  retention or ``max_age``.
- Group ``billing`` on it is the durable pull consumer ``orders_billing``.
- A topic with ``partitions=8`` has the subjects ``orders`` (the first) and ``orders._part.8.1`` to
  ``orders._part.8.7``; the number is in the stream's metadata, as ``anymq-partitions``.
- Two more subjects of the stream belong to anymq: ``orders._retry.<consumer>`` brings a message
  back to one group, ``orders._later.<consumer>.<id>`` holds one that waits for its time, for all
  groups where ``<consumer>`` is ``@``. Consumers made with other tools should filter on the
  topic's subjects, as anymq's own do.
- An ordered group is a durable consumer that delivers nothing, and its places are in the stream
  ``orders=cells``, on subjects that begin with ``_anymq.cell``. Members of any group answer to
  ``_anymq.member.<stream>.<consumer>``, which is how ``broker.admin`` knows them.
- ``Broker.native`` is the `nats.aio.client.Client` and changes when a connection was given up for
  good; ``Delivery.native`` is the `nats.aio.msg.Msg`. Neither needs to be acknowledged by hand.

Delivery semantics
------------------
- publish: a batch is one write; the call returns when the stream has confirmed or refused every
  message. Each carries a ``Nats-Msg-Id``, so a repetition after an ambiguous failure is stored once
  (within ``duplicate_window``). ``Receipt.position`` is the stream sequence.
- receive: overlapping pull requests of at most 2 s, asked anew after every reconnect.
- ack, extend: ``+ACK``, ``+WPI``; the call returns when the server has read them. The server would
  apply a late one to whoever holds the message by then, so leases are watched here and what comes
  after the end of a lease is dropped.
- nack: without a delay ``-NAK``. With a delay a copy is stored as a scheduled message, confirmed,
  and the original acked: a NAK with a delay was seen to come early, and even at once, when the
  server was killed. A copy is a message of its own with the attempt in its header.
- release: a copy to the group's private subject, because every NAK counts as an attempt.
- reject: the dead letter is stored and confirmed, then ``+TERM``.
- broadcast: an ephemeral consumer that acknowledges nothing. The place is kept in memory, and after
  any trouble a new consumer begins right behind it.
- ordered: each partition is read with such a consumer by the member that holds its lease.
- delay: a scheduled message in the topic's own stream, exempt from ``max_age``. The server looks
  every quarter of a second. A topic made with ``retention_bytes`` keeps what waits in another
  stream, ``orders=later``, from which the server copies it when it is due.
- start, seek: a position is a stream sequence, one order for all partitions. ``seek`` makes the
  durable consumer anew; killed between the two steps it leaves no group.

Limits
------
- A killed server may forget the last 0.1 s of acks and delivery counts: those messages come again.
- ``max_payload`` of the server (1 MiB by default) bounds body and headers together, of which 16 KiB
  are left free for retries and dead letters. The default ``max_body`` fits; for larger ones set
  both higher.
- On servers older than 2.12 and in streams that anymq did not make, delays of nacks are NAKs, a
  release counts as an attempt, and delayed publishing is refused. Adding ``orders._retry.*`` and
  ``orders._later.*.*`` to such a stream, with ``allow_msg_schedules`` and ``allow_msg_ttl``, makes
  them as good as anymq's own.
- Retention deletes what is too old or too much, read or not. When a group comes back, a warning
  names the sequences that are gone. A ``retention_bytes`` that is asked for when the topic exists
  already also deletes what waits: the server cannot take its scheduling back from a stream.
- All members of a group must use the same ``ack_deadline``; the last to subscribe sets it.
- A consumer made by hand is refused where the delivery contract could not be kept: push delivery,
  another ack policy, a ``max_deliver``, or an ``ack_wait`` below ``ack_deadline``.
- Deleting a stream and making it again starts its sequences anew, and so the ids of messages that
  carry none.
"""

from .driver import NatsDriver
from .options import NatsOptions

__all__ = ["NatsDriver", "NatsOptions"]
