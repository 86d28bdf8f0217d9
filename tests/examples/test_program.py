"""The program: its output, its exit codes, and the end of all its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from examples.orders.cli import DATA
from examples.orders.reconcile import figures_of_file
from tests.examples.support import HEADER, ROOT, as_object, environment, program, row, write

PATIENCE = 300.0

ODD = [
    row("1", 2, "0.105", description='6" plate, "best"\nquality'),
    row("2", 1, "9.99", customer=""),
    row("C3", -1, "0.005"),
    row("1", 2, "0.105", country="Spain"),
    row("A563185", 1, "-11062.06", customer=""),
    row("Ω4", 1, "0.001", country="Côte d'Ivoire\x1b[31m"),
    row("5", 1, "0"),
]


def test_the_demo_survives_the_death_of_a_service() -> None:
    result = program(module="examples.orders.demo")
    assert result.code == 0, result.err
    assert "payment will be killed" in result.err
    assert "died of SIGKILL; restarting" in result.err
    assert "reconciled: the ledger agrees with" in result.out
    assert "109,316.08" in result.out


def test_two_runs_on_one_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/orders.db"
    for mode in (["--processes"], []):  # the second run does not see messages of the first
        result = program("--url", url, "--json", "--limit", "100", *mode)
        assert result.code == 0, result.err
        duplicates = result.figures["duplicates_filtered"]
        assert result.figures == as_object(figures_of_file(DATA, 100), duplicates=duplicates)


def test_other_data_as_a_table(tmp_path: Path) -> None:
    file = write(tmp_path / "odd.csv", ODD)
    result = program("--url", f"sqlite:///{tmp_path}/orders.db", "--data", str(file))
    assert result.code == 0, result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert ["orders", "placed", "5"] in lines
    assert ["orders", "cancelled", "1"] in lines
    assert ["payments", "captured", "2"] in lines
    assert ["orders", "expired", "2"] in lines
    assert ["dead", "letters", "3"] in lines
    assert ["revenue", "0.42"] in lines
    assert ["refunds", "-0.01"] in lines
    assert ["France", "0.42"] in lines
    assert "\x1b" not in result.out
    assert "6 of 6 invoices settled: 2 shipped, 3 rejected (2 expired), 1 cancelled" in result.err


def test_no_orders_at_all(tmp_path: Path) -> None:
    file = write(tmp_path / "empty.csv", [])
    result = program("--url", "memory://", "--data", str(file), "--json")
    assert result.code == 0
    assert result.figures == as_object(figures_of_file(file))
    assert result.figures["revenue"] == "0.00"


def test_a_ledger_that_differs_is_an_exit_code(tmp_path: Path) -> None:
    # The file changes during the run, so the ledger reflects an earlier version of it.
    file = write(tmp_path / "orders.csv", [row("1")])
    tamper = (
        "import sys; from pathlib import Path; from examples.orders import cli, system; "
        "run = system.run_orders\n"
        "async def tampered(*args, **options):\n"
        "    outcome = await run(*args, **options)\n"
        "    with open(sys.argv[2], 'a') as file: file.write('2,A,x,1,d,1.00,7,Spain\\n')\n"
        "    return outcome\n"
        "cli.run_orders = tampered\n"
        "sys.exit(cli.main(cli.parser().parse_args()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", tamper, "--data", str(file), "--json"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert '"reconciled": false' in done.stdout
    assert "orders_placed: 1, not 2" in done.stderr
    assert "revenue of Spain: 0, not 1.00" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--url", "carrier-pigeon://x"], "carrier-pigeon:// has no adapter installed"),
        (["--url", "nonsense"], "a connection URL looks like scheme://host"),
        (["--url", "memory://?speed=9"], "unknown option 'speed'"),
        (["--url", "memory://", "--processes"], "memory:// exists in one process only"),
        (["--data", "nonesuch.csv"], "nonesuch.csv: No such file or directory"),
        *(
            (
                ["--url", f"{scheme}://me:hunter2@127.0.0.1:1?connect_timeout=1", *more],
                f"{scheme}://me:***@",
            )
            for scheme in ("kafka", "amqp", "nats", "redis")
            for more in ([], ["--processes"])
        ),
    ],
)
def test_a_failed_run_prints_one_line(arguments: list[str], message: str) -> None:
    result = program(*arguments, "--json")
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("orders: ")
    assert message in result.err
    lines = [line for line in result.err.splitlines() if "trying again for" not in line]
    assert len(lines) == 1
    assert "hunter2" not in result.err


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "bad.csv", [row("1"), row("2", "many")])
    result = program("--data", str(file))
    assert result.code == 2
    assert result.err == f"orders: {file}, line 3: Quantity is not a whole number: 'many'\n"
    file = write(tmp_path / "bad.csv", [], header=[name for name in HEADER if name != "Country"])
    result = program("--data", str(file))
    assert result.code == 2
    assert result.err == f"orders: {file}, line 1: there is no column Country\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("processes", [True, False])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals, processes: bool) -> None:
    mode = ["--processes"] if processes else []
    started = subprocess.Popen(
        [sys.executable, "-m", "examples.orders", "--url", f"sqlite:///{tmp_path}/a.db", *mode],
        cwd=ROOT,
        env=environment() | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell inherits SIGINT as ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    with started:
        try:
            children = wait_for_children(started, 5 if processes else 0)
            wait_for_state(tmp_path, "ledger.db" if processes else "shipping.db")
            started.send_signal(number)
            _, err = started.communicate(timeout=PATIENCE)
        finally:
            started.kill()
    if number == signal.SIGKILL:
        assert started.returncode == -number
    else:
        assert started.returncode == 128 + number
        assert err.endswith("orders: interrupted\n")
        assert "Traceback" not in err
        assert list(tmp_path.glob("anymq-orders-*")) == []
    deadline = time.monotonic() + (PATIENCE if number == signal.SIGKILL else 0)
    while (left := [child for child in children if is_alive(child)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert left == []


def wait_for_children(parent: subprocess.Popen[str], count: int) -> list[int]:
    """Return the pids of the children of `parent`, once there are `count`."""
    file = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = [int(child) for child in file.read_text().split()]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{count} children did not appear")


def wait_for_state(folder: Path, name: str) -> None:
    """Wait until the run has created the state file `name`."""
    deadline = time.monotonic() + PATIENCE
    while not list(folder.glob(f"anymq-orders-*/{name}")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)


def is_alive(process: int) -> bool:
    """Return whether the process runs and is not a zombie."""
    with suppress(OSError):
        os.kill(process, 0)
        return ") Z" not in Path(f"/proc/{process}/stat").read_text()
    return False
