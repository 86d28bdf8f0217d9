"""The unambiguous ids by which brokers and stores identify messages.

A message is identified by its source and id together. Parts are never joined by a separator that
could occur in one of them. Instead they have a fixed length, or a length prefix.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import blake2b

_PLAIN = re.compile(r"[A-Za-z0-9._:/=+-]{1,80}")
"""Ids that every broker stores unchanged."""


def joined(*parts: str | None) -> str:
    """Return `parts` as one text that is unique to them, because each has a length prefix."""
    return "".join(["-" if part is None else f"{len(part)}:{part}" for part in parts])


@lru_cache(maxsize=512)
def scope_of(source: str | None) -> str:
    """Return the prefix of the broker-level ids of all messages of `source`: 17 characters."""
    digest = blake2b((source or "anymq").encode(), digest_size=12).digest()
    return urlsafe_b64encode(digest).decode() + "."


def unique_id(scope: str, id: str) -> str:
    """Return the broker-level id of the message `id` of the source with this `scope`.

    For a UUID this is `scope + id`. Publishing computes that inline, to save the call.
    """
    return scope + (id if _PLAIN.fullmatch(id) else f"~{_digest(id)}")


def copy_id(*parts: str | None) -> str:
    """Return the broker-level id of the copy that `parts` identify; no published message has it."""
    return f"~{_digest(joined(*parts))}"


def derived_id(*parts: str | None) -> str:
    """Return the id of a message that follows from `parts`: a UUIDv8 (RFC 9562 §5.8)."""
    text = joined(*parts).encode(errors="surrogatepass")
    digest = bytearray(blake2b(text, digest_size=16).digest())
    digest[6] = 0x80 | (digest[6] & 0x0F)
    digest[8] = 0x80 | (digest[8] & 0x3F)
    found = digest.hex()
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
