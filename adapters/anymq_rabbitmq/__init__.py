"""The RabbitMQ backend of anymq: RabbitMQ 3.10 and later, over AMQP 0-9-1.

URLs and options
================

``amqp://user:password@host:5672/vhost?option=value``, or ``amqps://`` with TLS, which always
verifies the server. Several hosts, separated by commas, are tried in turn. No path, or ``/``, is
the virtual host ``/``; a slash in a name is ``%2F``. The options are the fields of
`RabbitMQOptions`. There are two connections: one publishes, the other consumes and asks. So an
alarm (memory, disk), in which RabbitMQ reads nothing more from those that publish, stops no
acknowledgement.

Native names
============

====================  =============================================================================
topic ``orders``      the durable topic exchange ``orders``; messages have their key as routing
                      key, or the topic where they have none (or one over 255 bytes). With several
                      partitions it is ``p3.key`` or ``p3``, and the alternate exchange of
                      ``orders``, ``anymq._partitions.8``, which is never made, says how many
its log               the stream ``orders._log``, bound to it with ``#``: what new groups begin
                      with, and what broadcast and browsing read
group ``billing``     the durable quorum queue ``orders.billing``, bound with ``#``
an ordered one        for each partition a quorum queue with a single active consumer, bound with
                      ``p3.#``: ``orders.billing`` for the first, ``orders.billing._p1`` and so on;
                      and the stream ``orders.billing._attempts``
while it is filled    the queue ``orders.billing._fill``, the exchange and stream
                      ``orders.billing._seam``, of an ordered one the queues ``orders.billing._h0``
                      and so on, gone when it is done
delays                ``anymq._delay.v1``, ``anymq._delay.v1.00`` to ``.27`` (exchanges and quorum
                      queues), ``anymq._delay.v1.due`` and ``.lost``: one set for all topics
in general            ``anymq._streams``, an empty stream, and ``anymq._names``, one of the names
                      of topics and groups; for a moment exchanges ``anymq._seal.…``
====================  =============================================================================

A name that would begin with ``amq.``, which is RabbitMQ's own, begins with ``_amq.``; a stream's
name over 205 bytes is cut and gets a hash. An exchange that is there already is used as it is; a
queue under a group's name that another program has made is refused, as it has nothing of the topic.
An exchange that was deleted is made again, and its groups are bound to it. With ``declare=false``,
or for mapped names, nothing is created: then the beginning of a new group from ``earliest``, and
broadcast, need a stream of the log's name that you bind yourself.

A plain queue, as ``sendToQueue("hello")`` of RabbitMQ's tutorials uses it, is a topic and its only
group under one name: ``names={"hello": "hello", "hello.workers": "hello"}``. What is published to
the topic goes through the default exchange into the queue; there is no log, so no broadcast, no
replay, and no delay. A mapped quorum queue with a limit of deliveries is said in the log: RabbitMQ
drops what exceeds it.

Attributes of CloudEvents are headers ``cloudEvents:…``; message id, content type and timestamp are
properties too. ``CC`` and ``BCC``, by which RabbitMQ routes, travel as ``anymq-header-CC``.

Delivery semantics
==================

- ``publish``: persistent, mandatory, and confirmed by the log and by every group's queue. It says
  of each message what became of it; no position is known. Nothing is deduplicated.
- ``deliver_at``: through the delay queues into one of what is due, from where a process that
  subscribes or delays, one at a time, publishes it to its topic (see `due`). It needs the
  right to write to all topics that are delayed to. Messages in the order of their due times.
- ``ack``: basic.ack, several in one where they are next to each other.
- ``nack``: a copy to the group's queue alone, confirmed, then the ack. With a delay, the copy goes
  through the delay queues: steps of 0.1 s, never early, 310 days at most, kept over a restart.
- ``ordered``: see `ordered` and `lane`. A partition goes to another member when its owner has
  settled what it holds, or is gone: then what was unsettled is delivered again, in order. A message
  of another publisher whose routing key names no partition does not reach ordered groups of a topic
  with several.
- ``keep``: the attempt is written to the group's stream; the message stays where it is.
- ``release``: basic.nack since RabbitMQ 4.3. Before that RabbitMQ counts what is given back, so a
  copy is put at the end of the queue. Closing does the same with what was fetched and not handled.
- ``reject``: the letter to its topic, confirmed, then the ack.
- ``extend``: nothing. A message stays with its consumer until that is gone, or until RabbitMQ's
  ``consumer_timeout`` (30 minutes unless set): then it is delivered again, and the late
  settlement does nothing.
- ``attempt``: the copy's header and the queue's own count. Before 4.3 the queue counts whatever
  a consumer that is gone had been sent, handled or not.
- A position is an offset in the log; groups' deliveries have the message's id for one, which is as
  good a place to begin at, but has to be looked for in the whole log. Times are the publishers', in
  milliseconds (``anymq-time``), or in seconds of others.
- ``seek`` deletes the group's queues and makes them anew; ``purge`` also the log. What waits for a
  retry then leads nowhere, as the limit of deliveries of the new queue differs.
- A new group that begins in the past is filled from the log, in order and resumably, while its
  members already consume (see `fill`). Messages that came as CloudEvents are not repeated at
  the seam; those of other publishers may be.
- Broadcast readers follow the log by offset and go on there after a lost connection.
- A message of another publisher is named by its message id. One without is put back with an id of
  its own first: nothing else tells it from the next one like it.

Limits
======

Bodies up to 16 MiB (the default of RabbitMQ 4). Topic and group names together up to 236 bytes.
The first message of a new topic on a new server, of a new group and of the first delay
wait for ``settle_time`` (1.5 s): a node that is killed within a second of a quorum queue's creation
forgets what that queue had confirmed. Only ordered groups keep an order between members.
"""

from .driver import RabbitMQDriver
from .options import RabbitMQOptions

__all__ = ["RabbitMQDriver", "RabbitMQOptions"]
