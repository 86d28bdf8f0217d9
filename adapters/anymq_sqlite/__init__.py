"""The SQLite backend: a durable broker in one file, shared by the processes of one host.

It needs no server and only the standard library. It is also the worked example for adapter authors:
its files have the same names and tasks as those of the other adapters. `file/` has the parts that
no other adapter has: the thread that owns the connection, the tables, and functions on their rows.

URLs and options
----------------
``sqlite:///relative.db`` (three slashes), ``sqlite:////absolute/path.db`` (four). A file that does
not exist is created, readable by its owner only; its directory must exist. There is no private
in-memory form: use ``memory://``. The options are the fields of `SqliteOptions`.

Native names
------------
Topic ``orders`` is the row ``orders`` of the table ``topics``; group ``billing`` on it is the row
``orders.billing`` of ``groups``. `file/schema.py` has all tables. Any program may publish with
plain SQL::

    INSERT INTO messages (topic, body) SELECT id, 'hello' FROM topics WHERE name = 'orders'

In a topic of several partitions it sets ``part``, too; an ordered group sees only messages that
have it.

``Broker.native`` is the `Database`: ``await broker.native.read(job)`` and ``write(job)`` call
``job(connection)`` in the thread that owns the `sqlite3.Connection`, ``write`` in a transaction.
``Delivery.native`` is the message's ``seq``, an int.

Delivery semantics
------------------
- publish: all records of a call are stored in one transaction. The call returns when it is
  committed and, with ``synchronous=FULL`` (the default), forced to disk. A repeated publish (the
  same ``Record.unique`` in the same topic) is stored once for as long as the first is kept.
- subscribe: a group is a row with a cursor into the log. Messages that are in flight or wait for a
  retry are rows of ``pending`` with the time from which they may be taken (again): when the lease
  expires, or the delay ends. Taking is one transaction: due rows first, then new messages.
- ack deletes the pending row. nack, release and extend set its time. reject deletes it and stores
  the dead letter in the same transaction. Every take and every return changes the row's fence. A
  settlement with another fence is stale and changes nothing.
- takes, extensions and acks are committed without waiting for the disk. A power cut may undo the
  last of them, and those messages are delivered again. The death of a process undoes nothing. All
  other commits are forced to disk, and with each the earlier ones.
- attempts: the row counts handlers that have started, so an attempt whose process died counts too.
- delay: a message that is not due is a row of ``delayed``. Each process that publishes to the topic
  or reads it moves the messages that are due into the log, in one transaction. Their order is that
  of their due times, and `Received.time` is the due time.
- partitions: a column of the message. Ordered groups read one partition at a time from the log, and
  keep their lease records in the rows of ``cells``. Other groups ignore partitions.
- retention: sweeps delete messages older than the retention and, oldest first, those that exceed
  ``retention_bytes`` of bodies. They keep messages that a group of the topic has not settled, and
  delayed ones.
- broadcast: the reader keeps its cursor in memory.
- members are rows that count as live for 15 s after their last heartbeat. For that long a member
  that was killed prevents `seek` and `delete_group`.
- wake-up: a commit of the same `Driver` wakes its sources at once. Commits of others are noticed
  within milliseconds: on Linux the kernel reports writes to the write-ahead log (inotify), and then
  ``PRAGMA data_version`` says whether there is a new commit. Elsewhere it is read every ``poll``
  seconds.

Limits
------
One host: SQLite's write-ahead log works through shared memory, so the file must not be on a network
file system. One writer at a time: transactions are short and batches bounded, so that processes
take turns. A call that waits longer than ``busy_timeout`` fails with `Throttled`. The file does not
shrink; SQLite uses its free space again.

Time: leases, claims and retries use a clock of the file's own, which does not change while the host
is up (see `file/schema.py`). So setting the wall clock repeats no handler and expires no claim.
After a boot, all earlier leases and claims expire at once. `publish(delay=)` uses the wall clock,
and a retry is also due once the wall clock says so. All processes must have the same time since
boot: containers of one host have, those in a time namespace of their own have not.

A file of an older version gets the tables and columns that it lacks when it is opened. Programs of
that version that have it open continue to work.

Beside ``app.db`` there are SQLite's ``app.db-wal`` and ``app.db-shm``, and two files of anymq:
``app.db-lock``, which its processes lock while they write, and ``app.db-turn``, which reserves the
next turn, so that busy processes take turns. Up to SQLite 3.51.2, a commit at the wrong instant of
another process's checkpoint may corrupt the file (https://sqlite.org/wal.html#walresetbug). Another
program that writes with such a SQLite should leave the checkpoints to anymq:
``PRAGMA wal_autocheckpoint = 0``.
"""

from .connection import Database
from .driver import SqliteDriver
from .options import SqliteOptions
from .store import SqliteStore

__all__ = ["Database", "SqliteDriver", "SqliteOptions", "SqliteStore"]
