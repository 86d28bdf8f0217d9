"""What the core gets to see of a message."""

from __future__ import annotations

from typing import Any

from nats.aio.msg import Msg

from anymq.driver import Received

from .client import GuardedClient
from .pull import Raw
from .wire import Place, parse_headers


def received(
    raw: Raw, place: Place, client: GuardedClient, *, token: Any = None, redeliveries: int = 0
) -> Received:
    """Return `raw` as the core wants it; `native` is nats-py's own message."""
    headers = parse_headers(raw.block) if raw.block else {}
    return Received(
        raw.body,
        headers,
        position=str(place.stream_sequence),
        token=token,
        native=Msg(client, raw.subject.decode(), raw.reply.decode(), raw.body, headers),
        time=place.time,
        redeliveries=redeliveries,
    )
