"""One application file on six URLs: its output is the same on each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anymq.testing import random_name
from brokers import server

FILE = Path(__file__).with_name("application.py")
PAID = {str(n): 2 if n % 3 == 0 else 1 for n in range(20) if n % 7 and n % 10 != 5}
DEAD = {str(n): f"1: order {n} is refused" for n in (0, 7, 14)} | {
    str(n): "3: retries exhausted after 3 attempts: ValueError: never" for n in (5, 15)
}


@pytest.mark.parametrize(
    "backend",
    [
        "memory",
        "sqlite",
        pytest.param("kafka", marks=pytest.mark.kafka),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("nats", marks=pytest.mark.nats),
        pytest.param("redis", marks=pytest.mark.redis),
    ],
)
def test_one_application_file_has_the_same_output_on_every_backend(
    backend: str, tmp_path: Path
) -> None:
    embedded = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/app.db"}
    environment = {
        **os.environ,
        "ANYMQ_URL": embedded.get(backend) or server(backend).url,
        "STATE": str(tmp_path),
    }
    ran = subprocess.run(
        [sys.executable, str(FILE), random_name("shop")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"paid": PAID, "dead": DEAD}
