"""Logging in, TLS, and what is said when either is refused."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from anymq.driver import REAL
from anymq.errors import AccessDenied, ConfigurationError, InvalidURL, TransientError, translate
from anymq.url import URL
from anymq_kafka import KafkaDriver, KafkaOptions
from anymq_kafka.client.codec import CODECS
from anymq_kafka.connection import Clients
from anymq_kafka.errors import ERRORS
from brokers.errors import NotInstallable
from tests.adapters.diagnosing import diagnosis
from tests.adapters.kafka.secure import HOST, LIMITED, PASSWORD, USER, Secure, secure_server
from tests.adapters.kafka.support import Bench, numbers
from tests.adapters.support import take

# One worker runs all of them, so that the server starts once.
pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-secure")]

LOGIN = f"{USER}:{quote(PASSWORD, safe='')}@"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(secure_server(tmp_path_factory.mktemp("kafka")))
        except NotInstallable as error:
            # Where the development servers run in containers there may be no Java for this one.
            pytest.skip(str(error))
        yield server


async def meaning_of_opening(url: str, **options: Any) -> BaseException:
    started = time.monotonic()
    with pytest.raises(Exception) as caught:  # noqa: PT011
        await Bench(url).open(**options)
    assert time.monotonic() - started < 30
    assert PASSWORD not in str(caught.value)
    return translate(caught.value, ERRORS, doing="connect", where="")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plaintext", "tls"])
async def test_logging_in(secure: Secure, mechanism: str, encrypted: bool) -> None:
    url = f"kafka://{LOGIN}{HOST}:{secure.password}"
    options: dict[str, Any] = {"sasl_mechanism": mechanism}
    if encrypted:
        url = f"kafka+ssl://{LOGIN}{HOST}:{secure.tls}"
        options["ca"] = str(secure.ca)
    async with Bench(url) as bench:
        driver = await bench.open(partitions=1, **options)
        await driver.publish(bench.records(5))
        source = await bench.join(driver)
        received = await take(source, 5)
        assert numbers(received) == [0, 1, 2, 3, 4]
        await source.nack([bench.nack(item) for item in received])
        assert len(await take(source, 5)) == 5
        reader = await bench.join(driver, None)
        assert len(await take(reader, 5)) == 5


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256"])
async def test_wrong_credentials(secure: Secure, mechanism: str) -> None:
    for login in (f"{USER}:wrong@", f"nobody:{quote(PASSWORD, safe='')}@"):
        url = f"kafka://{login}{HOST}:{secure.password}"
        assert isinstance(await meaning_of_opening(url, sasl_mechanism=mechanism), AccessDenied)


async def test_no_credentials_where_some_are_asked_for(secure: Secure) -> None:
    error = await meaning_of_opening(f"kafka://{HOST}:{secure.password}", request_timeout=2.0)
    assert isinstance(error, AccessDenied | TransientError)


async def test_a_certificate_nobody_vouches_for(secure: Secure) -> None:
    error = await meaning_of_opening(f"kafka+ssl://{LOGIN}{HOST}:{secure.tls}")
    assert isinstance(error, AccessDenied)


async def test_a_certificate_of_another_host(secure: Secure) -> None:
    url = f"kafka+ssl://{LOGIN}127.0.0.1:{secure.tls}"
    error = await meaning_of_opening(url, ca=str(secure.ca))
    assert isinstance(error, AccessDenied)


async def test_tls_is_never_left_out(server_url: str) -> None:
    url = server_url.replace("kafka://", f"kafka+ssl://{LOGIN}")
    error = await meaning_of_opening(url, request_timeout=2.0)
    assert isinstance(error, AccessDenied | TransientError)


async def test_the_first_host_that_answers_is_enough(server_url: str) -> None:
    host = server_url.partition("://")[2]
    async with Bench(f"kafka://127.0.0.1:1,{host}") as bench:
        await bench.open()


@pytest.mark.parametrize(
    "options",
    [
        {"sasl_mechanism": "GSSAPI"},
        {"compression": "rar"},
        {"partitions": 0},
        {"session_timeout": -1.0},
        {"heartbeat": 5.0},
        {"commit_interval": -1.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        KafkaOptions(**options)


@pytest.mark.parametrize("url", ["kafka://", "kafka://h/path", "kafka://h?ca=/x"])
def test_bad_urls(url: str) -> None:
    parsed = URL.parse(url)
    options: dict[str, Any] = dict(parsed.query)
    with pytest.raises(InvalidURL):
        Clients(parsed, KafkaOptions(**options))


def test_what_encrypts() -> None:
    assert KafkaDriver.tls_schemes == {"kafka+ssl"}


def test_hosts_as_the_client_wants_them(tmp_path: Path) -> None:
    clients = Clients(URL.parse("kafka://a,b:9093,[::1]:9094"), KafkaOptions())
    assert clients.hosts == [("a", 9092), ("b", 9093), ("::1", 9094)]
    asked: list[str] = []
    for _ in clients.hosts:
        asked.append(clients._address()["bootstrap_servers"])
        clients._begin_with(1)  # as when that one did not answer
    assert asked == ["a:9092", "b:9093", "[::1]:9094"]


async def test_a_compression_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(_: bytes) -> bytes:
        raise AttributeError("'NoneType' object has no attribute 'lz4'")

    monkeypatch.setitem(CODECS, "lz4", (3, encode))
    with pytest.raises(ConfigurationError, match=r"aiokafka\[lz4\]"):
        await KafkaDriver.open(
            URL.parse("kafka://h"), KafkaOptions(compression="lz4"), timeout=1, clock=REAL
        )


async def test_no_log_line_of_the_client_shows_a_login(
    secure: Secure, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with Bench(f"kafka://{LOGIN}{HOST}:{secure.password}") as bench:
        await (await bench.open(sasl_mechanism="PLAIN")).ping()
    lines = [record.getMessage() for record in caplog.records if record.name == "aiokafka.conn"]
    assert any("SaslAuthenticate" in line for line in lines)
    assert not any(PASSWORD in line for line in lines)


async def test_a_diagnosis_of_a_user_with_all_rights(secure: Secure) -> None:
    found = await diagnosis(f"kafka+ssl://{LOGIN}{HOST}:{secure.tls}?ca={secure.ca}&partitions=1")
    assert [check for check in found.values() if check.outcome in ("failed", "skipped")] == []
    assert found["TLS"].outcome == "ok"
    assert f", {HOST}, valid until" in found["TLS"].detail
    assert found["connection"].detail == "the credentials were accepted"


async def test_a_diagnosis_of_a_user_without_rights(secure: Secure) -> None:
    login = LOGIN.replace(USER, LIMITED)
    found = await diagnosis(f"kafka://{login}{HOST}:{secure.password}?partitions=1")
    assert found["connection"].outcome == "ok"
    assert found["replication"].outcome == "unknown"
    assert "--operation DescribeConfigs --cluster" in found["replication"].fix
    assert found["can create topics"].outcome == "failed"
    assert "--operation Create" in found["can create topics"].fix
    assert found["can publish"].outcome == "skipped"
    assert PASSWORD not in str(found)


async def test_a_diagnosis_of_a_wrong_scheme(secure: Secure) -> None:
    plain = await diagnosis(f"kafka://{LOGIN}{HOST}:{secure.tls}?connect_timeout=2")
    assert plain["connection"].outcome == "failed"
    assert "speaks TLS" in plain["connection"].fix
    encrypted = await diagnosis(f"kafka+ssl://{LOGIN}{HOST}:{secure.password}?ca={secure.ca}")
    assert encrypted["TLS"].outcome == "failed"
    assert "scheme without TLS" in encrypted["TLS"].fix
    wrong = await diagnosis(f"kafka://{USER}:hunter2@{HOST}:{secure.password}")
    assert wrong["connection"].outcome == "failed"
    assert "password" in wrong["connection"].fix
