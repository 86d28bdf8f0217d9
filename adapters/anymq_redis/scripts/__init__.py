"""The Lua scripts: every step that must be atomic, or must check before it acts.

Scripts use the server's time, so the clients' clocks do not matter. A script that settles first
checks that the entry is still pending for the calling consumer. Another member may have claimed
it meanwhile, and a settlement must never apply to another member's delivery. The check costs the
server 2.5 µs an entry more than a bare XACK.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files

from ..client.codec import bulk

_FOLDER = files("anymq_redis.scripts")


class Command:
    """A command of the server, called as a script is."""

    words = 1

    def __init__(self, name: bytes) -> None:
        self.by_digest = self.by_text = bulk([name])


class Script:
    """A script, called by its digest, or by its text if the server does not know the digest."""

    words = 2

    def __init__(self, *names: str) -> None:
        text = b"\n".join((_FOLDER / f"{name}.lua").read_bytes() for name in names)
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.by_digest = bulk([b"EVALSHA", digest])
        self.by_text = bulk([b"EVAL", text])

    def call(self, keys: Sequence[bytes], args: Sequence[bytes]) -> Call:
        """Return a call of the script with keys and arguments."""
        count = 1 + len(keys) + len(args)
        return Call(self, count, [bulk([b"%d" % len(keys), *keys, *args])])


class Call:
    """A call of a script or command: `count` packed parameters, in any number of `parts`."""

    __slots__ = ("_count", "_parts", "_script")

    def __init__(self, script: Script | Command, count: int, parts: Sequence[bytes]) -> None:
        self._script = script
        self._count = count
        self._parts = parts

    def packed(self, *, with_text: bool = False) -> bytes:
        """Return the packed call, with the script's digest or, `with_text`, its text."""
        script = self._script
        name = script.by_text if with_text else script.by_digest
        return b"".join((b"*%d\r\n" % (script.words + self._count), name, *self._parts))


DECLARE = Script("declare")
JOIN = Script("_group", "join")
JOIN_ORDERED = Script("_group", "join_ordered")
REMOVE_GROUP = Script("_clock", "_group", "_members", "remove_group")
PURGE = Script("purge")
COUNT = Script("count")
POISON = Script("poison")

PUBLISH = Script("_clock", "publish")
RESOLVE = Script("resolve")

ACK = Script("_owned", "ack")
BEGIN_HANDLING = Script("_owned", "begin_handling")
EXTEND = Script("_owned", "extend")
HAND_OVER = Script("_owned", "hand_over")
NACK = Script("_clock", "_owned", "nack")
REJECT = Script("_owned", "reject")

CLAIM = Script("claim")
LEAVE = Script("leave")
READ = Script("read")
TAKE = Script("_owned", "take")

SAVE = Script("save")

HEARTBEAT = Script("_clock", "heartbeat")
MOVE = Script("_clock", "move")
SWEEP = Script("_clock", "sweep")
TRIM = Script("_clock", "trim")

SET = Command(b"SET")
ABANDON = Script("abandon")
BEGIN = Script("begin")
COMPLETE = Script("complete")
RENEW = Script("renew")
