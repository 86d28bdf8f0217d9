"""`anymq run`: signals, exit codes, restarts, reloading, the endpoint and the log."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import anymq
from tests.cli.running import PROGRAM, WITHIN, Run, is_worker, journal, until
from tests.cli.support import run as command
from tests.cli.support import start

MakeRun = Callable[..., Run]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/run.db"


@pytest.fixture
def make(tmp_path: Path, url: str) -> Iterator[MakeRun]:
    """Start the program with the options given."""
    (tmp_path / "program.py").write_text(PROGRAM)
    made: list[Run] = []

    def start_one(*arguments: str) -> Run:
        made.append(Run(tmp_path, *arguments, env={"ANYMQ_URL": url, "TOPIC": "orders"}))
        return made[-1]

    yield start_one
    for one in made:
        one.close()


@pytest.fixture
def publish(url: str) -> Callable[[str], None]:
    async def publish_one(body: str) -> None:
        async with anymq.connect(url) as broker:
            await broker.publish("orders", body)

    return lambda body: asyncio.run(publish_one(body))


def open_gate(folder: Path) -> None:
    (folder / "gate").touch()


def test_sigterm_turns_readiness_off_and_drains(
    make: MakeRun, publish: Callable[[str], None], tmp_path: Path
) -> None:
    run = make("--workers", "2")
    pids = run.ready()
    assert len(set(pids)) == 2
    publish("o-1")
    until(lambda: journal(tmp_path, "begun"))
    run.send(signal.SIGTERM)
    until(lambda: run.get("/readyz")[0] == 503)
    assert run.get("/livez")[0] == 200
    report = run.report()
    assert report["draining"]
    assert "the workers are draining" in report["problems"]
    assert run.process.poll() is None
    open_gate(tmp_path)
    assert run.code() == 0
    assert [body for body, _ in journal(tmp_path, "ended")] == ["o-1"]
    assert not any(map(is_worker, pids))
    assert {line["worker"] for line in run.log} == {None, 1, 2}
    assert not [line for line in run.log if line["level"] in ("warning", "error")]


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGTERM, signal.SIGTERM], 143), ([signal.SIGINT], 130)],
    ids=["second SIGTERM", "Ctrl-C"],
)
def test_it_can_be_ended_at_once(
    make: MakeRun,
    publish: Callable[[str], None],
    tmp_path: Path,
    signals: list[signal.Signals],
    code: int,
) -> None:
    run = make("--drain", "1h")
    run.ready()
    publish("o-1")
    until(lambda: journal(tmp_path, "begun"))
    for number in signals[:-1]:
        run.send(number)
        until(lambda: run.get("/readyz")[0] == 503)
    run.send(signals[-1])
    assert run.code() == code
    assert journal(tmp_path, "ended") == []
    open_gate(tmp_path)
    again = make()
    until(lambda: journal(tmp_path, "ended"))
    again.send(signal.SIGTERM)
    assert again.code() == 0


def test_handlers_that_outlast_the_drain_are_told_by_the_code(
    make: MakeRun, publish: Callable[[str], None], tmp_path: Path
) -> None:
    run = make("--drain", "100ms")
    run.ready()
    publish("o-1")
    until(lambda: journal(tmp_path, "begun"))
    run.send(signal.SIGTERM)
    assert run.code() == 3
    assert any("1 handlers were cancelled" in text for text in run.messages)


def test_a_killed_worker_is_replaced(
    make: MakeRun, publish: Callable[[str], None], tmp_path: Path
) -> None:
    run = make("--workers", "2")
    pids = run.ready()
    publish("o-1")
    ((_, pid),) = until(lambda: journal(tmp_path, "begun"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: any("was killed by SIGKILL; starting another" in text for text in run.messages))
    others = until(lambda: pids_ if (pids_ := run.ready()) != pids else None)
    assert len(set(pids) & set(others)) == 1
    assert sorted(one["restarts"] for one in run.report()["workers"]) == [0, 1]
    open_gate(tmp_path)
    until(lambda: journal(tmp_path, "ended"))
    run.send(signal.SIGTERM)
    assert run.code() == 0
    assert [body for body, _ in journal(tmp_path, "ended")] == ["o-1"]


def test_a_worker_that_gets_sigterm_itself_is_replaced(make: MakeRun) -> None:
    run = make()
    (pid,) = run.ready()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not is_worker(pid))
    until(lambda: run.ready() != [pid])
    run.send(signal.SIGTERM)
    assert run.code() == 0


def test_workers_end_after_the_death_of_their_supervisor(
    make: MakeRun, publish: Callable[[str], None], tmp_path: Path
) -> None:
    run = make("--workers", "2")
    pids = run.ready()
    publish("o-1")
    until(lambda: journal(tmp_path, "begun"))
    run.send(signal.SIGKILL)
    until(lambda: any("the supervisor has ended" in text for text in run.messages))
    assert journal(tmp_path, "ended") == []
    open_gate(tmp_path)
    until(lambda: not any(map(is_worker, pids)))
    assert [body for body, _ in journal(tmp_path, "ended")] == ["o-1"]


def test_an_app_that_stops_itself_ends_the_run(make: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    run_text = PROGRAM.replace('note("ended", body', 'app.stop(); note("ended", body')
    path.write_text(run_text)
    open_gate(tmp_path)
    run = make()
    run.ready()
    asyncio.run(_publish(tmp_path))
    assert run.code() == 0
    assert len(journal(tmp_path, "ended")) == 1


async def _publish(folder: Path) -> None:
    async with anymq.connect(f"sqlite:///{folder}/run.db") as broker:
        await broker.publish("orders", "o-1")


def test_reloading(make: MakeRun, publish: Callable[[str], None], tmp_path: Path) -> None:
    open_gate(tmp_path)
    run = make("--reload")
    (pid,) = run.ready()
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace("import asyncio", "import asyncio, nothing_like_it"))
    until(lambda: any("waiting for a change" in text for text in run.messages))
    assert run.report()["workers"][0]["state"] == "waiting"
    path.write_text(PROGRAM.replace('note("ended"', 'note("changed"'))
    assert run.ready() != [pid]
    publish("o-1")
    until(lambda: journal(tmp_path, "changed"))
    run.send(signal.SIGTERM)
    assert run.code() == 0


@pytest.mark.long
def test_a_crash_loop_ends_with_1(make: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(f"{PROGRAM}\nos._exit(7)\n")
    run = make()
    assert run.code(2 * WITHIN) == 1
    deaths = [text for text in run.messages if "has ended with exit code 7; starting" in text]
    assert [text.rpartition(" in ")[2] for text in deaths] == ["0.5 s", "1 s", "2 s", "4 s"]
    assert run.log[-1]["level"] == "critical"
    assert run.messages[-1].endswith("5 in a row have ended within 60 s; giving up")


@pytest.mark.long
def test_a_worker_that_does_not_answer_is_not_live(
    make: MakeRun, publish: Callable[[str], None], tmp_path: Path
) -> None:
    blocking = PROGRAM.replace("await asyncio.sleep(0.02)", "__import__('time').sleep(0.02)")
    (tmp_path / "program.py").write_text(blocking)
    run = make()
    run.ready()
    publish("o-1")
    until(lambda: run.get("/livez")[0] == 503)
    assert "it has not answered for" in run.report()["problems"][0]
    open_gate(tmp_path)
    until(lambda: run.get("/livez")[0] == 200)
    run.ready()
    run.send(signal.SIGTERM)
    assert run.code() == 0


def test_metrics_of_all_workers(make: MakeRun) -> None:
    run = make("--workers", "2")
    run.ready()
    lines = run.get("/metrics")[1].splitlines()
    for worker in ("1", "2"):
        assert f'anymq_ready{{worker="{worker}"}} 1' in lines
        assert f'anymq_worker_running{{worker="{worker}"}} 1' in lines
    heads = [line for line in lines if line.startswith("# TYPE ")]
    assert len(set(heads)) == len(heads)
    assert len([line for line in lines if line.startswith("anymq_consumer_lag{")]) <= 1


def fails(*arguments: str, folder: Path, code: int, env: dict[str, str] | None = None) -> str:
    """Return the last line that a command writes to standard error."""
    done = command("run", *arguments, cwd=folder, env=env, timeout=WITHIN)
    assert done.code == code, done
    assert "Traceback" not in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("anymq: ")]
    assert len(lines) == 1, done.err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere:app"], "there is no module 'nowhere'"),
        (["program:ap"], "has no 'ap'; did you mean program:app?"),
        (["program:os"], "is no App but a module"),
        (["broken:app"], "importing broken failed: ZeroDivisionError"),
        (["program:app", "--url", "kafkaa://x"], "kafkaa"),
        (["program:app", "--workers", "0"], "there can be 1 to"),
        (["program:app", "--app", "program:app"], "not with --app"),
        (["program:app", "--health", "nowhere"], "is not an address for health"),
        (["program:app", "--drain", "soon"], "is no duration"),
        (["program:app", "--log-format", "xml"], "xml"),
    ],
)
def test_wrong_usage_is_one_line_and_2(arguments: list[str], text: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "broken.py").write_text("1 / 0")
    env = {"ANYMQ_URL": "memory://", "TOPIC": "orders"}
    assert text in fails(*arguments, folder=tmp_path, code=2, env=env)


def test_an_address_in_use_is_said(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        line = fails("program:app", "--health", address, folder=tmp_path, code=2)
    assert "another process uses this port" in line


@pytest.mark.redis
def test_a_dead_broker_is_said(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    env = {"ANYMQ_URL": f"redis://127.0.0.1:{port}?connect_timeout=1", "TOPIC": "orders"}
    line = fails("program:app", "--workers", "2", folder=tmp_path, code=1, env=env)
    assert f"connecting failed on redis://127.0.0.1:{port}" in line


def test_the_log_as_text(tmp_path: Path, url: str) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    env = {"ANYMQ_URL": url, "TOPIC": "orders"}
    process = start("run", "program:app", env=env, cwd=tmp_path, stdin=subprocess.DEVNULL)
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line)
        if "worker 1 runs as process" in line:
            process.send_signal(signal.SIGTERM)
    assert process.wait(WITHIN) == 0
    assert process.stdout is not None
    process.stdout.close()
    process.stderr.close()
    assert any("INFO supervisor anymq.run: SIGTERM: draining" in line for line in lines)
    assert any("INFO worker 1 anymq: handle listens to orders" in line for line in lines)


def test_quiet_logs_and_long_records_are_whole_lines(make: MakeRun, tmp_path: Path) -> None:
    shouting = f"""{PROGRAM}
import logging
import threading

def shout():
    for number in range(20):
        logging.getLogger("shop").error("x" * 100_000)

threading.Thread(target=shout).start()
"""
    (tmp_path / "program.py").write_text(shouting)
    run = make("--workers", "3", "--log-level", "error")
    until(lambda: len(run.log) == 60)
    run.send(signal.SIGTERM)
    assert run.code() in (0, 1)
    assert {line["level"] for line in run.log} == {"error"}
    assert {len(line["message"]) for line in run.log} == {100_000}
    assert json.dumps(run.log)
