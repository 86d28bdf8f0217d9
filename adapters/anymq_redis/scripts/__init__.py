"""The Lua scripts: every step that must be atomic, or must look before it acts.

They take the server's own time, so that clocks of clients do not matter. Where a script settles,
it first checks that the entry is still pending for the consumer that asks: another member may have
claimed it meanwhile, and a settlement must never be applied to somebody else's delivery. That
costs the server 2.5 µs an entry over a bare XACK.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.resources import files

from ..client.codec import bulk

_LUA = files("anymq_redis.scripts")


class Verb:
    """A command that is no script: the server knows it in any case."""

    words = 1

    def __init__(self, name: bytes) -> None:
        self.by_digest = self.by_text = bulk([name])


class Script:
    """A script, called by its digest, or by its text where the server does not know it yet."""

    words = 2

    def __init__(self, *names: str) -> None:
        text = b"\n".join((_LUA / f"{name}.lua").read_bytes() for name in names)
        digest = hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        self.by_digest = bulk([b"EVALSHA", digest])
        self.by_text = bulk([b"EVAL", text])

    def call(self, keys: Sequence[bytes], args: Sequence[bytes]) -> Call:
        """Return it with its keys and arguments."""
        count = 1 + len(keys) + len(args)
        return Call(self, count, [bulk([b"%d" % len(keys), *keys, *args])])


class Call:
    """What to run, packed but for its name: `count` parameters in any number of `parts`."""

    __slots__ = ("_count", "_parts", "_script")

    def __init__(self, script: Script | Verb, count: int, parts: Sequence[bytes]) -> None:
        self._script = script
        self._count = count
        self._parts = parts

    def packed(self, *, with_text: bool = False) -> bytes:
        """Return the command; with the text of the script for a server that does not know it."""
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
PUT_BACK = Script("_clock", "_owned", "put_back")
REJECT = Script("_owned", "reject")

CLAIM = Script("claim")
LEAVE = Script("leave")
READ = Script("read")
TAKE = Script("_owned", "take")

SAVE = Script("save")

ATTEND = Script("_clock", "attend")
MOVE = Script("_clock", "move")
SWEEP = Script("_clock", "sweep")
TRIM = Script("_clock", "trim")

SET = Verb(b"SET")
ABANDON = Script("abandon")
BEGIN = Script("begin")
COMPLETE = Script("complete")
RENEW = Script("renew")
