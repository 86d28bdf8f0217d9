"""`python -m benchmarks.speed.check`: check that no contestant loses messages.

It measures no speed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from brokers import server

from .contestant import BenchTopic, Contestant
from .contestants import BACKENDS, contestants
from .contestants.anymq import STORE_VARIABLE
from .contestants.native import Native, natives
from .event_loop import loop_factory
from .payload import Bodies, head_of

MESSAGES = 2000
SIZE = 256
TIMEOUT = 120.0
"""Seconds."""
TASKS = 64
NATIVE_TIMEOUT = 20.0
"""Seconds."""


async def check(
    kind: type[Contestant], url: str, messages: int = MESSAGES, *, typed: bool = False
) -> Counter[int]:
    """Publish and consume `messages` messages; return how often each one was handled.

    The first half is published one by one from many tasks, the second half in one call. Raises
    `TimeoutError` if not all are handled within `TIMEOUT` seconds.
    """
    topic = f"check-{kind.backend}-{token_hex(6)}"
    contestant = kind(BenchTopic(url=url, name=topic))
    bodies = Bodies(1, SIZE, typed=typed)
    handled: Counter[int] = Counter()

    def handle(body: bytes) -> None:
        handled[head_of(body, typed=typed)[1]] += 1

    async with asyncio.timeout(TIMEOUT):
        await contestant.prepare()
        async with contestant.publishing() as publishing:
            single = iter(bodies.items(0, messages // 2))

            async def some() -> None:
                for item in single:
                    await publishing.one(item)

            await asyncio.gather(*[some() for _ in range(TASKS)])
            await publishing.many(bodies.items(messages // 2, messages - messages // 2))
            await contestant.consume(handle, lambda: len(handled) == messages, typed=typed)
    return handled


async def check_native(tool: Native, url: str, messages: int = MESSAGES) -> tuple[int, str]:
    """Publish and consume with a broker's own tool; return the messages lost and a report.

    The tool's published messages are counted on a second topic, by the raw client. The report
    contains the rates printed by the tool.
    """
    (counter,) = (one for one in contestants(tool.backend) if one.name == "raw best")
    consumed_topic, counted = (BenchTopic(url=url, name=f"check-{token_hex(6)}") for _ in range(2))
    came = 0

    def handle(body: bytes) -> None:
        nonlocal came
        came += len(body) == SIZE

    async with asyncio.timeout(TIMEOUT):
        for topic in (consumed_topic, counted):
            await tool.prepare(topic)
        published = await tool.publish(consumed_topic, count=messages, size=SIZE)
        consumed = await tool.consume(consumed_topic, count=messages)
        await tool.publish(counted, count=messages, size=SIZE)
        counting = counter(counted).consume(handle, lambda: came >= messages, typed=False)
        with suppress(TimeoutError):
            await asyncio.wait_for(counting, NATIVE_TIMEOUT)
    return messages - came, f"reported {published} and {consumed} messages/s"


def url_of(backend: str, folder: Path, instance: str = "bench") -> str:
    """Start the backend's server, if it has one, and return the URL."""
    if backend == "memory":
        return "memory://check"
    if backend == "sqlite":
        return f"sqlite:///{folder}/check.db"
    started = server(backend, instance)
    started.up()
    return started.url


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the contestants; return 1 if one failed or lost a message."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.check", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, action="append")
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--contestant", help="check only this contestant")
    parser.add_argument("--instance", default="bench", help="instance of the servers (bench)")
    options = parser.parse_args(arguments)
    code = 0
    with TemporaryDirectory() as folder:
        for backend in options.backend or BACKENDS:
            url = url_of(backend, Path(folder), options.instance)
            store = url_of("redis", Path(folder), options.instance)
            os.environ.setdefault(STORE_VARIABLE, store)
            for kind in contestants(backend):
                if options.contestant in (None, kind.name):
                    code |= _report(kind, url, options.messages)
            for tool in natives(backend):
                if options.contestant in (None, tool.name):
                    code |= _report_native(tool, url, options.messages)
    return code


def _report(kind: type[Contestant], url: str, messages: int) -> int:
    label = f"{kind.backend:9} {kind.name:24}"
    if reason := kind.missing():
        print(f"{label} not here: needs {reason}")
        return 0
    code = 0
    for typed in (False, True) if "typed" in kind.can else (False,):
        begun = time.monotonic()
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                handled = runner.run(check(kind, url, messages, typed=typed))
        except Exception as error:
            print(f"{label} failed: {error!r}")
            return 1
        lost = sum(1 for number in range(messages) if not handled[number])
        more = sum(handled.values()) - messages + lost
        words = "typed" if typed else "bytes"
        spent = time.monotonic() - begun
        print(f"{label} {words}: {lost} of {messages} lost, {more} repeated; {spent:.1f} s")
        code |= bool(lost)
    return code


def _report_native(kind: type[Native], url: str, messages: int) -> int:
    label = f"{kind.backend:9} {kind.name:24}"
    if reason := kind.missing():
        print(f"{label} not here: needs {reason}")
        return 0
    tool = kind()
    try:
        tool.install()
        lost, told = asyncio.run(check_native(tool, url, messages))
    except Exception as error:
        print(f"{label} failed: {error!r}")
        return 1
    print(f"{label} tool : {lost} of {messages} lost; {told}")
    return int(lost > 0)


if __name__ == "__main__":
    sys.exit(main())
