"""Settings that cannot work are refused before anything is sent to a broker."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from anymq import App, ConfigurationError, Deadline, Idempotency, Retry, Topic, connect, register


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Topic("t", partitions=0), "partitions must be at least 1"),
        (lambda: Topic("t", retention=timedelta(0)), "retention must be positive"),
        (lambda: Topic("t", retention_bytes=0), "retention_bytes must be positive"),
        (lambda: Retry(attempts=0), "attempts must be at least 1"),
        (lambda: Retry(initial=-1), "times must not be negative"),
        (lambda: Deadline(0), "positive"),
        (lambda: Idempotency("memory://", lease=0), "positive"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make()


async def test_a_subscription_that_cannot_work_is_refused_at_once() -> None:
    async with connect("memory://") as broker:
        with pytest.raises(ConfigurationError, match="middleware wraps a handler"):
            broker.subscribe("t", group="g", middleware=[Retry()])
        with pytest.raises(ConfigurationError, match="too long together"):
            broker.subscribe("t" * 190, group="g" * 60)


def test_a_handler_that_cannot_be_called_by_name_is_refused() -> None:
    async def positional(body: str, /) -> None: ...

    with pytest.raises(ConfigurationError, match="positional-only"):
        App("memory://").subscriber("t", group="g")(positional)


async def test_a_store_that_is_none_is_refused() -> None:
    register("number", "builtins:int", group="anymq.stores")

    async def handle(body: str) -> None: ...

    async with connect("memory://") as broker:
        chain = [Idempotency("number://")]
        subscription = broker.subscribe("t", group="g", handler=handle, middleware=chain)
        with pytest.raises(ConfigurationError, match="not a Store"):
            await subscription.__aenter__()


async def test_a_scheme_that_two_adapters_claim_is_refused_with_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claims = EntryPoints(
        EntryPoint("acme", f"anymq_{name}:Driver", "anymq.adapters") for name in ("one", "two")
    )
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: claims)
    with pytest.raises(ConfigurationError, match=r"acme://.*anymq_one:Driver.*anymq_two:Driver"):
        await connect("acme://host")
