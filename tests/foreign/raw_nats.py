"""A NATS JetStream publisher over nats-py, with its own header blocks, as nats-py cleans them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.foreign.raw import DUPLICATE, STORED, Foreign, Raw

WINDOW = 200
"""The most messages that await their confirmations."""


class RawNats(Raw):
    backend = "nats"
    prefix = "ce-"

    async def open(self) -> None:
        self._client = Client()
        await self._client.connect(self.url)
        self._inbox = self._client.new_inbox()
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._number = 0
        await self._client.subscribe(f"{self._inbox}.*", cb=self._answered)

    async def close(self) -> None:
        await self._client.close()

    async def publish(self, topic: str, messages: Sequence[Foreign]) -> list[str]:
        outcomes: list[str] = []
        for start in range(0, len(messages), WINDOW):
            waiting = [self._send(topic, item) for item in messages[start : start + WINDOW]]
            await self._client._flush_pending(force_flush=True)
            async with asyncio.timeout(60):
                outcomes += await asyncio.gather(*waiting)
        return outcomes

    def _send(self, subject: str, message: Foreign) -> asyncio.Future[str]:
        self._number += 1
        answer = asyncio.get_running_loop().create_future()
        self._answers[str(self._number)] = answer
        head, body = message.block or _block(message.headers), message.body or b""
        if len(head) + len(body) > self._client.max_payload:
            # The server would close the connection.
            self._answers.pop(str(self._number)).set_result("larger than max_payload")
            return answer
        command = f"HPUB {subject} {self._inbox}.{self._number} {len(head)} {len(head + body)}\r\n"
        self._client._pending.append(command.encode() + head + body + b"\r\n")
        self._client._pending_data_size += len(head) + len(body)
        return answer

    async def _answered(self, message: Msg) -> None:
        reply: dict[str, Any] = json.loads(message.data) if message.data else {"error": "none"}
        answer = self._answers.pop(message.subject.rpartition(".")[2])
        if error := reply.get("error"):
            answer.set_result(str(error))
        else:
            answer.set_result(DUPLICATE if reply.get("duplicate") else STORED)


def _block(headers: Sequence[tuple[str, bytes]]) -> bytes:
    lines = [b"%b: %b\r\n" % (name.encode(), value) for name, value in headers]
    return b"NATS/1.0\r\n" + b"".join(lines) + b"\r\n"
