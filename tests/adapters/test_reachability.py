"""Diagnosis before a driver is open: dead ports, unknown hosts, certificates, silent servers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from anymq import reachability
from tests.adapters.diagnosing import diagnosis
from tests.adapters.private import free_ports
from tests.adapters.test_tls import SCHEMES, files, serving

__all__ = ["files"]

PLAIN = ("kafka", "amqp", "nats", "redis")
DIRECT = {scheme: query for scheme, query in SCHEMES.items() if scheme != "tls"}


@pytest.mark.parametrize("scheme", [*PLAIN, *SCHEMES])
async def test_a_dead_port(scheme: str) -> None:
    (port,) = free_ports(1)
    found = await diagnosis(f"{scheme}://127.0.0.1:{port}")
    assert found["name resolution"].outcome == "ok"
    assert found["TCP"].outcome == "failed"
    assert found["TCP"].detail == f"127.0.0.1:{port}: Connection refused"
    assert "running" in found["TCP"].fix
    assert found["connection"].outcome == "skipped"
    if scheme in SCHEMES:
        assert found["TLS"].outcome == "skipped"


@pytest.mark.parametrize("scheme", PLAIN)
async def test_a_host_that_nobody_knows(scheme: str) -> None:
    found = await diagnosis(f"{scheme}://nosuch.invalid")
    assert found["name resolution"].outcome == "failed"
    assert "nosuch.invalid has no address" in found["name resolution"].detail
    assert found["TCP"].outcome == "skipped"


async def test_all_hosts_dead() -> None:
    one, two = free_ports(2)
    found = await diagnosis(f"kafka://127.0.0.1:{one},127.0.0.1:{two}")
    assert found[f"TCP 127.0.0.1:{one}"].outcome == "failed"
    assert found[f"TCP 127.0.0.1:{two}"].outcome == "failed"


@pytest.mark.parametrize("scheme", DIRECT)
async def test_an_authority_that_is_not_trusted(files: Path, scheme: str) -> None:
    async with serving(files) as port:
        found = await diagnosis(f"{scheme}://localhost:{port}")
    assert found["TLS"].outcome == "failed"
    assert found["TLS"].detail.startswith("self")
    assert "ca=" in found["TLS"].fix
    assert found["connection"].outcome == "skipped"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_certificate_for_another_host(files: Path, scheme: str) -> None:
    async with serving(files) as port:
        url = f"{scheme}://127.0.0.1:{port}?{SCHEMES[scheme]}&ca={files / 'cert.pem'}"
        found = await diagnosis(url)
    assert found["TLS"].outcome == "failed"
    assert "127.0.0.1" in found["TLS"].detail
    assert "host name" in found["TLS"].fix


async def test_a_certificate_that_expires_soon(files: Path) -> None:
    async with serving(files) as port:
        url = f"rediss://localhost:{port}?ca={files / 'cert.pem'}&connect_timeout=1&timeout=1"
        found = await diagnosis(url)
    assert found["TLS"].outcome == "warning"
    assert "localhost, valid until" in found["TLS"].detail
    assert "renew" in found["TLS"].fix
    assert found["connection"].outcome == "failed"


@pytest.mark.parametrize("scheme", DIRECT)
@pytest.mark.parametrize("answer", [b"-ERR what\r\n", b"AMQP\x00\x00\x09\x01", b""])
async def test_a_server_without_tls_behind_a_scheme_with_it(scheme: str, answer: bytes) -> None:
    async with listening(answer) as port:
        found = await diagnosis(f"{scheme}://127.0.0.1:{port}")
    assert found["TLS"].outcome == "failed"
    assert "scheme without TLS" in found["TLS"].fix


@pytest.mark.parametrize("scheme", PLAIN)
async def test_a_server_with_tls_behind_a_scheme_without_it(files: Path, scheme: str) -> None:
    async with serving(files) as port:
        found = await diagnosis(f"{scheme}://localhost:{port}?connect_timeout=1")
    assert found["connection"].outcome == "failed"
    assert "speaks TLS" in found["connection"].fix


@pytest.mark.parametrize("scheme", [*PLAIN, *SCHEMES])
async def test_a_server_that_is_silent(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(reachability, "STEP_SECONDS", 0.5)
    async with listening(None) as port:
        started = time.monotonic()
        query = f"connect_timeout=1&{SCHEMES.get(scheme, '')}".rstrip("&")
        found = await diagnosis(f"{scheme}://127.0.0.1:{port}?{query}")
        assert time.monotonic() - started < 20
    assert found["TCP"].outcome == "ok"
    late = found["TLS" if scheme in SCHEMES else "connection"]
    assert late.outcome == "failed"
    assert "no answer" in late.detail or "timed out" in late.detail.lower(), late


async def test_a_server_that_wants_a_client_certificate(files: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "cert.pem", files / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(files / "cert.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # 1.3 refuses only after the handshake
    async with listening(None, context) as port:
        found = await diagnosis(f"rediss://localhost:{port}?ca={files / 'cert.pem'}")
    assert found["TLS"].outcome == "failed"
    assert "cert=" in found["TLS"].fix


@asynccontextmanager
async def listening(
    answer: bytes | None, context: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Answer the first byte of a connection with `answer` and close it, or never answer."""
    handlers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            if answer is None:
                await reader.read()
            else:
                await reader.read(1)
                writer.write(answer)
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.wait_for(asyncio.gather(*handlers), 10)
