"""Validation of anymq's own headers in messages that any publisher may have written.

A header does not prove its author. So the headers of copies are valid only in copies, which are
read where publishers do not write (`Received.published`). The headers of letters and redrives are
valid only in plausible combinations. A publisher that forges a whole combination then affects its
own message and no other.
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
"""The header of a redriven message with the number of the redrive."""

_LETTER = frozenset({TOPIC, GROUP, REASON, ATTEMPTS, FIRST_SEEN, FAILED_AT})


def only_group(headers: Mapping[str, str]) -> str | None:
    """Return the one group to which a message was redriven; None if all groups receive it.

    The header is valid only together with the number of the redrive.
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
    """Return `message`, received with `headers`, without forged headers of a failure.

    They are valid in a letter, which has all of them and names another topic. The history is valid
    in a redriven message as well.
    """
    found = [name for name in message.headers if name.lower().startswith(FAILURE)]
    if not found:
        return message
    if message.headers.keys() >= _LETTER and message.headers[TOPIC] != message.topic:
        return message
    kept = {name: value for name, value in message.headers.items() if name not in found}
    if number_of(headers.get(REDRIVEN)) and history_of(message.headers):
        kept[HISTORY] = message.headers[HISTORY]
    return replace(message, headers=MappingProxyType(kept))
