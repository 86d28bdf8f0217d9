"""`anymq dlq`: dead letters are listed, shown, redriven and dropped."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter, validators

from ..operating.letter import Letter
from ..topic import BROADCAST
from ..wire.dead_letter_headers import FAILURE
from .common import DEFAULT, Common, Flag
from .dlq_edit import edit
from .dlq_transfer import export, import_
from .impact import plural, require_yes
from .letters import (
    ALL,
    ANYWHERE,
    GroupName,
    Place,
    Selection,
    Tally,
    TopicName,
    cut,
    letters_with,
    select,
    when,
)
from .output import Output, lines_shown, size
from .settling import Chosen, Settling
from .values import Rate

app = App(name="dlq", help="Dead letters: list, show, redrive, edit, drop, export and import.")
app.command(edit)
app.command(export)
app.command(import_, name="import")

Max = Annotated[int | None, Parameter(name="--max", validator=validators.Number(gte=1))]
DryRun = Annotated[Flag, Parameter(name="--dry-run")]
CONTENT = ("body", "body_base64", "headers", "history", "traceback")
"""The parts of a letter that a list of letters leaves out."""


@app.command
async def ls(
    topic: TopicName = None,
    group: GroupName = None,
    /,
    *,
    limit: Annotated[int, Parameter(name="--max", validator=validators.Number(gte=0))] = 20,
    selection: Selection = ALL,
    common: Common = DEFAULT,
) -> None:
    """Count dead letters by topic, group, error type and reason; then list the oldest.

    JSON: kind `dead-letters`: total, kinds (the counts), and letters as `dlq show` has them,
    without body, headers, traceback and history, but with the size of the body in bytes.

    Parameters
    ----------
    limit
        The most letters to list after the counts; 0 for the counts alone.
    """
    tally, listed = Tally(), list[Letter]()
    selection = selection.at(topic, group)
    async with common.connect() as broker:
        async for _, letter in select(await selection.find(broker), selection.where):
            tally.add(letter)
            if len(listed) < limit:
                listed.append(letter)
    output = common.output
    if output.as_json:
        letters = [_summary(letter) for letter in listed]
        data = {"total": tally.total, "kinds": tally.as_list(), "letters": letters}
        output.result("dead-letters", data)
        return
    tally.write(output)
    if listed:
        output.write("")
        _write_letters(output, listed)
    if hidden := tally.total - len(listed):
        output.note(f"{plural(hidden, 'letter')} not listed: --max lists more, filters fewer")


@app.command
async def show(id: str, /, *, place: Place = ANYWHERE, common: Common = DEFAULT) -> None:
    """Show a dead letter: the message, how it failed, and the traceback.

    JSON: an envelope of kind `dead-letter` for each letter with this id, as `dlq export` writes it.

    Parameters
    ----------
    id
        The message's id, or the position of the letter.
    """
    async with common.connect() as broker:
        found = await letters_with(broker, id, place)
    for number, (_, letter) in enumerate(found):
        if number and not common.output.as_json:
            common.output.write("")
        _write_letter(common.output, letter)


@app.command
async def redrive(
    topic: TopicName = None,
    group: GroupName = None,
    /,
    *,
    limit: Max = None,
    rate: Rate | None = None,
    dry_run: DryRun = False,
    yes: Flag = False,
    selection: Selection = ALL,
    common: Common = DEFAULT,
) -> None:
    """Redrive dead letters to their groups, unchanged: each is handled again, as a first attempt.

    A letter leaves the dead letters when the broker has confirmed its copy. Ctrl-C leaves each
    either there or redriven. Without a filter, and without --max for a part of them, it says how
    many it would redrive, and wants --yes. Letters without their body or headers, which the broker
    refused, are left: `dlq edit` takes the missing body. JSON: kind `redriven`: letters (the number
    redriven), reduced (left), dry_run, and kinds, as `dlq ls` has them.

    Parameters
    ----------
    limit
        The most letters to redrive, the oldest first.
    rate
        The most letters each second, such as 50/s or 100/m.
    dry_run
        Count what would be redriven, and redrive nothing.
    yes
        Redrive everything.
    """
    selection = selection.at(topic, group)
    async with common.connect() as broker:
        chosen = await Chosen.of(broker, selection, limit=limit, reduced=False)
        if not dry_run and selection.where.selects_all and chosen.is_all and chosen.tally.total:
            command = ["dlq", "redrive", *_options(selection, limit, rate)]
            require_yes(yes, f"redrives {chosen}", command, common)
        settling = Settling("redriven", "redriving", chosen, common.output)
        if not dry_run:
            await settling.run(
                lambda source, letters, progress: source.redrive(
                    *letters, rate=rate, progress=progress
                )
            )
    settling.report(dry_run=dry_run, reduced=chosen.reduced)
    if chosen.reduced:
        common.output.note(
            f"left: {plural(chosen.reduced, 'letter')} without body or headers, which the broker "
            "refused; anymq dlq edit takes the body"
        )


@app.command
async def drop(
    topic: TopicName = None,
    group: GroupName = None,
    /,
    *,
    limit: Max = None,
    dry_run: DryRun = False,
    yes: Flag = False,
    selection: Selection = ALL,
    common: Common = DEFAULT,
) -> None:
    """Drop dead letters: they are no longer listed, and never handled again.

    Without --yes it says how many that is, drops nothing, and exits with 1. `dlq export` keeps
    them. JSON: kind `dropped`: letters (the number dropped), dry_run, and kinds, as `dlq ls` has
    them.

    Parameters
    ----------
    limit
        The most letters to drop, the oldest first.
    dry_run
        Count what would be dropped, and drop nothing.
    yes
        Do it.
    """
    selection = selection.at(topic, group)
    async with common.connect() as broker:
        chosen = await Chosen.of(broker, selection, limit=limit)
        if not dry_run and chosen.tally.total:
            command = ["dlq", "drop", *_options(selection, limit)]
            require_yes(yes, f"drops {chosen}", command, common)
        settling = Settling("dropped", "dropping", chosen, common.output)
        if not dry_run:
            await settling.run(
                lambda source, letters, progress: source.drop(*letters, progress=progress)
            )
    settling.report(dry_run=dry_run)


def _options(selection: Selection, limit: int | None, rate: float | None = None) -> list[str]:
    options = selection.arguments()
    options += [] if limit is None else ["--max", str(limit)]
    return options + ([] if rate is None else ["--rate", f"{rate:g}/s"])


def _summary(letter: Letter) -> dict[str, Any]:
    """Return a letter as JSON values without its content."""
    data = {name: value for name, value in letter.as_dict().items() if name not in CONTENT}
    return data | {"size": len(letter.message.body)}


def _write_letters(output: Output, letters: list[Letter]) -> None:
    columns = ["ID", "TOPIC", "GROUP", "KEY", "ATTEMPTS", "FAILED", "REASON"]
    rows = [
        [
            letter.message.id,
            letter.topic,
            letter.group or BROADCAST,
            letter.message.key,
            letter.attempts,
            when(letter.failed_at),
            cut(letter.reason),
        ]
        for letter in letters
    ]
    output.table("dead-letters", None, columns, rows)


def _write_letter(output: Output, letter: Letter) -> None:
    if output.as_json:
        output.result("dead-letter", letter.as_dict())
        return
    output.table("dead-letter", None, ["ID", letter.message.id], _facts(letter))
    if letter.traceback:
        output.write(f"\n{lines_shown(letter.traceback)}")
    output.write(f"\n{_body(letter)}")


def _facts(letter: Letter) -> list[list[object]]:
    message = letter.message
    facts: list[list[object]] = [
        ["position", f"{letter.position} in {message.topic}"],
        ["topic", letter.topic],
        ["group", letter.group or BROADCAST],
        ["reason", letter.reason],
        ["error type", letter.error_type],
        ["error", letter.error_message],
        ["attempts", letter.attempts],
        ["first seen", when(letter.first_seen)],
        ["failed", when(letter.failed_at)],
        ["key", message.key],
        ["type", message.type],
        ["source", message.source],
        ["time", when(message.time)],
        ["correlation", message.correlation_id],
        ["content type", message.content_type],
        ["size", size(len(message.body))],
    ]
    facts.extend(
        ["earlier", f"{failure.get('failed_at', '')} {failure.get('reason', '')}"]
        for failure in letter.history
    )
    own = {name: value for name, value in message.headers.items() if not name.startswith(FAILURE)}
    facts.extend([f"header {name}", value] for name, value in own.items())
    if letter.reduced:
        facts.append(["missing", f"{' and '.join(letter.reduced)}, which the broker refused"])
    return [[name, str(value)] for name, value in facts if value is not None]


def _body(letter: Letter) -> str:
    try:
        return lines_shown(letter.message.body.decode())
    except UnicodeDecodeError:
        return f"({plural(len(letter.message.body), 'byte')} that are no text: see --json)"
