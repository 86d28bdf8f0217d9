"""Mapped names: `connect(names=…)`."""

from __future__ import annotations

from typing import Any

import pytest

import anymq


@pytest.mark.parametrize("native", ["", None, 5])
async def test_a_name_that_is_mapped_to_nothing_is_refused(native: Any) -> None:
    with pytest.raises(anymq.ConfigurationError, match="'orders' is mapped to"):
        await anymq.connect("memory://", names={"orders": native})


async def test_a_group_mapped_to_its_own_name_is_not_created() -> None:
    async with anymq.connect("memory://", names={"orders.g": "orders.g"}) as broker:
        await broker.publish("orders", b"x")
        with pytest.raises(anymq.NotFound):
            await broker.subscribe("orders", group="g").__aenter__()
