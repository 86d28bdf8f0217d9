"""Opening a driver: refusals, TLS, warnings, options; and the table of errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio
import redis.exceptions
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

import anymq
from anymq.driver import REAL, Level, split_options
from anymq.errors import (
    AccessDenied,
    AnymqError,
    ConfigurationError,
    ConnectionLost,
    InvalidURL,
    MessageTooLarge,
    NotFound,
    PermanentError,
    Throttled,
    TransientError,
    translate,
)
from anymq.url import URL
from anymq_redis import RedisDriver, RedisOptions
from anymq_redis.client.codec import pack
from anymq_redis.connection import Connector
from tests.adapters.redis.support import Bench, Proxy
from tests.adapters.support import eventually, take

pytestmark = pytest.mark.redis


def port_of(url: str) -> int:
    return urlsplit(url).port or 6379


async def refused(text: str, timeout: float = 5.0) -> BaseException:
    begun = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011 - what it means is the caller's question
        await RedisDriver.open(URL.parse(text), RedisOptions(), timeout=timeout, clock=REAL)
    assert time.monotonic() - begun < 5 * timeout + 1
    return translate(caught.value, RedisDriver.errors, doing="open", where="here")


async def test_connecting_to_a_dead_address_fails() -> None:
    assert isinstance(await refused("redis://user:hunter2@127.0.0.1:1/0"), ConnectionLost)


async def test_a_server_that_does_not_answer(bench: Bench) -> None:
    async with Proxy(port_of(bench.url)) as proxy:
        proxy.answers.clear()
        assert isinstance(await refused(proxy.url, timeout=1.0), ConnectionLost)


@contextlib.asynccontextmanager
async def user(driver: RedisDriver, bench: Bench, *rules: str) -> AsyncIterator[str]:
    """A user of the server with the password `hunter2`; yields `name:password@host:port`."""
    name = f"user-{bench.name}"
    words = [word.encode() for word in ("on", ">hunter2", *rules)]
    await driver._commands.call(b"ACL", b"SETUSER", name.encode(), *words)
    try:
        yield f"{name}:hunter2@127.0.0.1:{port_of(bench.url)}"
    finally:
        await driver._commands.call(b"ACL", b"DELUSER", name.encode())


async def test_wrong_credentials_and_too_few_rights(
    bench: Bench, driver: RedisDriver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with user(driver, bench, "~*", "+ping", "+command|info") as login:
        wrong = await refused(f"redis://{login.replace('hunter2', 'hunter3')}/0")
        assert isinstance(wrong, AccessDenied)
        assert "hunter" not in str(wrong)
        url = URL.parse(f"redis://{login}/0")
        # A user without the right to CONFIG may connect.
        limited = await RedisDriver.open(url, RedisOptions(), timeout=5, clock=REAL)
        (outcome,) = await limited.publish([bench.record()])
        assert isinstance(outcome, NoPermissionError)
        assert "hunter2" not in repr(limited.native) + repr(limited.native.connection_pool)
        await limited.aclose()
    assert "hunter" not in caplog.text


async def test_a_user_who_may_not_name_its_connections_connects_without_a_name(
    bench: Bench, driver: RedisDriver
) -> None:
    async with (
        user(driver, bench, "~*", "+ping", "+command|info") as login,
        anymq.connect(f"redis://{login}/0", name="orders"),
    ):
        listed = _of_user(await driver._commands.call(b"CLIENT", b"LIST"), bench)
        assert listed
        assert b"name=orders-" not in listed


async def test_connections_have_the_name_of_their_client(bench: Bench, driver: RedisDriver) -> None:
    for given, expected in (("", "orders-"), ("?client_name=mine", "mine")):
        async with (
            user(driver, bench, "~*", "+@all") as login,
            anymq.connect(f"redis://{login}/0{given}", name="orders") as broker,
        ):
            listed = _of_user(await driver._commands.call(b"CLIENT", b"LIST"), bench)
            shown = f"name={broker.name} " if expected == "orders-" else "name=mine "
            assert shown.encode() in listed


def _of_user(listed: bytes, bench: Bench) -> bytes:
    """Return the lines of CLIENT LIST about the connections of `user`."""
    mine = f"user=user-{bench.name}".encode()
    return b"".join(line for line in listed.splitlines() if mine in line)


async def test_the_rights_that_are_said_to_suffice(bench: Bench, driver: RedisDriver) -> None:
    keys = [f"~{bench.name}", f"~{{{bench.name}}}.*", f"~{bench.name}.billing.dlq"]
    rights = ["+@connection", "+@read", "+@write", "+eval", "+evalsha", "+time"]
    async with user(driver, bench, *keys, *rights) as login:
        limited = await bench.open(f"redis://{login}/0", retention=0.1)
        source, everything = await bench.join(limited), await bench.join(limited, None)
        await limited.publish(bench.records(4))
        await take(everything, 4)  # Before the topic is trimmed.
        acked, nacked, released, rejected = await take(source, 4)
        await source.extend([acked])
        await source.ack([acked])
        await source.nack([bench.nack(nacked, 0.05)])
        await source.release([bench.nack(released, counted=False)])
        await source.reject([bench.rejected(rejected)], limited.publish)
        await take(source, 2)
        await source.aclose()
        assert await driver.native.xinfo_consumers(bench.name, "billing") == []


async def test_nothing_is_stored_by_a_publish_that_is_refused(
    bench: Bench, driver: RedisDriver
) -> None:
    rights = ["~*", "+@all", "-set"]
    async with user(driver, bench, *rights) as login:
        limited = await bench.open(f"redis://{login}/0")
        (outcome,) = await limited.publish([bench.record()])
        assert isinstance(outcome, RedisError)
        assert not await driver.native.exists(bench.name)


async def test_a_database_of_its_own(bench: Bench) -> None:
    port = port_of(bench.url)
    other = await bench.open(f"redis://127.0.0.1:{port}/3")
    await other.publish([bench.record()])
    driver = await bench.open()
    assert not await driver.native.exists(bench.name)
    await other.native.flushdb()
    no_such = await refused(f"redis://127.0.0.1:{port}/99999")
    assert isinstance(no_such, ConfigurationError)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://a,b/0", "one host"),
        ("redis://a/zero", "number of the database"),
        ("redis://a/0?ca=/etc/ca.pem", "need rediss://"),
        ("redis://a/0?timeout=0", "must be positive"),
        ("redis://a/0?retention=-1", "must be positive"),
        ("redis://a/0?client_name=a b", "client_name"),
        ("redis://a/0?timeuot=1", "did you mean 'timeout'"),
        ("redis://a/0?connections=many", "connections"),
        ("rediss://a/0?ca=/no/such/file", "cannot be used"),
    ],
)
def test_bad_urls(url: str, words: str) -> None:
    parsed = URL.parse(url)

    def connect() -> None:
        Connector(parsed, split_options(parsed, RedisOptions)[1])

    with pytest.raises(ConfigurationError, match=words):
        connect()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that signs itself, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    command = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext".split()  # noqa: SIM905
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(
        ["openssl", *command, "subjectAltName=DNS:localhost", *files],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


async def test_tls_is_verified(bench: Bench, certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with Proxy(port_of(bench.url), context) as proxy:
        port = port_of(proxy.url)
        trusted = await bench.open(f"rediss://localhost:{port}/0", ca=str(certificate))
        source = await bench.join(trusted)
        await trusted.publish([bench.record(b"x" * 100_000)])
        await take(source, 1)
        assert isinstance(await refused(f"rediss://localhost:{port}/0"), ConnectionLost)
        with pytest.raises(RedisError, match=r"(?i)certificate"):
            await bench.open(f"rediss://127.0.0.1:{port}/0", ca=str(certificate))


async def test_tls_is_never_given_up(bench: Bench) -> None:
    async with Proxy(port_of(bench.url)) as proxy:
        url = f"rediss://user:hunter2@127.0.0.1:{port_of(proxy.url)}/0"
        assert isinstance(await refused(url, timeout=1.0), ConnectionLost)
        assert b"hunter2" not in proxy.said


def exported(module: ModuleType) -> list[type[BaseException]]:
    return [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, BaseException)
    ]


@pytest.mark.parametrize("module", [redis, redis.asyncio, redis.exceptions])
def test_every_exception_of_the_client_is_mapped(module: ModuleType) -> None:
    found = exported(module)
    assert found
    for cls in found:
        error = cls.__new__(cls)
        assert isinstance(translate(error, RedisDriver.errors, doing="x", where="y"), AnymqError)


@pytest.mark.parametrize(
    ("text", "cls"),
    [
        ("MISCONF Errors writing to the AOF file", Throttled),
        ("NOREPLICAS Not enough good replicas to write.", Throttled),
        ("BUSY Redis is busy running a script", TransientError),
        ("NOGROUP No such key 'x' or consumer group 'y'", NotFound),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", ConfigurationError),
        ("string exceeds maximum allowed size (proto-max-bulk-len)", MessageTooLarge),
        ("Elements are too large to be stored", MessageTooLarge),
        ("unknown command 'XADD'", ConfigurationError),
        ("something else", PermanentError),
    ],
)
def test_errors_of_the_server_go_by_their_words(text: str, cls: type[AnymqError]) -> None:
    error = translate(ResponseError(text), RedisDriver.errors, doing="x", where="y")
    assert isinstance(error, cls)


async def test_errors_as_the_server_sends_them(bench: Bench, driver: RedisDriver) -> None:
    await driver.native.set(bench.name, "a string")
    (outcome,) = await driver.publish([bench.record()])
    assert isinstance(outcome, ResponseError)
    error = translate(outcome, RedisDriver.errors, doing="x", where="y")
    assert isinstance(error, ConfigurationError)
    await driver.native.delete(bench.name)
    assert issubclass(AuthenticationError, redis.exceptions.ConnectionError)  # the order matters


def test_the_table_of_abilities_is_complete() -> None:
    items = RedisDriver.capabilities.items()
    assert all(support.level is not Level.UNSUPPORTED for _, support in items)
    assert all(support.note for _, support in items)


def test_commands_are_packed_as_the_protocol_says() -> None:
    assert pack(b"XADD", b"", b"\r\n") == b"*3\r\n$4\r\nXADD\r\n$0\r\n\r\n$2\r\n\r\n\r\n"


async def test_a_connection_that_the_server_closed_is_replaced(
    bench: Bench, driver: RedisDriver
) -> None:
    lone = await bench.open(connections=1)
    number = await lone._commands.call(b"CLIENT", b"ID")
    assert await driver._commands.call(b"CLIENT", b"KILL", b"ID", b"%d" % number) == 1

    async def another() -> bool:
        with contextlib.suppress(RedisError):
            return bool(await lone._commands.call(b"CLIENT", b"ID") > number)
        return False

    await eventually(another)


async def test_a_slow_pool_waits_rather_than_fails(bench: Bench) -> None:
    driver = await bench.open(connections=1)
    await asyncio.gather(*(driver.ping() for _ in range(50)))


def test_invalid_urls_are_configuration_errors() -> None:
    assert issubclass(InvalidURL, ConfigurationError)
