"""`anymq dlq edit`: one dead letter's body is edited, and the message redriven."""

from __future__ import annotations

import asyncio
import json
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ..errors import AnymqError
from ..logs import shown
from ..operating.letter import Letter
from ..topic import BROADCAST
from .common import DEFAULT, Common
from .editor import edited
from .failures import CommandError, UsageError
from .letters import ANYWHERE, Place, letters_with
from .streams import input_bytes
from .values import STANDARD_INPUT, InputFile


async def edit(
    id: str,
    /,
    *,
    body: Annotated[InputFile | None, Parameter(name=("--body", "-b"))] = None,
    place: Place = ANYWHERE,
    common: Common = DEFAULT,
) -> None:
    """Edit the body of a dead letter in $VISUAL or $EDITOR, and redrive the edited message.

    Id, key, type and headers stay. The letter stays among the dead letters until the broker has
    confirmed the edited message. Nothing is redriven if the body is saved unchanged, or if it was
    JSON and is not any more. JSON: kind `edited`: id, topic, group, and redriven, which is false if
    nothing was changed.

    Parameters
    ----------
    id
        The message's id, or the position of the letter.
    body
        The file with the new body, or `-` for standard input, instead of the editor.
    """
    letter = await _the_letter(id, place, common)
    new, draft = await _new_body(letter, body)
    if new == letter.message.body:
        _report(letter, False, common)
        return
    try:
        _check_json(letter, new)
        await _redrive(letter, new, common)
    except (AnymqError, CommandError, asyncio.CancelledError) as error:
        if draft is None:
            raise
        if isinstance(error, asyncio.CancelledError):
            common.output.note(f"your text is in {draft}")
            raise
        hint = f"your text is in {draft}: anymq dlq edit {shlex.quote(id)} --body {draft}"
        raise CommandError(str(error), hint=hint) from error
    if draft is not None:
        draft.unlink()
    _report(letter, True, common)


async def _the_letter(id: str, place: Place, common: Common) -> Letter:
    async with common.connect() as broker:
        found = [letter for _, letter in await letters_with(broker, id, place)]
    if len(found) > 1:
        where = [f"{letter.position} in {letter.message.topic}" for letter in found]
        raise UsageError(
            f"{len(found)} dead letters have the id {id!r}: {', '.join(where)}",
            hint="give the position of one, with --topic and --group",
        )
    return found[0]


async def _new_body(letter: Letter, source: str | None) -> tuple[bytes, Path | None]:
    """Return the new body, and the file of the editor that has it."""
    if source == STANDARD_INPUT:
        return await input_bytes(), None
    if source is not None:
        return _content(Path(source)), None
    old = letter.message.body
    try:
        readable = _readable(letter, old.decode())
    except UnicodeDecodeError as error:
        raise UsageError("the body is no text; give a new one with --body FILE") from error
    text, draft = edited(readable, suffix=".json" if _is_json(letter) else ".txt")
    if text != readable:
        return text.encode(), draft
    draft.unlink()
    return old, None


def _content(file: Path) -> bytes:
    return file.read_bytes()


def _readable(letter: Letter, text: str) -> str:
    """Return JSON with indentation if nothing but spaces differs from `text`."""
    with suppress(ValueError, RecursionError):
        value = json.loads(text) if _is_json(letter) else None
        for separators in ((",", ":"), (", ", ": ")):
            if text == json.dumps(value, ensure_ascii=False, separators=separators):
                return json.dumps(value, ensure_ascii=False, indent=2)
    return text


def _is_json(letter: Letter) -> bool:
    kind = (letter.message.content_type or "").partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def _check_json(letter: Letter, body: bytes) -> None:
    if not _is_json(letter):
        return
    try:
        json.loads(body)
    except (ValueError, RecursionError) as error:
        text = f"the new body is not JSON, as its content type says: {error}"
        raise CommandError(f"{text}; nothing was redriven") from error


async def _redrive(letter: Letter, body: bytes, common: Common) -> None:
    async with common.connect() as broker:
        letters = broker.admin.dead_letters(
            letter.topic, letter.group, stored_in=letter.message.topic
        )
        # By its position, so that it is not redriven if it has been settled meanwhile.
        kind = letter.message.content_type
        await letters.redrive_edited(letter.position, body, content_type=kind)


def _report(letter: Letter, redriven: bool, common: Common) -> None:
    message = letter.message
    data = {"id": message.id, "topic": letter.topic, "group": letter.group, "redriven": redriven}
    group = letter.group or BROADCAST
    text = f"redriven, edited: {shown(message.id)} to {letter.topic} ({group})"
    common.output.result("edited", data, text if redriven else None)
    if not redriven:
        common.output.note("the body is unchanged; nothing was redriven")
