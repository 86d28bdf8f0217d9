"""The ids by which brokers and stores tell messages apart: never ambiguous, whatever is in them.

A message is named by its source and id together. Parts are never joined by a separator that could
occur in one of them: they have a fixed length, or say their length first.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from functools import lru_cache
from hashlib import blake2b

_PLAIN = re.compile(r"[A-Za-z0-9._:/=+-]{1,80}")
"""Ids that every broker carries as they are."""


def joined(*parts: str | None) -> str:
    """Return `parts` as one text that no other parts give: each with its length before it."""
    return "".join(["-" if part is None else f"{len(part)}:{part}" for part in parts])


@lru_cache(maxsize=512)
def scope_of(source: str | None) -> str:
    """Return what the broker-level ids of all that `source` publishes begin with: 17 letters."""
    digest = blake2b((source or "anymq").encode(), digest_size=12).digest()
    return urlsafe_b64encode(digest).decode() + "."


def unique_id(scope: str, id: str) -> str:
    """Return the broker-level id of the message `id` of the source with this `scope`.

    For an id that is a UUID, this is both joined: a publisher in a hurry does that itself.
    """
    return scope + (id if _PLAIN.fullmatch(id) else f"~{_digest(id)}")


def copy_id(*parts: str | None) -> str:
    """Return the broker-level id of a copy that these `parts` name; no published message has it."""
    return f"~{_digest(joined(*parts))}"


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
