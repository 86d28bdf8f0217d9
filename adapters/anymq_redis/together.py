"""`Together`: scripts that many callers run at the same time go to the server in one exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from redis.exceptions import ConnectionError

from anymq.driver import fault, supervise

from .connection import Commands
from .scripts import Call

MOST = 500
"""How many scripts one exchange carries: their replies are read before the next one begins."""


class Together:
    """Runs scripts. What is asked for while an exchange is under way makes up the next one.

    So a lone caller waits for nobody, and a thousand callers cost a few round trips.
    """

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[Call, asyncio.Future[Any]]] = []
        self._task: asyncio.Task[None] | None = None

    async def eval(self, call: Call) -> Any:
        """Run one and return its reply; raises as `Commands.eval` does.

        A caller that is cancelled leaves it running.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((call, future))
        if self._task is None:
            self._task = supervise(self._run(), name="anymq-redis-together")
        return await future

    async def aclose(self) -> None:
        """Fail what has not been answered."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        left, self._waiting = self._waiting, []
        _answer(left, [_closed()] * len(left))

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            replies: Sequence[Any] = [_closed()] * len(batch)
            try:
                replies = await self._commands.evals([call for call, _ in batch])
            except BaseException as raw:
                replies = [fault(raw, "the client library")] * len(batch)
            finally:
                _answer(batch, replies)
        self._task = None


def _closed() -> ConnectionError:
    return ConnectionError("the store was closed")


def _answer(batch: Sequence[tuple[Call, asyncio.Future[Any]]], replies: Sequence[Any]) -> None:
    for (_, future), reply in zip(batch, replies, strict=True):
        if future.done():
            continue
        if isinstance(reply, Exception):
            future.set_exception(reply)
        else:
            future.set_result(reply)
