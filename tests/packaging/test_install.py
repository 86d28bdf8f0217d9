"""`pip install anymq[redis]` in an empty environment: what comes, what works, what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import brokers
from tests.packaging.conftest import built_once, run

pytestmark = built_once

INSTALLED = """
import json
from importlib.metadata import distributions
print(json.dumps([d.name.lower().replace("_", "-") for d in distributions()]))
"""

ROUND_TRIP = """
import asyncio, sys, uuid
import anymq

async def main(url):
    topic = f"installed-{uuid.uuid4().hex}"
    async with anymq.connect(url) as broker:
        await broker.publish(topic, "hello")
        async with broker.subscribe(topic, group="readers") as deliveries:
            async for delivery in deliveries:
                print(delivery.message.body.decode())
                await delivery.ack()
                break

asyncio.run(main(sys.argv[1]))
"""

REFUSED = """
import asyncio, sys
import anymq

async def main(url):
    try:
        async with anymq.connect(url):
            pass
    except anymq.MissingDependency as error:
        print(error)

asyncio.run(main(sys.argv[1]))
"""


def test_only_one_client_is_installed(user_python: str) -> None:
    installed = set(json.loads(run(user_python, "-c", INSTALLED)))
    assert {"anymq", "pydantic", "redis"} <= installed
    assert installed.isdisjoint({"aiokafka", "aio-pika", "nats-py", "pytest", "uvloop"})


@pytest.mark.redis
def test_the_installed_backend_works(user_python: str) -> None:
    assert run(user_python, "-c", ROUND_TRIP, brokers.server("redis").url) == "hello\n"


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_embedded_backends_need_no_extra(scheme: str, user_python: str, tmp_path: Path) -> None:
    url = "memory://" if scheme == "memory" else f"sqlite:///{tmp_path}/messages.db"
    assert run(user_python, "-c", ROUND_TRIP, url) == "hello\n"


@pytest.mark.parametrize(
    ("url", "extra"),
    [
        ("kafka://localhost", "kafka"),
        ("amqp://localhost", "rabbitmq"),
        ("nats://localhost", "nats"),
    ],
)
def test_another_backend_says_what_to_install(url: str, extra: str, user_python: str) -> None:
    assert f"pip install 'anymq[{extra}]'" in run(user_python, "-c", REFUSED, url)
