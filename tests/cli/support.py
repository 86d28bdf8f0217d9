"""The command `anymq` as tests run it: in this process, or as a process of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from anymq.cli import main

BACKENDS = ("memory", "sqlite", "redis", "nats", "kafka", "rabbitmq")
SERVERS = BACKENDS[2:]
BACKEND_PARAMETERS = [
    pytest.param(name, marks=[getattr(pytest.mark, name)] if name in SERVERS else [])
    for name in BACKENDS
]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """Exit code and output of one command."""

    code: int
    out: str
    err: str

    @property
    def envelopes(self) -> list[dict[str, Any]]:
        """The results of a command with `--json`."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def data(self) -> Any:
        """The data of the only result of a command with `--json`."""
        (envelope,) = self.envelopes
        return envelope["data"]


class Command:
    """`anymq` in this process, which is quick, and sees the memory broker of this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: str = "", code: int | None = 0) -> Result:
        """Run `anymq ARGUMENTS`; the exit code must be `code`, unless that is None."""
        self._capsys.readouterr()
        self._monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        ended = main(list(arguments))
        captured = self._capsys.readouterr()
        result = Result(ended, captured.out, captured.err)
        assert code is None or ended == code, result
        return result


def environment(**changed: str) -> dict[str, str]:
    """Return the environment of a user who has set nothing of anymq."""
    kept = {name: value for name, value in os.environ.items() if name != "ANYMQ_URL"}
    return kept | changed


def arguments_of(*arguments: str) -> list[str]:
    """Return the command line of `anymq ARGUMENTS` as a process."""
    return [sys.executable, "-m", "anymq", *arguments]


def run(
    *arguments: str,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120,
) -> Result:
    """Run `anymq ARGUMENTS` as a process."""
    done = subprocess.run(
        arguments_of(*arguments),
        input=stdin,
        env=environment(**(env or {})),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def start(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None, **pipes: Any
) -> subprocess.Popen[str]:
    """Start `anymq ARGUMENTS` as a process, by default with pipes for its input and output."""
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")} | pipes
    return subprocess.Popen(
        arguments_of(*arguments), env=environment(**(env or {})), cwd=cwd, text=True, **pipes
    )


def ends_with_its_pipe(process: subprocess.Popen[str]) -> None:
    """Read a line of a process, close the pipe, and check that it ends without a word."""
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 141
    assert process.stderr.read() == ""


def column(text: str, name: str) -> Sequence[str]:
    """Return the cells of one column of a table that a command wrote."""
    head, *rows = text.splitlines()
    starts = [found.start() for found in re.finditer(r"(?:(?<=  )|^)\S", head)] + [len(head)]
    begin = head.index(name)
    number = max(index for index, start in enumerate(starts) if start <= begin)
    return [row[starts[number] : starts[number + 1]].strip() for row in rows]
