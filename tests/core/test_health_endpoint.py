"""The health endpoint: what it answers to requests, good and bad, over HTTP and ASGI."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from anymq import App, ConfigurationError, health
from anymq.health import server as served
from anymq.health.mounted import ASGI
from anymq.health.report import Health
from anymq.health.server import Address, HealthServer

WITHIN = 30.0


@pytest.fixture
def app() -> App:
    app = App("memory://", name="shop")

    @app.subscriber("t", group="g")
    async def handle(body: str) -> None: ...

    return app


@pytest_asyncio.fixture
async def address(app: App) -> AsyncIterator[Address]:
    server = HealthServer(app)
    yield await server.start(Address("127.0.0.1", 0))
    await server.aclose()


async def exchange(address: Address, request: bytes, *, ends: bool = False) -> bytes:
    """Return all that the server answers to `request`."""
    async with asyncio.timeout(WITHIN):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(request)
        if ends:
            writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()


async def get(address: Address, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of the answer."""
    request = f"{method} {path} HTTP/1.1\r\nhost: x\r\nuser-agent: kube-probe/1.34\r\n\r\n"
    head, _, body = (await exchange(address, request.encode())).decode().partition("\r\n\r\n")
    first, *fields = head.split("\r\n")
    headers = dict(field.split(": ", 1) for field in fields)
    return int(first.split()[1]), headers, body


async def test_probes_follow_the_app(app: App, address: Address) -> None:
    assert (await get(address, "/livez"))[0] == 200
    status, _, body = await get(address, "/readyz")
    assert status == 503
    assert json.loads(body)["problems"] == ["the app is stopped"]
    async with app:
        for path in ("/livez", "/readyz?verbose=1", "/metrics"):
            status, headers, body = await get(address, path)
            assert status == 200
            assert int(headers["content-length"]) == len(body.encode())
            assert headers["connection"] == "close"
        status, headers, body = await get(address, "/metrics")
        assert "anymq_ready 1\n" in body
        assert headers["content-type"].startswith("text/plain; version=0.0.4")
        status, headers, body = await get(address, "/readyz", "HEAD")
        assert (status, body) == (200, "")
        assert int(headers["content-length"]) > 0
    assert (await get(address, "/readyz"))[0] == 503


async def test_other_paths_and_methods_are_refused(address: Address) -> None:
    status, _, body = await get(address, "/")
    assert status == 404
    assert "/livez, /readyz, /metrics" in body
    status, headers, _ = await get(address, "/livez", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /livez\r\n\r\n",
        b"GET /livez HTTP/2.0\r\n\r\n",
        b"GET livez HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n folded: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n",
        "GET /é HTTP/1.1\r\n\r\n".encode(),
        b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_a_malformed_request_is_answered_400(address: Address, request_: bytes) -> None:
    assert (await exchange(address, request_)).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert (await get(address, "/livez"))[0] == 200


async def test_a_request_that_ends_early(address: Address) -> None:
    assert await exchange(address, b"", ends=True) == b""
    answered = await exchange(address, b"GET /livez HTTP/1.1\r\n", ends=True)
    assert answered.startswith(b"HTTP/1.1 400 ")


async def test_a_slow_client_is_not_waited_for(
    address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "REQUEST_SECONDS", 0.05)
    assert (await exchange(address, b"GET /livez")).startswith(b"HTTP/1.1 408 ")


async def test_connections_are_limited(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "MAX_CONNECTIONS", 1)
    _, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /livez")
    with contextlib.suppress(ConnectionResetError):
        assert await exchange(address, b"GET /livez HTTP/1.1\r\n\r\n") == b""
    writer.close()


async def test_closing_ends_open_requests(app: App) -> None:
    server = HealthServer(app)
    address = await server.start(Address("127.0.0.1", 0))
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET /livez HTTP/1.1\r\n")
    await get(address, "/livez")  # so that the first one is being served
    async with asyncio.timeout(WITHIN):
        await server.aclose()
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection(*address)


class Failing:
    """A reporter with a defect."""

    async def health(self) -> Health:
        raise ValueError("a defect")

    async def metrics(self) -> str:
        raise ValueError("a defect")


async def test_a_report_that_fails_is_said(caplog: pytest.LogCaptureFixture) -> None:
    server = HealthServer(Failing())
    address = await server.start(Address("127.0.0.1", 0))
    status, _, body = await get(address, "/readyz")
    assert status == 500
    assert "a defect" in body
    assert [record.levelno for record in caplog.records if record.exc_info] == [logging.ERROR]
    await server.aclose()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        (":8080", ("", 8080)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert Address.parse(text) == address
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "8080", "host", "host:", "host:x", "host:65536", "::1:80", "[a]:1", "a b:1", ":²"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address for health"):
        Address.parse(text)


async def test_an_address_that_cannot_be_used_is_said(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match="another process uses this port"):
            await app.serve(health=f"127.0.0.1:{port}")
    with pytest.raises(ConfigurationError, match="cannot serve health at 192"):
        await app.serve(health="192.0.2.1:0")
    assert not (await app.health()).ready


async def call(application: ASGI, path: str, **scope: Any) -> tuple[int, str]:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("it reads no body")

    async def send(event: Any) -> None:
        sent.append(event)

    await application({"type": "http", "method": "GET", "path": path, **scope}, receive, send)
    start, body = sent
    return start["status"], body["body"].decode()


async def test_mounted_in_a_framework(app: App) -> None:
    mounted = health.asgi(app)
    assert (await call(mounted, "/readyz"))[0] == 503
    async with app:
        assert (await call(mounted, "/readyz"))[0] == 200
        status, body = await call(mounted, "/health/metrics", root_path="/health")
        assert status == 200
        assert "anymq_live 1" in body
        assert await call(mounted, "/livez", method="HEAD") == (200, "")
        assert (await call(mounted, "/other"))[0] == 404
    with pytest.raises(RuntimeError, match="not websocket"):
        await call(mounted, "/livez", type="websocket")


async def test_the_lifespan_of_a_framework(app: App) -> None:
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": next(events)}

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await health.asgi(app)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
