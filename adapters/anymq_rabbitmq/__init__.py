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
                      key, or the topic where they have none (or one over 255 bytes)
its log               the stream ``orders._log``, bound to it with ``#``: what new groups begin
                      with, and what broadcast reads. Kept for the topic's ``retention``
group ``billing``     the durable quorum queue ``orders.billing``, bound with ``#``
while it is filled    the queue ``orders.billing._fill``, the exchange and stream
                      ``orders.billing._seam``, gone when it is done
delays                ``anymq._delay.v1``, ``anymq._delay.v1.00`` to ``.27`` (exchanges and quorum
                      queues) and ``anymq._delay.v1.lost``: one set for all topics
streams in general    ``anymq._streams``, an empty stream
====================  =============================================================================

A name that would begin with ``amq.``, which is RabbitMQ's own, begins with ``_amq.``; a stream's
name over 205 bytes is cut and gets a hash. An exchange or queue that is there already is used as it
is. With ``declare=false``, or for mapped names, nothing is created: then the beginning of a new
group from ``earliest``, and broadcast, need a stream of the log's name that you bind yourself.

Attributes of CloudEvents are headers ``ce-…``; message id, content type and timestamp are
properties too. ``CC`` and ``BCC``, by which RabbitMQ routes, travel as ``anymq-header-CC``.

Delivery semantics
==================

- ``publish``: persistent, mandatory, and confirmed by the log and by every group's queue. It says
  of each message what became of it; no position is known. Nothing is deduplicated.
- ``ack``: basic.ack, several in one where they are next to each other.
- ``nack``: a copy to the group's queue alone, confirmed, then the ack. With a delay, the copy goes
  through the delay queues: steps of 0.1 s, never early, 310 days at most, kept over a restart.
- ``release``: basic.nack since RabbitMQ 4.3. Before that RabbitMQ counts what is given back, so a
  copy is put at the end of the queue. Closing does the same with what was fetched and not handled.
- ``reject``: the letter to its topic, confirmed, then the ack.
- ``extend``: nothing. A message stays with its consumer until that is gone, or until RabbitMQ's
  ``consumer_timeout`` (30 minutes unless set): then it is delivered again, and the late
  settlement does nothing.
- ``attempt``: the copy's header and the queue's own count. Before 4.3 the queue counts whatever
  a consumer that is gone had been sent, handled or not.
- A new group from ``earliest`` is filled from the log, in order and resumably, while its
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
forgets what that queue had confirmed. There is no order between members of a group.
"""

from .driver import RabbitMQDriver
from .options import RabbitMQOptions

__all__ = ["RabbitMQDriver", "RabbitMQOptions"]
