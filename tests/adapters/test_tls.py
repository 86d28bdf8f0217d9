"""A certificate that is not accepted, and a key that is encrypted: the same error on each server.

No broker is needed: the check fails before one says anything.
"""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import anymq
from anymq import AccessDenied, ConfigurationError

SCHEMES = {"kafka+ssl": "", "amqps": "", "tls": "tls_first=true", "rediss": ""}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for localhost, its key, and that key encrypted."""
    folder = tmp_path_factory.mktemp("tls")
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem"
    name = ["-addext", "subjectAltName=DNS:localhost", "-out", "cert.pem"]
    locked = "pkey -aes256 -passout pass:secret -in key.pem -out locked.pem"
    for command in ([*request.split(), *name], locked.split()):
        subprocess.run(["openssl", *command], cwd=folder, check=True, capture_output=True)
    both = (folder / "cert.pem").read_text() + (folder / "locked.pem").read_text()
    (folder / "both.pem").write_text(both)
    return folder


@asynccontextmanager
async def serving(files: Path) -> AsyncIterator[int]:
    """Serve TLS with a certificate that nobody vouches for; yield the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "cert.pem", files / "key.pem")

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("known", [False, True], ids=["unknown authority", "another host"])
async def test_a_certificate_that_is_not_accepted(files: Path, scheme: str, known: bool) -> None:
    async with serving(files) as port:
        query = f"{SCHEMES[scheme]}&ca={files / 'cert.pem'}" if known else SCHEMES[scheme]
        # The certificate is for localhost, not for this.
        url = f"{scheme}://127.0.0.1:{port}?{query}"
        with pytest.raises(AccessDenied, match=r"certificate was not accepted.*ca=") as refused:
            await _enter(url)
    assert "password" not in str(refused.value)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("option", ["key_file", "cert"])
async def test_an_encrypted_key_is_refused_and_asked_nobody_for(
    files: Path, scheme: str, option: str
) -> None:
    """Nobody sits at the terminal of a service: a prompt there would block the event loop."""
    query = f"cert={files / 'both.pem'}"
    if option == "key_file":
        query = f"cert={files / 'cert.pem'}&key_file={files / 'locked.pem'}"
    url = f"{scheme}://127.0.0.1:1?{query}&{SCHEMES[scheme]}".rstrip("&")
    with pytest.raises(ConfigurationError, match=f"private key in {option} is encrypted"):
        await _enter(url)


async def _enter(url: str) -> None:
    async with anymq.connect(url):
        pass
