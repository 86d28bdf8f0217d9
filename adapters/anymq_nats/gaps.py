"""What retention has taken from a group that comes back."""

from __future__ import annotations

import nats.errors
import nats.js.errors

from anymq.driver import logger

from .connection import Link
from .groups import Consumer

_log = logger("anymq.nats")


async def tell_gap(link: Link, consumer: Consumer) -> None:
    """Say what of the stream was deleted before the group had read it.

    The server passes over it without a word. Some of it may have been copies for other groups.
    What is deleted while members of the group read cannot be told from what they have read.
    """
    stream, done = consumer.stream, consumer.done
    if not done:
        return
    try:
        oldest = int((await link.api(f"STREAM.INFO.{stream.name}"))["state"]["first_seq"])
    except (nats.errors.Error, nats.js.errors.Error) as error:
        _log.debug("what was deleted before %s read it is not known: %r", consumer.name, error)
        return
    if done + 1 < oldest:
        _log.warning(
            "messages of %s may have been deleted by retention before the group %s "
            "had read them: the sequences %d to %d are gone",
            stream.subject,
            consumer.name,
            done + 1,
            oldest - 1,
        )
