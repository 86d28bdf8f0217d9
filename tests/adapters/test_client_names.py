"""What the server's tools show as the name of a connection: the URL's, or that of the broker."""

from __future__ import annotations

from typing import Any

import pytest

from anymq import connect
from anymq.driver.registry import load_driver
from brokers import server


@pytest.mark.parametrize("scheme", ["kafka", "amqp", "nats", "redis"])
def test_the_name_is_an_option_of_the_url(scheme: str) -> None:
    driver = load_driver(scheme)
    assert driver.name_option in driver.options.__dataclass_fields__


@pytest.mark.rabbitmq
@pytest.mark.parametrize("option", ["", "?connection_name=mine"])
async def test_rabbitmq(option: str) -> None:
    async with connect(server("rabbitmq").url + option, name="orders") as broker:
        shown = broker.native.kwargs["client_properties"]["connection_name"]
        assert shown == f"{'mine' if option else broker.name} consumer"


@pytest.mark.nats
@pytest.mark.parametrize("option", ["", "?name=mine"])
async def test_nats(option: str) -> None:
    async with connect(server("nats").url + option, name="orders") as broker:
        assert broker.native.options["name"] == ("mine" if option else broker.name)


@pytest.mark.kafka
@pytest.mark.parametrize("option", ["", "?client_id=mine"])
async def test_kafka(option: str) -> None:
    async with connect(server("kafka").url + option, name="orders") as broker:
        client: Any = broker.native
        assert client.client._client_id == ("mine" if option else broker.name)
