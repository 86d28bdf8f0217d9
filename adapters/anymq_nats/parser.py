"""nats-py's parser, which also notes when the server was last heard."""

from __future__ import annotations

from time import monotonic
from typing import Any

from nats.protocol.parser import Parser


class HearingParser(Parser):
    """`heard` is when the last bytes came (monotonic)."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.heard = monotonic()

    async def parse(self, data: bytes = b"") -> None:
        self.heard = monotonic()
        await super().parse(data)
