"""The trust in anymq's own headers, in a message that any publisher may have written.

Nothing proves who has written a header. So those of copies count only in copies, which come from
places where publishers do not write (`Received.published`). Those of letters and redrives count
only where they can be right: then a publisher who forges all that belongs together steers its own
message, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ..driver.specs import BROADCAST_ONLY, ONLY_GROUP
from ..errors import ConfigurationError
from ..message import Message
from ..names import check_group
from .dead_letter_headers import (
    ATTEMPTS,
    FAILED_AT,
    FAILURE,
    FIRST_SEEN,
    GROUP,
    HISTORY,
    REASON,
    TOPIC,
    history_of,
    number_of,
)

REDRIVEN = "anymq-redriven"
"""On a message that was put back: for which time."""

_LETTER = frozenset({TOPIC, GROUP, REASON, ATTEMPTS, FIRST_SEEN, FAILED_AT})


def only_group(headers: Mapping[str, str]) -> str | None:
    """Return the group that a message was put back for alone; None if it is for all.

    The header is on redriven messages, beside the number of the redrive, and nowhere else.
    """
    only = headers.get(ONLY_GROUP)
    if only is None or not number_of(headers.get(REDRIVEN)):
        return None
    if only != BROADCAST_ONLY:
        try:
            check_group(only)
        except ConfigurationError:
            return None
    return only


def without_forged(message: Message, headers: Mapping[str, str]) -> Message:
    """Return `message`, which came with `headers`, without what only letters say of a failure.

    A letter says all of it, and that it is of another topic. A redriven message has its history.
    """
    said = [name for name in message.headers if name.lower().startswith(FAILURE)]
    if not said:
        return message
    if message.headers.keys() >= _LETTER and message.headers[TOPIC] != message.topic:
        return message
    kept = {name: value for name, value in message.headers.items() if name not in said}
    if number_of(headers.get(REDRIVEN)) and history_of(message.headers):
        kept[HISTORY] = message.headers[HISTORY]
    return replace(message, headers=MappingProxyType(kept))
