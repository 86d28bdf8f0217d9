"""`LetterFilter`: dead letters selected by their failure, their id and their key."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from ..driver.clock import aware
from ..errors import ConfigurationError
from .letter import Letter


@dataclass(frozen=True, kw_only=True)
class LetterFilter:
    """A condition on letters, for `where=`: all that is given must hold.

    `reason` is a part of the reason, in upper or lower case; with `*` for any text it is the whole
    reason. `error_type` is the class of the exception, with or without its module: `ValueError`,
    `shop.errors.BankDown`, `shop.*`. `since` is the earliest time of the failure, with a zone.
    `ids` are message ids or positions of letters, `keys` message keys: one must be the letter's.
    """

    reason: str | None = None
    error_type: str | None = None
    since: datetime | None = None
    ids: Collection[str] = ()
    keys: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.since is not None and self.since.tzinfo is None:
            raise ConfigurationError("since is a datetime with a time zone")

    def __call__(self, letter: Letter) -> bool:
        """Whether `letter` is selected."""
        return (
            (not self.ids or letter.message.id in self.ids or letter.position in self.ids)
            and (not self.keys or letter.message.key in self.keys)
            and (self.since is None or _failed_since(letter, self.since))
            and (self.reason is None or _has_reason(letter, self.reason))
            and (self.error_type is None or _has_error_type(letter, self.error_type))
        )

    @property
    def selects_all(self) -> bool:
        """Whether it selects every letter, because nothing is given."""
        texts = (self.reason, self.error_type, self.since)
        return texts == (None, None, None) and not self.ids and not self.keys


def _failed_since(letter: Letter, since: datetime) -> bool:
    return letter.failed_at is not None and aware(letter.failed_at) >= since


def _has_reason(letter: Letter, wanted: str) -> bool:
    reason, wanted = (letter.reason or "").casefold(), wanted.casefold()
    return _matches(reason, wanted) if "*" in wanted else wanted in reason


def _has_error_type(letter: Letter, wanted: str) -> bool:
    whole = letter.error_type or ""
    return _matches(whole, wanted) or _matches(whole.rpartition(".")[2], wanted)


def _matches(text: str, pattern: str) -> bool:
    parts = map(re.escape, pattern.split("*"))
    return re.fullmatch(".*".join(parts), text, re.DOTALL) is not None
