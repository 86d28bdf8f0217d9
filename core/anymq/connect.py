"""`connect`: opens a `Broker` for a URL."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

from .broker import Broker
from .client_logs import limit_repeats
from .client_name import DEFAULT_NAME, client_name
from .credentials import check_credentials
from .driver.base import Driver
from .driver.clock import REAL, Clock
from .errors import AccessDenied, ConfigurationError, ConnectionLost, TransientError, translate
from .logs import logger
from .middleware import PublishMiddleware
from .names import check_attribute, check_headers, check_topic
from .native_names import NativeNames
from .tls import UNVERIFIED, is_unverified
from .url import URL

log = logger("anymq")

FIRST_PAUSE, MAX_PAUSE = 0.1, 2.0
"""Seconds between two attempts to connect, doubled after each."""
MIN_ATTEMPT_SECONDS = 0.5
"""The least time left, in seconds, with which another attempt to connect starts."""


def connect(
    url: str | None = None,
    *,
    name: str | None = None,
    source: str | None = None,
    names: Mapping[str, str] | None = None,
    publish_middleware: Sequence[PublishMiddleware] = (),
    clock: Clock = REAL,
    isolated: bool = False,
) -> Connecting:
    """Connect to the broker that `url` names, by default the URL of the environment.

    ::

        async with anymq.connect("sqlite:///app.db") as broker:
            await broker.publish("orders", {"id": 17})

    Use the result with `async with`, or await it for a `Broker` that you close yourself. `name` is
    the application's: `Broker.name` begins with it. `source` is the CloudEvents source of published
    messages (default: the URL's option `source`, then `name`, then `anymq`). `names` maps a topic,
    or `topic.group`, to a name that exists on the broker; anymq never creates mapped names.

    Without `url`, the URL is that of `ANYMQ_URL`, of the file that `ANYMQ_URL_FILE` names, or of
    `anymq.toml`. Options that the URL does not set come from there too, also with a `url`.
    `isolated=True` reads neither environment nor files.

    If the broker does not answer, connecting is retried for the URL's `connect_timeout` (10 s).
    Then `ConnectionLost` is raised, at most 1 s later. Permanent errors such as `InvalidURL`,
    `UnknownScheme`, `MissingDependency` and `AccessDenied` are raised at once. No error shows the
    password.
    """
    if not url:
        if isolated:
            raise ConfigurationError("isolated=True needs a URL")
        from .settings import NO_URL, names_url

        if not names_url():
            raise ConfigurationError(NO_URL)
    return Connecting(
        url,
        name,
        source,
        names if isinstance(names, NativeNames) else NativeNames(names),
        tuple(publish_middleware),
        clock,
        isolated,
    )


class Connecting(AbstractAsyncContextManager["Broker"]):
    """The result of `connect`, for `async with` or `await`."""

    def __init__(
        self,
        url: str | None,
        name: str | None,
        source: str | None,
        names: NativeNames,
        publish_middleware: tuple[PublishMiddleware, ...],
        clock: Clock,
        isolated: bool,
    ) -> None:
        self._arguments = (url, name, source, names, publish_middleware, clock, isolated)
        self._broker: Broker | None = None

    def __await__(self) -> Generator[Any, None, Broker]:
        return _open(*self._arguments).__await__()

    async def __aenter__(self) -> Broker:
        self._broker = await _open(*self._arguments)
        return self._broker

    async def __aexit__(self, *_: object) -> None:
        assert self._broker is not None
        await self._broker.aclose()


async def _open(
    text: str | None,
    name: str | None,
    source: str | None,
    names: NativeNames,
    publish_middleware: tuple[PublishMiddleware, ...],
    clock: Clock,
    isolated: bool,
) -> Broker:
    from .settings import effective

    settings = effective(text, isolated=isolated)
    url, driver_type, options = settings.url, settings.driver, settings.options
    for library in driver_type.client_loggers:
        limit_repeats(library)
    if not options.allow_insecure_auth:
        check_credentials(url, driver_type.tls_schemes)
    for topic, native in names.items():
        check_topic(topic)
        if not isinstance(native, str) or not native:
            raise ConfigurationError(f"names: {topic!r} is mapped to {native!r}, not to a name")
    if name is not None:
        check_attribute("name", name)
    if source is not None:
        check_headers({"source": source})
    client, own = client_name(name), settings.own
    if driver_type.name_option and not settings.states(driver_type.name_option):
        own = replace(own, **{driver_type.name_option: client})
    driver = await _connected(driver_type, url, own, options.connect_timeout, clock)
    log.info("connected to %s as %s; durability: %s", url, client, driver.capabilities.durability)
    return Broker(
        driver,
        url,
        options=options,
        name=client,
        source=source or options.source or name or DEFAULT_NAME,
        names=names,
        publish_middleware=publish_middleware,
        clock=clock,
    )


async def _connected(
    driver_type: type[Driver], url: URL, own: Any, timeout: float, clock: Clock
) -> Driver:
    """Return an open driver; what may pass, as a server that is just starting, is tried again.

    So are refused credentials that have been replaced in their file since.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + timeout
    pause = FIRST_PAUSE
    while True:
        tried = url.current()
        try:
            return await _connected_once(driver_type, url, own, until - loop.time(), clock)
        except (AccessDenied, TransientError) as error:
            if isinstance(error, AccessDenied) and url.current() == tried:
                raise  # Otherwise the password was rotated meanwhile.
            left = until - loop.time() - MIN_ATTEMPT_SECONDS
            if left <= 0:
                raise
            if pause == FIRST_PAUSE:
                log.warning("%s; retrying for %g s", error, timeout)
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 2, MAX_PAUSE)


async def _connected_once(
    driver_type: type[Driver], url: URL, own: Any, timeout: float, clock: Clock
) -> Driver:
    try:
        async with asyncio.timeout(timeout + 1):
            return await driver_type.open(url, own, timeout=timeout, clock=clock)
    except TimeoutError as late:
        raise ConnectionLost(
            f"connecting to {url} failed: no answer within {timeout:.3g} s; "
            "check that the server is running and reachable"
        ) from late
    except Exception as raw:
        if is_unverified(raw):
            raise AccessDenied(f"connecting failed on {url}: {UNVERIFIED} ({raw})") from raw
        error = translate(raw, driver_type.errors, doing="connecting", where=str(url))
        hint = ""
        if isinstance(error, AccessDenied) and url.hosts:
            hint = "; check the user and password in the URL"
        elif isinstance(error, ConnectionLost):
            hint = "; check that the server is running, and the host and port in the URL"
        if not hint:
            raise error from (raw if error is not raw else raw.__cause__)
        raise type(error)(f"{error}{hint}") from (raw if error is not raw else raw.__cause__)
