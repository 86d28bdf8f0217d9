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

_LUA = files("anymq_redis") / "lua"


class Script:
    """A script, called by its digest, or by its text where the server does not know it yet."""

    def __init__(self, *names: str) -> None:
        self._text = b"\n".join((_LUA / f"{name}.lua").read_bytes() for name in names)
        self._digest = hashlib.sha1(self._text, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[bytes], args: Sequence[bytes]) -> list[bytes]:
        """Return the command that runs it if the server knows it."""
        return [b"EVALSHA", self._digest, b"%d" % len(keys), *keys, *args]

    def source_call(self, keys: Sequence[bytes], args: Sequence[bytes]) -> list[bytes]:
        """Return the command that runs it in any case."""
        return [b"EVAL", self._text, b"%d" % len(keys), *keys, *args]


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

ABANDON = Script("abandon")
BEGIN = Script("begin")
COMPLETE = Script("complete")
RENEW = Script("renew")
