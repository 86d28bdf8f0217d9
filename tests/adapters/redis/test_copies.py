"""Copies keep all fields: names and values that are not text, and repeated names."""

from __future__ import annotations

from typing import Any

import pytest

from anymq import Delivery
from tests.adapters.redis.support import Bench
from tests.adapters.support import over_every_hop

pytestmark = pytest.mark.redis

FIELDS = [
    b"tag", b"1", b"tag", b"2", b"\xff\x00name", b"\xfe\x00", b"empty", b"", b"x-death", b"\xff",
]  # fmt: skip
OURS = (b"ce-", b"anymq-", b"content-type", b"data")


@pytest.mark.parametrize("body", [[], [b"data", b"\x00\xff"]], ids=["no body", "binary"])
async def test_a_foreign_entry_keeps_all_over_every_hop(bench: Bench, body: list[bytes]) -> None:
    """Check the entry after an immediate and a delayed retry, a dead letter and a redrive."""
    handled: list[bytes] = []
    driver: Any = await bench.open()

    async def send() -> None:
        await driver.native.execute_command("XADD", bench.name, "*", *FIELDS, *body)

    def look(delivery: Delivery) -> None:
        handled.append(delivery.message.body)

    letters = await over_every_hop(bench.url, bench.name, send=send, look=look)
    assert len(set(handled)) == 1
    (first, last), (letter,) = await _raw(driver, bench.name), await _raw(driver, letters.topic)
    for entry in (first, last, letter):
        pairs = list(zip(entry[::2], entry[1::2], strict=True))
        own = [pair for pair in pairs if not pair[0].startswith(OURS)]
        assert sorted(own) == sorted(zip(FIELDS[::2], FIELDS[1::2], strict=True))
    for entry in (last, letter):
        assert entry[-2:] == [b"data", handled[0]]


async def _raw(driver: Any, key: str) -> list[list[bytes]]:
    """Return the raw entries of a stream, which redis-py would convert to dicts."""
    script = "return redis.call('XRANGE', KEYS[1], '-', '+')"
    return [fields for _, fields in await driver.native.eval(script, 1, key)]
