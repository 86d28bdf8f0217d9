"""A reader of the code blocks of a page, and of what a comment before a block says about it.

`<!-- test: file app.py -->`: the block is the file `app.py`.
`<!-- test: output -->`: the block is what the block before it prints.
`<!-- test: skip reason -->`: the block is not tested, for this reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

WILDCARD = "…"

_FENCE = re.compile(r"( *)(`{3,}|~{3,})\s*([^`]*)")
_MARK = re.compile(r"\s*<!--\s*test:\s*(\S*)\s*(.*?)\s*-->\s*")
_VERBS = {"file": "a path", "output": "", "skip": "a reason"}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `line` is the number of its first line of text, counted from 1."""

    line: int
    language: str
    text: str
    verb: str = ""
    argument: str = ""


class BadPage(Exception):
    """The page cannot be tested as it is written; says in which line."""


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return list(_blocks(text))


def _blocks(text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), 1))
    mark: tuple[str, str] | None = None
    for number, line in lines:
        if found := _MARK.fullmatch(line):
            mark = _checked(number, found[1], found[2])
        elif "<!-- test:" in line:
            raise BadPage(f"line {number}: a mark stands on a line of its own")
        elif fence := _FENCE.fullmatch(line):
            verb, argument = mark or ("", "")
            language = fence[3].strip().partition(" ")[0].lower()
            body = _body(lines, number, fence[1], fence[2])
            yield Block(number + 1, language, body, verb, argument)
            mark = None
        elif mark is not None:
            raise BadPage(f"line {number}: after a mark comes its block")
    if mark is not None:
        raise BadPage("the last mark has no block")


def _checked(number: int, verb: str, argument: str) -> tuple[str, str]:
    if verb not in _VERBS:
        raise BadPage(f"line {number}: {verb!r} is none of {', '.join(_VERBS)}")
    if bool(argument) is not bool(_VERBS[verb]):
        raise BadPage(f"line {number}: {verb} takes {_VERBS[verb] or 'nothing more'}")
    return verb, argument


def _body(lines: Iterator[tuple[int, str]], start: int, indent: str, fence: str) -> str:
    body: list[str] = []
    for _, line in lines:
        closing = line.strip()
        if len(closing) >= len(fence) and set(closing) == {fence[0]}:
            return "".join(f"{each}\n" for each in body)
        body.append(line.removeprefix(indent))
    raise BadPage(f"line {start}: this block does not end")


@dataclass(frozen=True, slots=True)
class Command:
    """A line of a console block that begins with `$ `, and what the block shows below it."""

    line: int
    text: str
    output: str


def commands(block: Block) -> list[Command]:
    """Return the commands of a console block; a line that ends with a backslash goes on."""
    found: list[Command] = []
    goes_on = False
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append(Command(number, line[2:], ""))
        elif not found:
            raise BadPage(f"line {number}: a command begins with '$ '")
        elif goes_on:
            last = found.pop()
            found.append(Command(last.line, last.text + line, ""))
        else:
            last = found.pop()
            found.append(Command(last.line, last.text, f"{last.output}{line}\n"))
        last = found[-1]
        goes_on = last.text.endswith("\\") and not last.output
        if goes_on:
            found[-1] = Command(last.line, last.text[:-1], "")
    return found


def shows(expected: str, actual: str) -> bool:
    """Whether `expected` is what was printed.

    `…` stands for any part of a line, alone in its line for any number of lines. Spaces at the end
    of lines do not count.
    """
    pattern = "".join(
        r"(?:.*\n)*?"
        if line.strip() == WILDCARD
        else ".*".join(map(re.escape, line.rstrip().split(WILDCARD))) + r"\n"
        for line in expected.splitlines()
    )
    printed = "".join(f"{line.rstrip()}\n" for line in actual.splitlines())
    return re.fullmatch(pattern, printed) is not None
