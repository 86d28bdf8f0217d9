"""`reach`: name resolution, TCP and TLS of the addresses that a URL leads to."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from .driver.checks import Check, Endpoint
from .errors import text_of

STEP_SECONDS = 5.0
"""The most seconds of one step with one address."""
EXPIRY_SECONDS = 14 * 24 * 3600.0
"""A certificate that expires within this time is a warning."""
CLOSE_SECONDS = 1.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

NO_TLS = "the server speaks no TLS on this port: name its TLS port, or use the scheme without TLS"
CLIENT_CERTIFICATE = "if it asks for a client certificate, name one with cert= and key_file="
_CERTIFICATE_FIXES = {
    "self-signed": "name the authority that signed it with ca=",
    "self signed": "name the authority that signed it with ca=",
    "unable to get": "name the authority that signed it with ca=",
    "expired": "renew the server's certificate, and check this machine's clock",
    "not yet valid": "check the clocks of both machines",
    "mismatch": "use a host name that the certificate is for, or issue one for this name",
    "is not valid for": "use a host name that the certificate is for, or issue one for this name",
}


async def reach(endpoints: Sequence[Endpoint]) -> list[Check]:
    """Return the checks of all `endpoints`, which are tried at the same time.

    If there are several, their names contain the address. If at least one can be reached, failures
    of the others are warnings.
    """
    suffixes = [f" {endpoint}" if len(endpoints) > 1 else "" for endpoint in endpoints]
    found = await asyncio.gather(*map(_reach, endpoints, suffixes))
    checks = [check for checks in found for check in checks]
    if not any(all(check.outcome != "failed" for check in checks) for checks in found):
        return checks
    return [
        replace(check, outcome="warning") if check.outcome == "failed" else check
        for check in checks
    ]


async def speaks_tls(endpoint: Endpoint) -> bool:
    """Return whether the server at `endpoint` answers a TLS handshake, with any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(STEP_SECONDS):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context)
    except (OSError, EOFError):
        return False
    await _close(writer)
    return True


async def _reach(endpoint: Endpoint, suffix: str) -> list[Check]:
    steps = [f"{step}{suffix}" for step in ("name resolution", "TCP", "TLS")]
    if endpoint.context is None:
        del steps[2]
    checks = [await _resolve(endpoint, steps[0])]
    if checks[-1].outcome == "ok":
        check, connection = await _connect(endpoint, steps[1])
        checks.append(check)
        if connection is not None:
            if endpoint.context is not None:
                checks.append(await _encrypt(endpoint, endpoint.context, steps[2], connection))
            await _close(connection[1])
    skipped = [Check.skipped(name, f"needs: {checks[-1].name}") for name in steps[len(checks) :]]
    return [*checks, *skipped]


async def _resolve(endpoint: Endpoint, name: str) -> Check:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(STEP_SECONDS):
            found = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return Check.failed(name, _late(), fix="check this machine's name servers")
    except (OSError, UnicodeError) as error:
        fix = "check the host in the URL, and this machine's name servers"
        return Check.failed(name, f"{endpoint.host} has no address: {text_of(error)}", fix=fix)
    addresses = sorted({str(address[0]) for *_, address in found})
    text = ", ".join(addresses)
    return Check.ok(name, text if text == endpoint.host else f"{endpoint.host} is {text}")


async def _connect(endpoint: Endpoint, name: str) -> tuple[Check, Connection | None]:
    started = time.monotonic()
    try:
        async with asyncio.timeout(STEP_SECONDS):
            connection = await asyncio.open_connection(endpoint.host, endpoint.port)
    except TimeoutError:
        fix = "check the host, the routes to it, and firewalls that drop packets"
        return Check.failed(name, f"{endpoint}: {_late()}", fix=fix), None
    except OSError as error:
        fix = "check that the server is running, and that it listens on this address and port"
        return Check.failed(name, f"{endpoint}: {_reason(error)}", fix=fix), None
    took = (time.monotonic() - started) * 1000
    return Check.ok(name, f"{endpoint}, {took:.0f} ms"), connection


async def _encrypt(
    endpoint: Endpoint, context: ssl.SSLContext, name: str, connection: Connection
) -> Check:
    reader, writer = connection
    try:
        async with asyncio.timeout(STEP_SECONDS):
            if endpoint.greets and not _offers_tls(await reader.readline()):
                return Check.failed(name, "the server offers no TLS", fix=NO_TLS)
            await writer.start_tls(context, server_hostname=endpoint.host)
    except ssl.SSLCertVerificationError as error:
        return Check.failed(name, error.verify_message, fix=_fix(error.verify_message))
    except TimeoutError:
        return Check.failed(name, f"{_late()} to the handshake", fix=NO_TLS)
    except ssl.SSLError as error:
        refused = "certificate required" in str(error) or "alert" in str(error).lower()
        fix = CLIENT_CERTIFICATE if refused else NO_TLS
        return Check.failed(name, text_of(error), fix=fix)
    except (OSError, EOFError, ValueError) as error:
        detail = f"the server closed the connection ({text_of(error)})"
        return Check.failed(name, detail, fix=f"{NO_TLS}; {CLIENT_CERTIFICATE}")
    return _certificate(name, writer)


def _offers_tls(greeting: bytes) -> bool:
    compact = greeting.replace(b" ", b"")
    return b'"tls_required":true' in compact or b'"tls_available":true' in compact


def _certificate(name: str, writer: asyncio.StreamWriter) -> Check:
    tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
    found = tls.getpeercert() or {}
    until = ssl.cert_time_to_seconds(str(found["notAfter"]))
    date = datetime.fromtimestamp(until, UTC).date()
    detail = f"{tls.version()}, {_subject(found)}, valid until {date}"
    if until - time.time() < EXPIRY_SECONDS:
        return Check.warning(name, detail, fix="renew the server's certificate: it expires soon")
    return Check.ok(name, detail)


def _subject(certificate: object) -> str:
    assert isinstance(certificate, dict)
    pairs = [pair for names in certificate.get("subject", ()) for pair in names]
    names = dict(pairs)
    alternatives = [value for _, value in certificate.get("subjectAltName", ())]
    return names.get("commonName") or ", ".join(alternatives[:3]) or "a certificate without a name"


def _fix(reason: str) -> str:
    for text, fix in _CERTIFICATE_FIXES.items():
        if text in reason:
            return fix
    return "check the server's certificate, and ca= in the URL"


def _reason(error: OSError) -> str:
    """Return the reason without asyncio's own words around it."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else text_of(error)


def _late() -> str:
    return f"no answer within {STEP_SECONDS:g} s"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await writer.wait_closed()
