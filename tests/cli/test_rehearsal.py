"""A rolling deploy without Kubernetes: `anymq run --workers 2` under load, on every backend."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import anymq
from tests.cli.running import Run, journal, until
from tests.cli.support import BACKEND_PARAMETERS

pytestmark = pytest.mark.long

RATE = 50.0
"""Messages published each second."""
DRAIN = 20.0
GRACE = 60.0
"""Seconds until a pod would be killed: twice the drain and its grace, for a loaded machine."""

PROGRAM = """
import asyncio
import os
from pathlib import Path

import anymq

HERE = Path(__file__).parent
app = anymq.App(name="rehearsal")


def note(*words):
    with open(HERE / "journal", "a") as journal:
        journal.write(" ".join(map(str, words)) + "\\n")


@app.subscriber(
    os.environ["TOPIC"],
    group="g",
    concurrency=4,
    idempotency=anymq.Idempotency(f"sqlite:///{HERE}/seen.db", lease=20),
)
async def handle(body: str) -> None:
    note("begun", body, os.getpid())
    await asyncio.sleep(0.05)
    while (HERE / "hold").exists():
        await asyncio.sleep(0.02)
    note("ended", body, os.getpid())
"""
"""Its handlers wait while there is a file `hold`."""


@pytest.fixture(params=[one for one in BACKEND_PARAMETERS if "memory" not in one.values])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend that processes share."""
    name: str = request.param
    return name


@pytest.fixture
def make(tmp_path: Path, url: str, topic: str) -> Iterator[Callable[[], Run]]:
    (tmp_path / "program.py").write_text(PROGRAM)
    made: list[Run] = []

    def start_one() -> Run:
        arguments = ("--workers", "2", "--drain", f"{DRAIN:g}s", "--url", url)
        made.append(Run(tmp_path, *arguments, env={"TOPIC": topic}))
        return made[-1]

    yield start_one
    for one in made:
        one.close()


class Load:
    """Publishes numbers in a thread, until it is ended."""

    def __init__(self, url: str, topic: str) -> None:
        self.published: list[str] = []
        self._url = url
        self._topic = topic
        self._end = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Return when nothing is published any more."""
        self._end.set()
        self._thread.join()
        assert self._error is None, self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._publish())
        except BaseException as error:
            self._error = error

    async def _publish(self) -> None:
        async with anymq.connect(self._url) as broker:
            number = 0
            while not self._end.is_set():
                await broker.publish(self._topic, f"m-{number}", timeout=30)
                self.published.append(f"m-{number}")
                number += 1
                await asyncio.sleep(1 / RATE)


def test_a_rolling_deploy_loses_nothing_and_repeats_nothing(
    make: Callable[[], Run], url: str, topic: str, tmp_path: Path
) -> None:
    old = make()
    old.ready()
    with Load(url, topic) as load:
        until(lambda: len(journal(tmp_path, "ended")) > 100)
        (tmp_path / "hold").touch()
        until(lambda: len(unfinished(tmp_path)) > 1)
        old.send(signal.SIGTERM)
        began = time.monotonic()
        until(lambda: old.get("/readyz")[0] == 503)
        in_flight = unfinished(tmp_path)
        assert in_flight
        assert old.process.poll() is None
        (tmp_path / "hold").unlink()
        assert old.code(GRACE) == 0
        assert time.monotonic() - began < GRACE
        assert not unfinished(tmp_path), "handlers in flight have ended"
        new = make()
        pids = new.ready()
        before = len(journal(tmp_path, "ended"))
        until(lambda: len(journal(tmp_path, "ended")) > before + 50)
        load.end()
        until(lambda: set(load.published) <= ended(tmp_path))
    assert new.ready() == pids
    new.send(signal.SIGTERM)
    assert new.code(GRACE) == 0
    assert Counter(body for body, _ in journal(tmp_path, "ended")) == Counter(load.published)


def test_a_killed_worker_loses_nothing(
    make: Callable[[], Run], url: str, topic: str, tmp_path: Path
) -> None:
    run = make()
    pids = run.ready()
    with Load(url, topic) as load:
        until(lambda: len(journal(tmp_path, "ended")) > 50)
        killed = journal(tmp_path, "begun")[-1][1]
        os.kill(killed, signal.SIGKILL)
        until(lambda: any("was killed by SIGKILL" in text for text in run.messages))
        others = until(lambda: found if (found := run.ready()) != pids else None)
        assert killed not in others
        load.end()
        until(lambda: set(load.published) <= ended(tmp_path))
    run.send(signal.SIGTERM)
    assert run.code(GRACE) == 0
    # Only what the killed worker had begun may have been handled again.
    counts = Counter(body for body, _ in journal(tmp_path, "ended"))
    repeated = {body for body, count in counts.items() if count > 1}
    assert repeated <= {body for body, pid in journal(tmp_path, "begun") if pid == killed}
    assert len(repeated) <= 4, "one for each handler that ran"


def test_sigterm_twice_gives_messages_back(
    make: Callable[[], Run], url: str, topic: str, tmp_path: Path
) -> None:
    (tmp_path / "hold").touch()
    run = make()
    run.ready()
    with Load(url, topic) as load:
        until(lambda: len(unfinished(tmp_path)) >= 4)
    run.send(signal.SIGTERM)
    until(lambda: run.get("/readyz")[0] == 503)
    run.send(signal.SIGTERM)
    assert run.code(DRAIN) == 143
    assert not journal(tmp_path, "ended")
    (tmp_path / "hold").unlink()
    again = make()
    until(lambda: set(load.published) <= ended(tmp_path))
    again.send(signal.SIGTERM)
    assert again.code(GRACE) == 0
    assert Counter(body for body, _ in journal(tmp_path, "ended")) == Counter(load.published)


def ended(folder: Path) -> set[str]:
    """Return the messages that were handled."""
    return {body for body, _ in journal(folder, "ended")}


def unfinished(folder: Path) -> set[str]:
    """Return the messages in handlers."""
    return {body for body, _ in journal(folder, "begun")} - ended(folder)
