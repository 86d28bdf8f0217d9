"""Doing what a page shows: its files, its program, its commands.

The `python` blocks of a page are one program, in the order of the page; every block has the line
numbers it has on the page, so that a traceback points there. In console blocks `python` and
`anymq` are run, also in pipes, and what is shown below a command is what it prints. `pip`, `make`,
`git`, `cd` and modules of the checkout are not run.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.docs.markdown import BadPage, Block, Command, blocks, commands, shows

ROOT = Path(__file__).resolve().parents[2]
PROGRAM, CONSOLE = ("python", "py"), ("console", "sh", "shell", "bash")
TIMEOUT = 600
"""Seconds that one program or command of a page may run: a limit for what hangs."""
NOT_RUN = ("pip", "make", "git", "cd")
IN_PIPES = ("cat", "echo", "sort", "wc")
"""The commands of the system that a page may join with `anymq`."""

_END = "\x1e"
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")


def pages() -> list[str]:
    """Return the pages to test, by their path below the root."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    names = [path.relative_to(ROOT).as_posix() for path in found if path.exists()]
    return [name for name in names if not name.startswith(("docs/decisions/", "docs/reports/"))]


class Page:
    """A page, and a folder to try it in."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text = text
        self.folder = folder
        self.blocks = blocks(text)

    def files(self) -> dict[str, Block]:
        """Return the blocks that are files, by path."""
        files: dict[str, Block] = {}
        for block in self.blocks:
            if block.verb != "file":
                continue
            path = Path(block.argument)
            if path.is_absolute() or ".." in path.parts or block.argument in files:
                raise BadPage(f"line {block.line}: {path} is outside of the folder, or there twice")
            files[block.argument] = block
        return files

    def write(self) -> None:
        """Write the files."""
        for name, block in self.files().items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")

    def run_program(self) -> None:
        """Run the `python` blocks, and compare with the outputs that the page shows."""
        program = [block for block in self.blocks if block.language in PROGRAM and not block.verb]
        if not program:
            return
        lines: list[str] = []
        for block in program:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.text.splitlines()
            lines.append(f"print({_END!r}, flush=True)")  # where the fence was
        script = self.folder / "page.py"
        script.write_text("\n".join(lines) + "\n", encoding="utf-8")
        printed = self._run([sys.executable, script.name], {})
        parts = printed.split(f"{_END}\n")
        for block, actual in zip(program, parts, strict=False):
            output = self._output_of(block)
            if output is not None:
                _compare(output.text, actual, f"line {output.line}")

    def run_commands(self) -> None:
        """Run the commands that can be, and compare with what the page shows."""
        for block in self.blocks:
            if block.language not in CONSOLE or block.verb:
                continue
            actual: str | None = None
            for command in commands(block):
                actual = self._try(command)
            output = self._output_of(block)
            if output is not None:
                if actual is None:
                    raise BadPage(f"line {output.line}: the output of what is not run")
                _compare(output.text, actual, f"line {output.line}")

    def _output_of(self, block: Block) -> Block | None:
        index = self.blocks.index(block) + 1
        if index < len(self.blocks) and self.blocks[index].verb == "output":
            return self.blocks[index]
        return None

    def _try(self, command: Command) -> str | None:
        where = f"line {command.line}"
        words = shlex.split(command.text, comments=True)
        if "|" in words or "<" in words:
            return self._pipe(command, words)
        assignments: dict[str, str] = {}
        while words and _ASSIGNMENT.fullmatch(words[0]):
            name, _, assignments[name] = words.pop(0).partition("=")
        match words:
            case [name, *_] if name in NOT_RUN:
                return None
            case ["python" | "python3", "-m", "pip", *_]:
                return None
            case ["python" | "python3", "-m", module, *_] if _in_checkout(module):
                return None
            case ["python" | "python3", *arguments]:
                actual = self._run([sys.executable, *arguments], assignments)
            case ["anymq", *arguments]:
                script = str(Path(sys.executable).with_name("anymq"))
                actual = self._run([script, *arguments], assignments)
            case _:
                raise BadPage(f"{where}: {command.text!r} is nothing to run; skip it with a reason")
        if command.output:
            _compare(command.output, actual, where)
        return actual

    def _pipe(self, command: Command, words: list[str]) -> str:
        """Run commands that are joined by pipes, or read a file, in a shell."""
        where = f"line {command.line}"
        firsts = [words[0], *(word for last, word in pairwise(words) if last == "|")]
        if "anymq" not in firsts or not set(firsts) <= {"anymq", *IN_PIPES}:
            raise BadPage(f"{where}: {command.text!r} is nothing to run; skip it with a reason")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        actual = self._run(["bash", "-o", "pipefail", "-c", command.text], {"PATH": path})
        if command.output:
            _compare(command.output, actual, where)
        return actual

    def _run(self, command: list[str], assignments: dict[str, str]) -> str:
        given = {name: os.environ[name] for name in os.environ if not name.startswith("ANYMQ_")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=given | assignments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _in_checkout(module: str) -> bool:
    """Whether `module` is one of the checkout's; it must exist then."""
    path = ROOT / module.partition(".")[0]
    if not (path / "__init__.py").exists():
        return False
    whole = ROOT.joinpath(*module.split("."))
    if not (whole.with_suffix(".py").exists() or (whole / "__main__.py").exists()):
        raise BadPage(f"there is no module {module}")
    return True


def _compare(expected: str, actual: str, where: str) -> None:
    assert shows(expected, actual), f"{where} shows\n{expected}\nbut what comes is\n{actual}"
