"""Ids and times of published messages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from uuid import RFC_4122, UUID

import pytest

from anymq.ids import new_id, stamp, stamps


def test_an_id_is_a_uuid_of_version_7_and_its_time_is_the_clocks() -> None:
    before = time.time_ns()
    text, at = stamp()
    after = time.time_ns()
    id = UUID(text)
    assert (str(id), id.version, id.variant) == (text, 7, RFC_4122)
    assert before // 1_000_000 <= id.int >> 80 <= after // 1_000_000
    moment = datetime.fromisoformat(at)
    assert at.endswith("Z")
    assert moment.tzinfo == UTC
    assert before // 1000 <= round(moment.timestamp() * 1_000_000) <= after // 1000


def test_ids_are_unique_and_sorted_within_a_millisecond_too() -> None:
    found = [new_id() for _ in range(20_000)]
    more, _ = stamps(20_000)
    found += [*more, new_id()]
    assert len(set(found)) == len(found)
    assert found == sorted(found)


def test_a_clock_set_back_repeats_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    found: list[str] = []
    for moment in (now, now - 5_000_000, now, now - 5_000_000):
        monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment)
        found += stamps(1000)[0]
    assert len(set(found)) == 4000


def test_threads_generate_no_id_twice() -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.extend([new_id() for _ in range(20_000)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 80_000


FORK = """
import os, time
time.time_ns = lambda: 1_800_000_000_000_000_000
from anymq.ids import new_id
new_id()
child = os.fork()
if child:
    os.waitpid(child, 0)
print(new_id(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_generates_its_own_ids() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], capture_output=True, text=True, check=True, timeout=60
    )
    parent_id, child_id = done.stdout.split()
    assert parent_id != child_id
