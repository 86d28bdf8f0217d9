"""What every command has in common: options, errors, exit codes, pipes and Ctrl-C."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import anymq as library
from anymq.cli import main
from anymq.cli.application import COMMANDS
from anymq.cli.common import DEFAULT, Common
from anymq.cli.process import CLEANUP_SECONDS
from tests.cli.support import Command, arguments_of, ends_with_its_pipe, run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Register a function as the command `probe`."""

    def register(function: Any) -> None:
        monkeypatch.setattr(sys.modules[__name__], "probe", function, raising=False)
        monkeypatch.setitem(COMMANDS, "probe", (f"{__name__}:probe", "A probe."))

    return register


def test_both_ways_to_start_it() -> None:
    for line in ([str(Path(sys.executable).with_name("anymq"))], arguments_of()):
        done = subprocess.run([*line, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == library.__version__


def test_help_names_every_command(anymq: Command) -> None:
    shown = anymq("--help").out
    for name, (_, summary) in COMMANDS.items():
        assert f" {name} " in shown
        assert summary.split()[0] in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(anymq: Command, name: str) -> None:
    assert f"anymq {name}" in anymq(name, "--help").out


def test_importing_the_library_loads_nothing_of_the_command() -> None:
    script = "import sys, anymq; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert {"anymq.cli", "cyclopts", "rich"}.isdisjoint(done.stdout.split())


def test_a_mistyped_command_is_one_line_with_a_proposal(anymq: Command) -> None:
    failed = anymq("contxt", code=2)
    assert failed.out == ""
    assert len(failed.err.splitlines()) == 1
    assert 'Did you mean "context"?' in failed.err


def test_a_mistyped_option_is_one_line_with_a_proposal(anymq: Command) -> None:
    failed = anymq("context", "ls", "--jso", code=2)
    assert len(failed.err.splitlines()) == 1
    assert "--json" in failed.err


def test_help_is_a_command_too(anymq: Command) -> None:
    assert anymq("help").out == anymq("--help").out
    assert anymq("help", "context", "ls").out == anymq("context", "ls", "--help").out


def test_an_option_before_the_command(anymq: Command) -> None:
    failed = anymq("--json", "context", "ls", code=2)
    assert "hint: options come after the command" in failed.err
    assert "hint:" not in anymq("--install-completion", "nosuch", code=2).err


@pytest.mark.parametrize("option", ["--url", "--context", "--app"])
def test_an_option_whose_variable_is_not_set(
    anymq: Command, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    assert f"{option} is empty" in anymq("config", "show", option, "", code=2).err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (library.NotFound("no topic 'x'"), 1, "anymq: no topic 'x'\n"),
        (library.InvalidURL("bad\nurl"), 2, "anymq: bad url\n"),
        (FileNotFoundError(2, "No such file or directory", "a.json"), 1, "anymq: a.json: No such"),
        (ZeroDivisionError("oh"), 1, "anymq: ZeroDivisionError: oh (unexpected; --traceback"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    anymq: Command, command: Any, error: Exception, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    command(fail)
    failed = anymq("probe", code=code)
    assert failed.err.startswith(line)
    assert len(failed.err.splitlines()) == 1
    assert "Traceback" not in failed.err


def test_a_traceback_on_request(anymq: Command, command: Any) -> None:
    async def fail(*, common: Common = DEFAULT) -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError("oh")

    command(fail)
    assert "Traceback" in anymq("probe", "--traceback", code=1).err


def test_an_error_is_an_envelope_too(anymq: Command, command: Any) -> None:
    def fail(*, common: Common = DEFAULT) -> None:
        raise library.NotFound("no topic 'x'")

    command(fail)
    failed = anymq("probe", "--json", code=1)
    assert failed.envelopes == [
        {
            "anymq": 1,
            "kind": "error",
            "data": {"type": "NotFound", "message": "no topic 'x'", "hint": None, "exit": 1},
        }
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_after_its_cleanup(command: Any, number: signal.Signals) -> None:
    cleaned = []

    async def wait() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    command(wait)
    assert main(["probe"]) == 128 + number
    assert cleaned == [True]


def started(folder: Path, *body: str) -> subprocess.Popen[str]:
    """Start a process whose command `probe` has this body."""
    (folder / "program.py").write_text(
        "import asyncio, sys\n"
        "from anymq.cli import main\n"
        "from anymq.cli.application import COMMANDS\n"
        "from anymq.cli.output import Output\n"
        "COMMANDS['probe'] = ('program:probe', '')\n"
        "async def probe():\n"
        + "".join(f"    {line}\n" for line in body)
        + "if __name__ == '__main__':\n    sys.exit(main(['probe']))\n"
    )
    return subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_signal_ends_a_command_whose_cleanup_hangs(tmp_path: Path) -> None:
    with started(
        tmp_path,
        "print('up', flush=True)",
        "while True:",
        "    try:",
        "        await asyncio.Event().wait()",
        "    except asyncio.CancelledError:",
        "        pass",
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert time.monotonic() - sent >= CLEANUP_SECONDS / 2


def test_a_pipe_that_is_closed_early(tmp_path: Path) -> None:
    with started(tmp_path, "while True:", "    Output().write('x' * 100)") as process:
        ends_with_its_pipe(process)


def test_no_colour_in_a_pipe(anymq: Command) -> None:
    anymq("context", "add", "a", "sqlite:///a.db")
    assert "\x1b" not in run("context", "ls").out
    assert "\x1b" not in run("--help").out


def test_what_client_libraries_log_is_shown_on_request(anymq: Command, command: Any) -> None:
    def probe(*, common: Common = DEFAULT) -> None:
        logging.getLogger("some.client").warning("retrying")
        logging.getLogger("anymq").error("lost")

    command(probe)
    assert anymq("probe").err == "ERROR anymq: lost\n"
    shown = anymq("probe", "--verbose").err
    assert shown == "WARNING some.client: retrying\nERROR anymq: lost\n"
