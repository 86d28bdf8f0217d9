"""The SQLite backend: a durable broker in one file, shared by the processes of one host.

It needs no server and nothing but the standard library. It is also the worked example for adapter
authors: every file has the name and the task it has in the other adapters.

URLs and options
----------------
``sqlite:///relative.db`` (three slashes), ``sqlite:////absolute/path.db`` (four). The file is made
when it does not exist, readable by its owner only; its directory must exist. There is no private
in-memory form: that is ``memory://``. The options are the fields of `SqliteOptions`.

Native names
------------
Topic ``orders`` is the row ``orders`` of the table ``topics``; group ``billing`` on it is the row
``orders.billing`` of ``groups``. `schema.py` shows all tables. Any program may publish with plain
SQL::

    INSERT INTO messages (topic, body) SELECT id, 'hello' FROM topics WHERE name = 'orders'

In a topic of several partitions it sets ``part``, too: an ordered group does not see it otherwise.

``Broker.native`` is the `Database`: ``await broker.native.read(job)`` and ``write(job)`` call
``job(connection)`` in the thread that owns the `sqlite3.Connection`, ``write`` in a transaction.
``Delivery.native`` is the message's ``seq``, an int.

Delivery semantics
------------------
- publish: all records of a call are stored in one transaction; the call returns when it is
  committed and, with ``synchronous=FULL`` (the default), forced to disk. A repeated publish (the
  same ``Record.unique`` in the same topic) is stored once for as long as the first is kept.
- subscribe: a group is a row with a cursor into the log. What its members have taken, or given
  back, are rows of ``pending`` with the time from which they may be taken (again): the end of the
  lease, or of the delay. Taking is one transaction: due rows first, then new messages.
- ack deletes the pending row. nack, release and extend set its time; reject deletes it and stores
  the dead letter in the same transaction. Every take and every return changes the row's fence, and
  a settlement must show the current one: a stale one changes nothing.
- takes, extensions and acks are committed without waiting for the disk: a power cut may undo the
  last of them, and those messages come again. The end of a process undoes nothing. Everything else
  is forced, and with it what came before.
- attempts are counted in the row when it is taken, so deliveries whose consumer died count too.
- delay: what is not due is a row of ``delayed``. Whoever publishes to the topic or reads it when it
  is due moves it into the log, in one transaction; until somebody does, nobody misses it. The order
  is that of the times at which they are due, and `Received.time` is that time.
- partitions: a column of the message. Ordered groups read one partition at a time from the log, and
  keep their places and leases in the rows of ``cells``; other groups do not care.
- retention: sweeps delete what is older, or, oldest first, what is more than ``retention_bytes`` of
  bodies; never what a group of the topic has not settled, nor what is delayed.
- broadcast: the reader's place is kept in its own memory.
- members are rows, believed for 15 s after they were last heard of: that long a member that was
  killed keeps others from `seek` and `delete_group`.
- wake-up: a commit of the same `Driver` wakes its sources at once. Commits of others are noticed
  within milliseconds: the kernel reports writes to the log (inotify, on Linux) and
  ``PRAGMA data_version`` says whether there is something new; elsewhere it is read every ``poll``
  seconds.

Limits
------
One host: SQLite's write-ahead log works through shared memory, so the file must not be on a network
file system. One writer at a time: all transactions are short and batches bounded, so that processes
take turns; a call that waits for longer than ``busy_timeout`` fails with `Throttled`. The file
does not shrink, its space is used again.

Time: leases, claims and retries go by a clock of the file's own, which is not set while the host
is up (see `clock`): setting the wall clock repeats no handler and ends no claim. After a boot the
leases and claims of before are over at once. `publish(delay=)` goes by the wall clock, and a retry
is also due once that says so. All processes must have the same time since boot: containers of one
host have, those in a time namespace of their own have not.

A file of an older version gets the tables and columns it lacks when it is opened; programs of that
version that have it open go on.

Beside ``app.db`` there are SQLite's ``app.db-wal`` and ``app.db-shm``, and ``app.db-lock``, which
anymq's processes hold while they write, and ``app.db-turn``, which says who is next, so that busy
processes take turns. Up to SQLite 3.51.2, a commit at the wrong instant of
another process's checkpoint may corrupt the file (https://sqlite.org/wal.html#walresetbug). Another
program that writes with such a SQLite should leave the checkpoints to anymq:
``PRAGMA wal_autocheckpoint = 0``.
"""

from .connection import Database
from .driver import SqliteDriver
from .options import SqliteOptions
from .store import SqliteStore

__all__ = ["Database", "SqliteDriver", "SqliteOptions", "SqliteStore"]
