"""The RabbitMQ backend of anymq: RabbitMQ 3.10 and later, over AMQP 0-9-1.

URLs and options
================

``amqp://user:password@host:5672/vhost?option=value``, or ``amqps://`` with TLS, which always
verifies the server. Several hosts, separated by commas, are tried in turn. Without a path, or with
``/``, the virtual host is ``/``; a slash in a name is ``%2F``. The options are the fields of
`RabbitMQOptions`. There are two connections: one publishes, the other consumes and makes requests.
In an alarm (memory, disk) RabbitMQ stops reading from connections that publish, so acknowledgements
are not affected.

Native names
============

====================  =============================================================================
topic ``orders``      the durable topic exchange ``orders``; messages have their key as routing
                      key, or the topic if they have none (or one over 255 bytes). With several
                      partitions it is ``p3.key`` or ``p3``, and the name of the alternate exchange
                      of ``orders``, ``anymq._partitions.8``, which is never made, has the number
its log               the stream ``orders._log``, bound to it with ``#``: the source of new groups,
                      broadcast readers and browsing
group ``billing``     the durable quorum queue ``orders.billing``, bound with ``#``
an ordered group      for each partition a quorum queue with a single active consumer, bound with
                      ``p3.#``: ``orders.billing`` for the first, ``orders.billing._p1`` and so on;
                      and the stream ``orders.billing._attempts``
during its backfill   the queue ``orders.billing._fill``, the exchange and stream
                      ``orders.billing._seam``, and for an ordered group the queues
                      ``orders.billing._h0`` and so on; deleted at the end
delays                ``anymq._delay.v1``, ``anymq._delay.v1.00`` to ``.27`` (exchanges and quorum
                      queues), ``anymq._delay.v1.due`` and ``.lost``: one set for all topics
in general            ``anymq._streams``, an empty stream, and ``anymq._names``, which lists topics
                      and groups; for a moment exchanges ``anymq._seal.…``
====================  =============================================================================

RabbitMQ reserves names that begin with ``amq.``: such a name gets the prefix ``_``. A stream's name
over 205 bytes is cut and gets a hash. An existing exchange is used as it is. An existing queue
under a group's name that another program has made is refused, because it has no messages of the
topic. If an exchange was deleted, it is made again and its groups are bound to it. With
``declare=false``, and for mapped names, nothing is created: then new groups that start at
``earliest``, and broadcast, need a stream of the log's name that you bind yourself.

A plain queue, as ``sendToQueue("hello")`` of RabbitMQ's tutorials uses it, is a topic and its only
group under one name: ``names={"hello": "hello", "hello.workers": "hello"}``. Messages published to
the topic go through the default exchange into the queue. There is no log, so there is no broadcast,
no replay, and no delay. A mapped quorum queue with a limit of deliveries is logged as a warning,
because RabbitMQ drops messages that exceed it.

Attributes of CloudEvents are headers ``cloudEvents:…``; message id, content type and timestamp are
properties too. RabbitMQ routes by ``CC`` and ``BCC``, so such headers travel as
``anymq-header-CC``.

Delivery semantics
==================

- ``publish``: persistent, mandatory, and confirmed by the log and by every group's queue. Each
  message has its own outcome, without a position. Nothing is deduplicated.
- ``deliver_at``: through the delay queues into one queue of due messages. From there one process at
  a time, of all that subscribe or delay, publishes each to its topic (see `delays`), in the order
  of due times. It needs the right to write to all topics with delayed messages.
- ``ack``: basic.ack, one for several messages that follow each other.
- ``nack``: a copy to the group's queue alone, confirmed, then the ack. With a delay, the copy goes
  through the delay queues: steps of 0.1 s, never early, 310 days at most, kept over a restart.
- ``ordered``: see `ordered` and `groups.partition_consumer`. A partition moves to another member
  when its owner has settled all its deliveries, or is gone: then unsettled ones are redelivered, in
  order. In a topic with several partitions, a message of another publisher whose routing key names
  no partition does not reach ordered groups.
- ``keep``: the attempt is written to the group's stream; the message keeps its position.
- ``release``: basic.nack since RabbitMQ 4.3. Before that RabbitMQ counts returned messages, so a
  copy goes to the end of the queue. Closing does the same with buffered messages.
- ``reject``: the dead letter to its topic, confirmed, then the ack.
- ``extend``: nothing. A message stays with its consumer until that is gone, or until RabbitMQ's
  ``consumer_timeout`` (30 minutes by default): then it is redelivered, and the late settlement is
  ignored.
- ``attempt``: the copy's header and the queue's own count. Before 4.3 the queue counts all messages
  that a lost consumer had been sent, handled or not.
- A position is an offset in the log. Deliveries of groups have the message's id as position. A
  group can start at either, but an id is searched in the whole log. Times are the publishers', in
  milliseconds (``anymq-time``), or in seconds for messages of others.
- ``seek`` deletes the group's queues and makes new ones; ``purge`` also the log. Messages that wait
  for a retry do not come then, because the new queue has another limit of deliveries.
- A new group that starts in the past is filled from the log, in order and resumably, while its
  members already consume (see `groups.backfill`). At its end, messages that came as CloudEvents are
  not repeated; those of other publishers may be.
- Broadcast readers follow the log by offset, and continue there after a lost connection.
- A message of another publisher is named by its message id. One without an id is first replaced by
  a copy with an id, because nothing else tells it from the next equal one.

Limits
======

Bodies up to 16 MiB (the default of RabbitMQ 4). Topic and group names together up to 236 bytes. The
first message of a new topic on a new server, of a new group and of the first delay wait for
``settle_time`` (1.5 s), because a node that is killed within a second of a quorum queue's creation
loses the messages that the queue had confirmed. Only ordered groups keep an order between members.
"""

from .driver import RabbitMQDriver
from .options import RabbitMQOptions

__all__ = ["RabbitMQDriver", "RabbitMQOptions"]
