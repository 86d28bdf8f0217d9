"""The guards around nats-py: each against what the unguarded client does."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
import pytest_asyncio
from nats.aio.client import Client
from nats.protocol.parser import Parser

from anymq.driver import REAL, Record, TopicSpec
from anymq.errors import AccessDenied, translate
from anymq.url import URL
from anymq_nats import NatsDriver, NatsOptions, connection
from anymq_nats.client import internals
from anymq_nats.client.internals import FastClient
from anymq_nats.client.parser import SinkParser
from anymq_nats.errors import NotPermitted
from tests.adapters.nats.support import FakeServer
from tests.adapters.support import eventually

SECRET = "hunter2"
TLS = Path(__file__).with_name("tls")


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(TLS / "server.pem", TLS / "server.key")
    return made


async def opened(url: str, timeout: float = 5.0, **options: object) -> NatsDriver:
    chosen = NatsOptions(**options)  # type: ignore[arg-type]
    return await NatsDriver.open(URL.parse(url), chosen, timeout=timeout, clock=REAL)


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeServer]:
    async with FakeServer() as made:
        yield made


@pytest_asyncio.fixture
async def client(fake: FakeServer) -> AsyncIterator[NatsDriver]:
    driver = await opened(f"nats://127.0.0.1:{fake.port}")
    yield driver
    await driver.aclose()


def test_nats_py_still_has_what_the_guards_override() -> None:
    pairs = [(FastClient, Client), (SinkParser, Parser)]
    for mine, theirs in pairs:
        for name, method in vars(mine).items():
            if inspect.isfunction(method) and name in vars(theirs) and name != "__init__":
                original = inspect.signature(vars(theirs)[name])
                assert list(inspect.signature(method).parameters) == list(original.parameters)
    assert isinstance(vars(Client)["ssl_context"], property)
    overridden = {"_connect_to_server", "_connect_command", "_process_pong", "_process_op_err"}
    assert overridden <= vars(FastClient).keys() & vars(Client).keys()
    assert {"parse", "reset"} <= vars(SinkParser).keys() & vars(Parser).keys()


async def test_nothing_is_said_to_a_plaintext_server_behind_tls(fake: FakeServer) -> None:
    with pytest.raises(nats.errors.SecureConnWantedError):
        await opened(f"tls://someone:{SECRET}@127.0.0.1:{fake.port}")
    assert fake.connections >= 1
    assert fake.heard == b""


async def test_nothing_is_said_to_a_plaintext_server_that_took_over() -> None:
    async with FakeServer(context=context()) as honest:
        port = honest.port
        driver = await opened(f"tls://s:{SECRET}@127.0.0.1:{port}", ca=str(TLS / "ca.pem"))
        assert any(SECRET.encode() in command for command in honest.commands)
    try:
        async with FakeServer(port) as impostor:

            async def tried() -> bool:
                return impostor.connections >= 2

            await eventually(tried)
            assert impostor.heard == b""
            assert not driver.native.is_connected
    finally:
        await driver.aclose()


@pytest.mark.parametrize(("host", "ca"), [("127.0.0.1", None), ("127.0.0.2", "ca.pem")])
async def test_certificate_and_host_name_are_verified(host: str, ca: str | None) -> None:
    async with FakeServer(host=host, context=context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError) as raised:
            await opened(
                f"tls://someone:{SECRET}@{host}:{server.port}", ca=str(TLS / ca) if ca else None
            )
        assert server.commands == []
    error = translate(raised.value, NatsDriver.errors, doing="connect", where="nats://…")
    assert isinstance(error, AccessDenied)


async def test_a_server_that_asks_for_tls_gets_it_whatever_the_scheme() -> None:
    async with FakeServer(context=context()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await opened(f"nats://someone:{SECRET}@127.0.0.1:{server.port}")
        assert server.commands == []


async def test_certificates_are_not_read_before_they_are_needed(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ssl, "create_default_context")
    driver = await opened(f"nats://127.0.0.1:{fake.port}")
    await driver.aclose()


async def test_refused_credentials_end_the_attempt() -> None:
    async with FakeServer(refusing=True) as server:
        begun = time.monotonic()
        with pytest.raises(NotPermitted) as raised:
            await opened(f"nats://someone:{SECRET}@127.0.0.1:{server.port}", timeout=10.0)
        assert time.monotonic() - begun < 5
        assert SECRET not in str(raised.value)


async def test_servers_that_are_not_there_fail_at_once() -> None:
    begun = time.monotonic()
    with pytest.raises(OSError, match="Connect call failed"):
        await opened("nats://127.0.0.1:1,127.0.0.1:2", timeout=10.0)
    assert time.monotonic() - begun < 5


async def test_a_server_that_says_nothing_fails_in_time() -> None:
    async with FakeServer(mute=True) as silent:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await opened(f"nats://127.0.0.1:{silent.port}", timeout=1.0)
        assert time.monotonic() - begun < 10


async def test_one_of_several_servers_is_enough(fake: FakeServer) -> None:
    driver = await opened(f"nats://127.0.0.1:1,127.0.0.1:{fake.port}")
    await driver.ping()
    await driver.aclose()


async def test_what_is_sent_without_a_connection_is_refused_not_kept(
    fake: FakeServer, client: NatsDriver
) -> None:
    native = client.native
    assert isinstance(native, FastClient)
    fake.cut()

    async def broken() -> bool:
        return not native.is_connected

    await eventually(broken)
    with pytest.raises(nats.errors.ConnectionReconnectingError):
        native.write(b"PUB late 0\r\n\r\n")
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        await native.publish("late")
    await client.ping()
    assert not [command for command in fake.commands if command.startswith(b"PUB late")]


async def test_a_waiting_call_hears_of_the_broken_connection(
    fake: FakeServer, client: NatsDriver
) -> None:
    fake.answering = False
    waiting = asyncio.create_task(client.ping())

    async def asked() -> bool:
        return fake.commands.count(b"PING\r\n") >= 2

    await eventually(asked)
    fake.cut()
    begun = time.monotonic()
    with pytest.raises((nats.errors.Error, OSError)):
        await waiting
    assert time.monotonic() - begun < 10
    fake.answering = True


async def test_a_late_pong_does_not_end_the_reader(fake: FakeServer, client: NatsDriver) -> None:
    fake.answering = False
    with pytest.raises(nats.errors.TimeoutError):
        await client.native.rtt(timeout=0.05)  # type: ignore[arg-type]
    fake.answering = True
    fake.say("PONG")
    await client.ping()
    assert fake.connections == 1


async def test_a_failing_listener_does_not_end_the_reader(
    fake: FakeServer, client: NatsDriver
) -> None:
    native = client.native
    assert isinstance(native, FastClient)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    sid = await native.attach("subject", fail)
    fake.say(f"MSG subject {sid} 0\r\n")
    await client.ping()
    assert fake.connections == 1


async def test_a_silent_connection_is_given_up(
    fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # nats-py #671: its own pings may not notice.
    monkeypatch.setattr(internals, "MAX_SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(connection, "_WATCHDOG_SECONDS", 0.1)
    client = await opened(f"nats://127.0.0.1:{fake.port}")

    async def again() -> bool:
        return fake.connections >= 2

    await eventually(again)
    await client.ping()
    await client.aclose()


async def test_a_connection_closed_for_good_is_replaced(
    fake: FakeServer, client: NatsDriver
) -> None:
    first = client.native
    fake.say("-ERR 'User Authentication Revoked'")

    async def closed() -> bool:
        return first.is_closed

    await eventually(closed)
    await client.ping()
    assert client.native is not first
    assert client.native.is_connected


async def test_a_publish_without_permission_fails_at_once() -> None:
    async with FakeServer(denied="secret $JS.API.STREAM.NAMES") as server:
        driver = await opened(f"nats://127.0.0.1:{server.port}")
        await driver.declare(TopicSpec(name="secret", native="secret", create=False))
        begun = time.monotonic()
        (outcome,) = await driver.publish([Record(topic="secret", id="1", unique="1", body=b"")])
        assert isinstance(outcome, NotPermitted)
        assert time.monotonic() - begun < 10
        await driver.aclose()


async def test_closing_ends_while_the_server_takes_nothing(
    fake: FakeServer, client: NatsDriver
) -> None:
    fake.answering = False
    native = client.native
    assert isinstance(native, FastClient)
    native.write(b"PUB big 4000000\r\n" + b"x" * 4_000_000 + b"\r\n")
    begun = time.monotonic()
    await client.aclose()
    await client.aclose()
    assert time.monotonic() - begun < 5
