"""`anymq dlq export` and `anymq dlq import`: dead letters as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any

from cyclopts import Parameter

from ..broker import Broker
from ..errors import ConfigurationError
from ..operating.dead_letters import DeadLetters, Progress
from ..operating.letter import Letter
from .common import DEFAULT, Common, Flag
from .impact import plural
from .letters import ALL, GroupName, Selection, TopicName, select
from .output import envelope
from .settling import Chosen, Settling
from .streams import Writer, input_lines
from .values import STANDARD_INPUT, InputFile

KIND = "dead-letter"
LONGEST_LINE = 1 << 30
"""The most bytes of a line of standard input: more than any broker stores in a message."""


async def export(
    topic: TopicName = None,
    group: GroupName = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    selection: Selection = ALL,
    common: Common = DEFAULT,
) -> None:
    """Write dead letters as lines of JSON, which `dlq import` reads back; they stay where they are.

    A line has everything of the letter: id, key, type, headers, body (`body_base64` if it is no
    text), topic, group, reason, error, times. With --json each line is an envelope of kind
    `dead-letter`; with --output there is one of kind `exported` with the number of letters.

    Parameters
    ----------
    output
        The file to write to instead of standard output. It is replaced when all are written.
    """
    count = 0
    selection = selection.at(topic, group)
    async with common.connect() as broker:
        letters = select(await selection.find(broker), selection.where)
        if output is None:
            writer = Writer()
            async for _, letter in letters:
                data = letter.as_dict()
                line = envelope(KIND, data) if common.json else _line(data)
                await writer.write(f"{line}\n".encode())
                count += 1
        else:
            with common.output.progress("exporting", None) as bar, _replacing(output) as file:
                async for _, letter in letters:
                    file.write(f"{_line(letter.as_dict())}\n")
                    bar.advance(bar.task_ids[0])
                    count += 1
    text = f"exported {plural(count, 'letter')}"
    if output is None:
        common.output.note(text)
    else:
        result = {"letters": count, "file": str(output)}
        common.output.result("exported", result, f"{text} to {output}")


async def import_(
    file: InputFile = STANDARD_INPUT,
    /,
    *,
    dry_run: Annotated[Flag, Parameter(name="--dry-run")] = False,
    common: Common = DEFAULT,
) -> None:
    """Store dead letters that `dlq export` wrote, on the same or another broker.

    Nothing is stored unless every line is a letter. A letter that is among the dead letters
    already, by id, body and time of failure, is not stored again: an import that failed or was
    interrupted can be repeated. A letter that was redriven or dropped since is. JSON: kind
    `imported`: letters (the number stored), present (those that were there), dry_run, and kinds, as
    `dlq ls` has them.

    Parameters
    ----------
    file
        The file, or `-` for standard input.
    dry_run
        Count what would be stored, and store nothing.
    """
    if file == STANDARD_INPUT and sys.stdin.isatty():
        common.output.note("reads letters from standard input, one a line; Ctrl-D ends them")
    letters = [letter async for letter in _letters(file)]
    async with common.connect() as broker:
        chosen = await _missing(broker, letters)
        settling = Settling("imported", "importing", chosen, common.output)
        if not dry_run:
            await settling.run(_restore)
    present = len(letters) - chosen.tally.total
    settling.report(dry_run=dry_run, present=present)
    if present:
        common.output.note(f"{plural(present, 'letter')} left out, because they are there already")


async def _restore(source: DeadLetters, letters: list[Letter], progress: Progress) -> int:
    return await source.restore(letters, progress=progress)


async def _missing(broker: Broker, letters: list[Letter]) -> Chosen:
    """Return the letters that are not there, by group."""
    by_group: dict[tuple[str, str | None, str], list[Letter]] = {}
    for letter in letters:
        place = letter.topic, letter.group, letter.message.topic
        by_group.setdefault(place, []).append(letter)
    chosen = Chosen()
    for (topic, group, stored_in), its_letters in by_group.items():
        source = broker.admin.dead_letters(topic, group, stored_in=stored_in)
        for letter in await source.missing(its_letters):
            chosen.add(source, letter)
    return chosen


async def _letters(file: str) -> AsyncIterator[Letter]:
    number = 0
    async for line in _lines(file):
        number += 1
        if line.strip():
            try:
                yield _letter(line)
            except ConfigurationError as error:
                name = "standard input" if file == STANDARD_INPUT else file
                raise ConfigurationError(f"{name}, line {number}: {error}") from error


async def _lines(file: str) -> AsyncIterator[bytes]:
    if file == STANDARD_INPUT:
        async for line in input_lines(LONGEST_LINE):
            yield line
    else:
        for line in _file_lines(file):
            yield line


def _file_lines(file: str) -> Iterator[bytes]:
    with open(file, "rb") as stream:
        yield from stream


def _letter(line: bytes) -> Letter:
    """Return the letter in a line, which may be an envelope."""
    try:
        data = json.loads(line)
    except UnicodeDecodeError as error:
        raise ConfigurationError("not a text in UTF-8") from error
    except RecursionError as error:
        raise ConfigurationError("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(f"not JSON: {error.msg} (column {error.colno})") from error
    if isinstance(data, dict) and data.keys() == {"anymq", "kind", "data"}:
        if data["kind"] != KIND:
            raise ConfigurationError(f"a result of the kind {data['kind']!r}, not {KIND!r}")
        data = data["data"]
    return Letter.from_dict(data)


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False)


@contextmanager
def _replacing(file: Path) -> Iterator[IO[str]]:
    """Open a file, readable by this user alone, that takes the place of `file` when it is whole."""
    descriptor, path = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(path, file)
    except BaseException:
        os.unlink(path)
        raise
