"""Standard streams that are closed, full, or end early; Ctrl-C before and after the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import Result, arguments_of, environment, run

FULL = Path("/dev/full")


def shell(line: str, *arguments: str) -> Result:
    """Run `anymq ARGUMENTS` as `"$@"` in a line of the shell."""
    command = ["sh", "-c", line, "sh", *arguments_of(*arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    return Result(done.returncode, done.stdout, done.stderr)


def python(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["config", "show", "--url", "memory://"]])
def test_a_pipe_without_a_reader(arguments: list[str]) -> None:
    ours, its = os.pipe()
    os.close(ours)
    done = subprocess.run(
        arguments_of(*arguments),
        stdout=its,
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(its)
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_error_into_a_pipe_without_a_reader() -> None:
    ours, its = os.pipe()
    os.close(ours)
    done = subprocess.run(
        arguments_of("config", "show", "--url", "nosuch://", "--json"),
        stdout=its,
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(its)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["doctor", "memory://"], ["config", "show", "--url", "memory://"]],
)
def test_a_standard_output_that_is_closed(arguments: list[str]) -> None:
    done = shell('exec "$@" >&-', *arguments)
    assert done.code == 0, done
    assert "unexpected" not in done.err


def test_a_standard_error_that_is_closed() -> None:
    failed = shell('exec "$@" 2>&-', "config", "show")
    assert (failed.code, failed.out) == (2, "")


def test_a_standard_input_that_is_closed(tmp_path: Path) -> None:
    done = shell('exec "$@" <&-', "pub", "orders", "--url", f"sqlite:///{tmp_path}/a.db")
    assert "unexpected" not in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["config", "show", "--url", "memory://"]])
def test_a_disk_that_is_full(arguments: list[str]) -> None:
    done = shell(f'exec "$@" >{FULL}', *arguments, "--quiet" if len(arguments) > 1 else "--help")
    assert (done.code, done.err) == (1, "anymq: No space left on device\n")


def test_ctrl_c_while_the_command_is_loaded() -> None:
    script = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'anymq.cli.application':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from anymq.cli import main\n"
        "sys.exit(main(['--help']))\n"
    )
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_an_error_is_written() -> None:
    script = (
        "import os, signal, sys\n"
        "from anymq.cli import main\n"
        "class Interrupt:\n"
        "    def write(self, text):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "error, sys.stderr = sys.stderr, Interrupt()\n"
        "code = main(['nosuch'])\n"
        "sys.stderr = error\n"
        "sys.exit(code)\n"
    )
    done = python(script)
    assert (done.returncode, done.stderr) == (130, "")


def test_ctrl_c_while_python_cleans_up() -> None:
    script = (
        "import atexit, os, signal, sys\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "from anymq.cli import main\n"
        "sys.argv = ['anymq', '--version']\n"
        "sys.exit(main())\n"
    )
    done = python(script)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_encoding_without_the_characters(tmp_path: Path) -> None:
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (["--help"], ["doctor", "--help"], ["doctor", "memory://"]):
        shown = run(*arguments, env=env)
        assert shown.code == 0, shown
        assert shown.out.isascii()
        assert "\\u" not in shown.out


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = {"HOME": f"{tmp_path}/file", "XDG_CONFIG_HOME": f"{tmp_path}/file"}
    assert run("config", "show", "--url", "memory://", env=home).code == 0
    failed = run("context", "add", "dev", "sqlite:///a.db", env=home)
    assert failed.code == 1
    assert len(failed.err.splitlines()) == 1
    assert f"{tmp_path}/file" in failed.err


def test_ctrl_c_is_still_a_signal_for_callers_of_main() -> None:
    """Only the process's own command line changes how the process ends."""
    from anymq.cli import main

    before = signal.getsignal(signal.SIGINT)
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
