"""The plain client, which uses only the public interface of nats-py."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client

from anymq import InvalidURL, connect
from anymq.driver import REAL
from anymq.errors import ConfigurationError
from anymq.testing.suite.round_trip import ODD_HEADERS
from anymq.url import URL
from anymq_nats import NatsDriver, NatsOptions
from anymq_nats.client import compat
from anymq_nats.client.internals import FastClient
from anymq_nats.client.plain import PlainClient
from anymq_nats.client.protocol import ACK, publish, settlements
from anymq_nats.client.transport import RawClient
from tests.adapters.nats.support import Bench, FakeServer
from tests.adapters.support import eventually

RANGE = r"pip install 'nats-py\S*[<>]\S+'"


async def opened(server: FakeServer, **options: Any) -> NatsDriver:
    url = URL.parse(f"nats://127.0.0.1:{server.port}")
    # With a domain, no answer of JetStream is needed.
    chosen = NatsOptions(domain="hub", **options)
    return await NatsDriver.open(url, chosen, timeout=5.0, clock=REAL)


def client_of(driver: NatsDriver) -> RawClient:
    assert isinstance(driver.native, RawClient)
    return driver.native


def moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nats-py look like a release that has moved a private part."""
    monkeypatch.setattr(compat, "private_parts", lambda: {Client: ("_moved",)})


async def test_the_fast_client_is_the_default() -> None:
    async with FakeServer() as server:
        driver = await opened(server)
        assert isinstance(driver.native, FastClient)
        await driver.aclose()


@pytest.mark.parametrize("how", ["attribute", "module"])
async def test_a_release_without_the_private_parts_is_used_as_plain_with_one_warning(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if how == "attribute":
        moved(monkeypatch)
    else:
        monkeypatch.setitem(sys.modules, "nats.protocol.parser", None)
    async with FakeServer() as server:
        with caplog.at_level(logging.WARNING, "anymq"):
            driver = await opened(server)
        assert isinstance(driver.native, PlainClient)
        await driver.ping()
        await driver.aclose()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    missing = "_moved" if how == "attribute" else "module nats.protocol.parser"
    caplog.clear()
    with pytest.raises(ConfigurationError, match=f"Client has no {missing}; run: {RANGE}"):
        raise ConfigurationError(record.getMessage())


async def test_what_both_clients_need_is_checked_by_the_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(NatsDriver, "client_parts", {Client: ("_moved",)})
    with pytest.raises(ConfigurationError, match=f"Client has no _moved; run: {RANGE}"):
        await connect("nats://127.0.0.1:1")


@pytest.mark.parametrize("reason", ["wanted", "moved"])
def test_encryption_that_cannot_be_ensured_is_refused(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "moved":
        moved(monkeypatch)
    wanted: Any = "fast" if reason == "moved" else "plain"
    with pytest.raises(ConfigurationError, match="tls_first=true") as raised:
        compat.choose_client(wanted, encrypt=True, tls_first=False)
    assert ("_moved" in str(raised.value)) == (reason == "moved")
    assert compat.choose_client(wanted, encrypt=True, tls_first=True) is PlainClient


async def test_there_is_no_third_client() -> None:
    with pytest.raises(InvalidURL, match="client"):
        await connect("nats://127.0.0.1:1?client=other")


async def test_both_clients_send_the_same_commands() -> None:
    block = b"NATS/1.0\r\nNats-Msg-Id: 1\r\nname: value\r\n\r\n"
    data = settlements(ACK, [b"$JS.ACK.a", b"$JS.ACK.b"])
    data += publish(b"orders", b"body\r\nbody", b"inbox.7")
    data += b"HPUB orders inbox.8 %d %d\r\n%b12\r\n" % (len(block), len(block) + 2, block)
    heard: dict[str, list[list[bytes]]] = {}
    for name in ("fast", "plain"):
        async with FakeServer() as server:
            driver = await opened(server, client=name)
            before = len(server.commands)
            await asyncio.wait_for(client_of(driver).write_ping(data), 5)
            sent = [line.split() for line in server.commands[before:]]
            heard[name] = [words for words in sent if words[0] in (b"PUB", b"HPUB")]
            await driver.aclose()
    assert heard["plain"] == heard["fast"]
    assert len(heard["plain"]) == 4


async def test_messages_and_status_lines_reach_the_sink_alike() -> None:
    heard: dict[str, list[tuple[bytes, bytes, bytes, bytes | None]]] = {}
    for name in ("fast", "plain"):
        async with FakeServer() as server:
            driver = await opened(server, client=name)
            client, got = client_of(driver), list[tuple[bytes, bytes, bytes, bytes | None]]()
            await client.attach("subject", lambda *message, got=got: got.append(message))
            await driver.ping()
            (sid,) = [line.split()[-1].decode() for line in server.commands if b" subject " in line]
            server.say(f"MSG subject {sid} 1\r\nx")
            server.say(f"MSG subject {sid} $JS.ACK.a 1\r\ny")
            server.say(f"HMSG subject {sid} 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n")
            server.say(f"HMSG subject {sid} 16 16\r\nNATS/1.0 503\r\n\r\n")
            server.say(f"HMSG subject {sid} $JS.ACK.b 23 24\r\nNATS/1.0\r\nStatus: 7\r\n\r\nz")

            async def all_of_them(got: list[Any] = got) -> bool:
                return len(got) == 5

            await eventually(all_of_them)
            heard[name] = [(*item[:3], (item[3] or b"").replace(b" \r\n", b"\r\n")) for item in got]
            await driver.aclose()
    assert heard["plain"] == heard["fast"]


async def test_a_broken_connection_is_told_and_nothing_is_sent_late() -> None:
    async with FakeServer() as server:
        driver = await opened(server, client="plain")
        client = client_of(driver)
        server.answering = False
        waiting = asyncio.create_task(driver.ping())

        async def asked() -> bool:
            return server.commands.count(b"PING\r\n") >= 2

        await eventually(asked)
        client.write(publish(b"late"))
        server.cut()
        with pytest.raises((nats.errors.Error, OSError)):
            await waiting
        with pytest.raises(nats.errors.ConnectionReconnectingError):
            client.write(publish(b"later"))
        server.answering = True
        await driver.ping()
        assert not [line for line in server.commands if line.startswith(b"PUB late")]
        await driver.aclose()


async def test_a_subscription_that_ended_in_an_outage_is_not_renewed() -> None:
    async with FakeServer() as server:
        driver = await opened(server, client="plain")
        client = client_of(driver)
        kept = await client.attach("kept", lambda *_: None)
        ended = await client.attach("ended", lambda *_: None)
        await driver.ping()
        server.cut()

        async def broken() -> bool:
            return not client.is_connected

        await eventually(broken)
        client.detach(ended)
        server.commands.clear()

        async def restored() -> bool:
            return client.is_connected

        await eventually(restored)
        await driver.ping()
        renewed = {line.split()[1] for line in server.commands if line.startswith(b"SUB ")}
        assert b"kept" in renewed
        assert b"ended" not in renewed
        client.detach(kept)
        await driver.aclose()


@pytest.mark.nats
async def test_header_values_arrive_trimmed_and_otherwise_unchanged(bench: Bench) -> None:
    await bench.open()
    async with connect(f"{bench.url}?client=plain") as broker:
        assert isinstance(broker.native, PlainClient)
        await broker.publish(bench.name, b"", key="ключ 1", headers=ODD_HEADERS, id=" an id ")
        async with broker.subscribe(bench.name, group="g") as deliveries:
            delivery = await anext(deliveries)
            await delivery.ack()
    message = delivery.message
    assert (message.id, message.key) == (" an id ", "ключ 1")
    assert message.headers == {name: value.strip() for name, value in ODD_HEADERS.items()}
