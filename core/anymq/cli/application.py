"""The commands of `anymq`, their parsing, and the process around one command."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, UnknownCommandError

from .. import __version__
from .common import DEFAULT
from .failures import EXIT_UNKNOWN, EXIT_USAGE, UsageError, report
from .process import EXIT_CLOSED_PIPE, finish_process, finish_streams, prepare_streams, run_async

COMMANDS = {
    "demo": ("anymq.cli.demo:demo", "A retry, a dead letter and its redrive, without a server."),
    "new": ("anymq.cli.new:new", "A small project that runs and passes its test."),
    "run": ("anymq.cli.run:run", "Run an app in worker processes, and restart those that die."),
    "dlq": ("anymq.cli.dlq:app", "Dead letters: list, redrive, edit, drop, export, import."),
    "config": ("anymq.cli.config:app", "The effective settings, and where each comes from."),
    "docs": ("anymq.cli.docs:app", "Documents of apps: AsyncAPI, and the graph of events."),
    "pub": ("anymq.cli.pub:pub", "Publish a message, or each line of standard input."),
    "sub": ("anymq.cli.sub:sub", "Look at a topic, or consume it as a member of a group."),
    "topic": ("anymq.cli.topic:app", "List, create and delete topics."),
    "group": ("anymq.cli.group:app", "List, reset and delete groups."),
    "check": ("anymq.cli.check:app", "One line and an exit code, for cron, probes and monitoring."),
    "trace": ("anymq.cli.trace:trace", "The messages of one flow, as a tree by cause."),
    "context": ("anymq.cli.context:app", "Named brokers, kept in the user's config folder."),
    "doctor": ("anymq.cli.doctor:doctor", "Check the way to the broker and your permissions."),
}
"""By name the place of each command, `module:function`, or `module:app` for a group of them.

A module is imported when its command is used, so that every other command starts quickly.
"""


def application(*, listing: bool = False) -> App:
    """Return the parser of the command line, with every command.

    With `listing`, commands have their summaries, for the list of all of them, and none is imported
    for it; otherwise their help is that of their functions.
    """
    root = App(
        name="anymq",
        help="One publisher/consumer interface over Kafka, RabbitMQ, NATS, Redis and SQLite.",
        version=__version__,
        help_format="markdown",
        help_epilogue="The broker: --url, --context, --app, $ANYMQ_URL, or the current context.",
    )
    for name, (place, summary) in COMMANDS.items():
        root.command(place, name=name, help=summary if listing else None)
    root.register_install_completion_command()
    return root


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; see `main`."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    prepare_streams()
    try:
        return _outcome(tokens)
    finally:
        finish_streams()
        if arguments is None:
            finish_process()


def _outcome(tokens: list[str]) -> int:
    unknown = EXIT_UNKNOWN if tokens[:1] == ["check"] else None
    try:
        return _run(tokens)
    except CycloptsError as error:
        if isinstance(error, UnknownCommandError) and tokens[0].startswith("-"):
            misplaced = UsageError(str(error), hint="options come after the command")
            return report(misplaced, tokens)
        return report(error, tokens, code=unknown or EXIT_USAGE)
    except BrokenPipeError:
        return EXIT_CLOSED_PIPE
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # rich ends the process for it
            return EXIT_CLOSED_PIPE
        raise
    except (KeyboardInterrupt, Exception) as error:
        return report(error, tokens, code=unknown)


def _run(tokens: list[str]) -> int:
    if tokens[:1] == ["help"]:
        tokens = [*tokens[1:], "--help"]
    listing = not tokens or tokens[0].startswith("-")
    command, bound, _ = application(listing=listing).parse_args(
        tokens, exit_on_error=False, print_error=False, help_on_error=False
    )
    result: Any
    with bound.arguments.get("common", DEFAULT).logging():
        result = command(*bound.args, **bound.kwargs)
        if inspect.iscoroutine(result):
            result = run_async(result)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0
