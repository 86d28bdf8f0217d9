"""What a process noted is there, however it ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.chaos.journal import Journal, Tail, read

NOTES_AND_DIES = """
import os, signal, sys
from pathlib import Path
from benchmarks.chaos.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(1000):
    journal.note("noted", number=number)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dying.jsonl"
    done = subprocess.run([sys.executable, "-c", NOTES_AND_DIES, path], check=False)
    assert done.returncode == -9
    events = read(tmp_path)
    assert [event["number"] for event in events] == list(range(1000))
    assert {event["by"] for event in events} == {"dying"}


def test_the_journals_of_a_folder_are_one_history(tmp_path: Path) -> None:
    first, second = Journal(tmp_path / "a.jsonl"), Journal(tmp_path / "b.jsonl")
    for number, journal in enumerate((first, second, second, first)):
        journal.note("noted", number=number)
    assert [(event["by"], event["number"]) for event in read(tmp_path)] == [
        ("a", 0),
        ("b", 1),
        ("b", 2),
        ("a", 3),
    ]
    first.close()
    second.close()


def test_a_tail_gives_each_event_once_and_no_half_lines(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path / "a.jsonl"), Tail(tmp_path)
    journal.note("one")
    assert [event["event"] for event in tail.new()] == ["one"]
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write('{"event": "tw')
        file.flush()
        assert not list(tail.new())
        file.write('o", "at": 1.0}\n')
    assert [event["event"] for event in tail.new()] == ["two"]
    journal.close()
