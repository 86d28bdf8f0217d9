"""`diagnose`: checks everything between this process and a broker, and says how to mend it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

from .connect import connect
from .credentials import check_credentials
from .driver.base import Driver
from .driver.checks import Check, Endpoint
from .driver.options import ConnectOptions
from .driver.specs import TopicSpec
from .errors import (
    AccessDenied,
    AnymqError,
    ConfigurationError,
    ConnectionLost,
    InvalidURL,
    MissingDependency,
    UnknownScheme,
    text_of,
)
from .names import check_topic
from .operating.trial import try_topic
from .reachability import CLIENT_CERTIFICATE, reach, speaks_tls
from .settings import NO_URL, effective, names_url
from .url import URL

PREFIX = "anymq-doctor-"
"""The prefix of the names of temporary topics."""


async def diagnose(url: str | None = None, *, prefix: str = PREFIX) -> AsyncGenerator[Check, None]:
    """Yield the checks of `url`, by default the environment's `ANYMQ_URL`, as they are made.

    In this order: the URL and its adapter, name resolution, TCP and TLS of each host, the
    connection with its credentials, what the server tells of its version, durability, limits and
    clock, and the permissions. After a failure the checks that depend on it are skipped.

    The permissions are tried on a temporary topic. Its name begins with `prefix`, for users whose
    rights end with a prefix; it is deleted at the end. With `declare=false` nothing is created.
    Raises `ConfigurationError` if there is no URL or `prefix` is no beginning of a topic's name.
    Everything else becomes a check. No text contains the password.
    """
    if not url and not names_url():
        raise ConfigurationError(NO_URL)
    scratch = f"{prefix}{secrets.token_hex(5)}"
    check_topic(scratch)
    async with aclosing(_diagnose(url, scratch)) as checks:
        async for check in checks:
            yield check


async def _diagnose(text: str | None, scratch: str) -> AsyncGenerator[Check, None]:
    try:
        settings = effective(text)
        if not settings.options.allow_insecure_auth:
            check_credentials(settings.url, settings.driver.tls_schemes)
        endpoints = settings.driver.endpoints(settings.url, settings.own)
    except (AnymqError, ImportError) as error:
        yield _misconfigured(error)
        return
    url = settings.url
    yield Check.ok("URL", str(url))
    yield Check.ok("adapter", settings.driver.__module__.partition(".")[0])
    failed = False
    for check in await reach(endpoints):
        failed = failed or check.outcome == "failed"
        yield check
    if failed:
        yield Check.skipped("connection", "needs: a host that can be reached")
        return
    async with aclosing(_connected(text, url, settings.options, endpoints, scratch)) as checks:
        async for check in checks:
            yield _masked(check, url)


async def _connected(
    text: str | None, url: URL, options: ConnectOptions, endpoints: Sequence[Endpoint], scratch: str
) -> AsyncGenerator[Check, None]:
    try:
        broker = await connect(text)
    except AnymqError as error:
        yield await _refused(error, url, endpoints)
        return
    try:
        untried = _untried(broker.driver, options)
        topic = None if untried else TopicSpec(name=scratch, native=scratch)
        given = url.username is not None
        yield Check.ok("connection", "the credentials were accepted" if given else "accepted")
        async with aclosing(_told(broker.driver, topic)) as checks:
            async for check in checks:
                yield check
        if untried is not None:
            yield untried
        if topic is not None:
            async with aclosing(try_topic(broker.driver, topic)) as checks:
                async for check in checks:
                    yield check
    finally:
        await broker.aclose()


def _untried(driver: Driver, options: ConnectOptions) -> Check | None:
    """Return the check that replaces the trial where no topic may be created for it."""
    if not options.declare:
        detail = "not tried, because declare=false leaves topics to the operator"
        fix = "run without declare=false, as a user who may create topics"
        return Check.unknown("permissions", detail, fix=fix)
    if not driver.capabilities.admin:
        return Check.unknown("permissions", "not tried, because this adapter deletes no topics")
    return None


async def _told(driver: Driver, scratch: TopicSpec | None) -> AsyncGenerator[Check, None]:
    """Yield what the server tells; a defect of the adapter becomes a check."""
    try:
        async with aclosing(driver.checks(scratch)) as checks:
            async for check in checks:
                yield check
    except Exception as error:
        fix = "report this error: an adapter's checks must not raise"
        yield Check.failed("server", f"{type(error).__name__}: {text_of(error)}", fix=fix)


async def _refused(error: AnymqError, url: URL, endpoints: Sequence[Endpoint]) -> Check:
    """Return the check of a connection that failed, though a host can be reached."""
    if not endpoints and not url.hosts:
        fix = "check the path, and this user's rights on the file and its folder"
    elif isinstance(error, AccessDenied):
        fix = "check the user, the password and the user's rights on the server"
    elif isinstance(error, ConfigurationError):
        fix = "correct the URL, or the server's configuration"
    else:
        fix = "check the server's log"
    for endpoint in endpoints:
        if endpoint.context is not None:
            if isinstance(error, ConnectionLost):
                fix = f"check the server's log; {CLIENT_CERTIFICATE}"
        elif await speaks_tls(endpoint):
            fix = f"{endpoint} speaks TLS: use the scheme with TLS"
    return Check.failed("connection", str(error), fix=fix)


def _misconfigured(error: BaseException) -> Check:
    """Return the check of settings with which no connection is tried."""
    if isinstance(error, InvalidURL):
        fix = "correct the URL: scheme://user:password@host:port/path?option=value"
        return Check.failed("URL", str(error), fix=fix)
    if isinstance(error, UnknownScheme):
        fix = "use one of the installed schemes, or install an adapter for this one"
        return Check.failed("adapter", str(error), fix=fix)
    if isinstance(error, MissingDependency):
        fix = "install what is missing, with the command above"
        return Check.failed("adapter", str(error), fix=fix)
    if isinstance(error, ImportError):
        return Check.failed("adapter", text_of(error), fix="reinstall the adapter and its client")
    return Check.failed("options", str(error), fix="correct the URL or the setting that it names")


def _masked(check: Check, url: URL) -> Check:
    """Return `check` without the URL's password, should a server repeat it."""
    secret = url.password
    if not secret or len(secret) < 4 or not (secret in check.detail or secret in check.fix):
        return check
    return replace(
        check, detail=check.detail.replace(secret, "***"), fix=check.fix.replace(secret, "***")
    )
