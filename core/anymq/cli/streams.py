"""Standard input and output, read and written without blocking the event loop.

A pipe whose other end is slow, for example a pager, then delays no lease and no heartbeat. Nothing
runs in a thread, so Ctrl-C ends a command that waits for either.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

READ_BYTES = 64 * 1024
WRITE_BYTES = 4096
"""The bytes that a pipe takes at once when it is writable: PIPE_BUF on Linux."""


class LineTooLong(Exception):
    """A line of standard input that is longer than the limit."""


async def input_lines(limit: int) -> AsyncIterator[bytes]:
    r"""Yield the lines of standard input without their ends, `\n` or `\r\n`, as they arrive.

    Raises `LineTooLong` for one of more than `limit` bytes.
    """
    begun = bytearray()
    while chunk := await _read():
        *lines, rest = chunk.split(b"\n")
        if len(begun) + len(lines[0] if lines else rest) > limit:
            raise LineTooLong
        for line in lines:
            yield (bytes(begun) + line if begun else line).removesuffix(b"\r")
            begun.clear()
        begun += rest
    if begun:
        yield bytes(begun)


async def input_bytes() -> bytes:
    """Return all of standard input."""
    chunks: list[bytes] = []
    while chunk := await _read():
        chunks.append(chunk)
    return b"".join(chunks)


async def _read() -> bytes:
    stream = sys.stdin.buffer
    try:
        descriptor = stream.fileno()
    except OSError:  # A test has replaced it.
        return stream.read(READ_BYTES)
    loop = asyncio.get_running_loop()
    await _ready(lambda call: loop.add_reader(descriptor, call), loop.remove_reader, descriptor)
    return os.read(descriptor, READ_BYTES)


class Writer:
    """Standard output, for commands that write while they consume."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor: int | None = None
        self._is_pipe = self._may_block = False
        try:
            descriptor = sys.stdout.fileno()
        except OSError:  # A test has replaced it.
            return
        self._descriptor = descriptor
        mode = os.fstat(descriptor).st_mode
        self._is_pipe = stat.S_ISFIFO(mode)
        self._may_block = self._is_pipe or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)

    async def write(self, data: bytes) -> None:
        """Return when standard output has taken `data`; raises `BrokenPipeError` if closed."""
        sys.stdout.flush()
        descriptor = self._descriptor
        if descriptor is None:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        left = memoryview(data)
        while left:
            if self._may_block and not select.select((), (descriptor,), (), 0)[1]:
                await self._until_writable(descriptor)
            part = left[:WRITE_BYTES] if self._may_block else left
            left = left[os.write(descriptor, part) :]

    async def while_read(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of `work`; cancel it when the reader of the pipe closes it.

        Raises `BrokenPipeError` then, also if `work` has nothing to write at that time.
        """
        if self._descriptor is None or not self._is_pipe:
            return await work
        running = asyncio.ensure_future(work)
        closed = asyncio.ensure_future(self._until_closed(self._descriptor))
        try:
            await asyncio.wait((running, closed), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            raise BrokenPipeError
        finally:
            closed.cancel()
            running.cancel()
            await asyncio.wait((running, closed))

    async def _until_closed(self, descriptor: int) -> None:
        # The writing end of a pipe becomes "readable" when the reading end is closed.
        loop = self._loop
        await _ready(lambda call: loop.add_reader(descriptor, call), loop.remove_reader, descriptor)

    async def _until_writable(self, descriptor: int) -> None:
        loop = self._loop
        await _ready(lambda call: loop.add_writer(descriptor, call), loop.remove_writer, descriptor)


async def _ready(
    add: Callable[[Callable[[], None]], None], remove: Callable[[int], object], descriptor: int
) -> None:
    """Return when `descriptor` is ready; at once for a file, which always is."""
    ready = asyncio.Event()
    try:
        add(ready.set)
    except PermissionError:
        return
    try:
        await ready.wait()
    finally:
        remove(descriptor)
