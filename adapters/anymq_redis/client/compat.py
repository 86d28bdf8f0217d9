"""The parts of redis-py that the adapter needs, and the transport for the installed release."""

from __future__ import annotations

from functools import cache
from typing import Literal

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection

from anymq.driver import ConfigurationError, Parts, check_parts, logger, unfit

from .transport import Transport

log = logger("anymq.redis")

_DISTRIBUTION = "anymq"

PUBLIC_PARTS: Parts = {BlockingConnectionPool: ("aclose", "get_connection", "release")}
"""For `Driver.client_parts`: every transport needs them, so the core refuses a release without."""


def private_parts() -> Parts:
    """Return the parts that `FastTransport` needs; raises `ImportError` if their module is gone."""
    from redis._parsers.base import BaseParser

    return {
        AbstractConnection: ("_reader", "_writer", "connect", "disconnect"),
        BaseParser: ("parse_error",),
    }


@cache
def transport_for(client: Literal["fast", "plain"]) -> type[Transport]:
    """Return the transport for the URL option `client`.

    That is `PlainTransport` also where the installed release lacks a private part: then a warning
    is logged, once in a process.
    """
    if client == "fast":
        try:
            return _fast()
        except ConfigurationError as error:
            log.warning("%s; until then the slower public interface of redis-py is used", error)
    from .plain import PlainTransport

    return PlainTransport


def _fast() -> type[Transport]:
    try:
        check_parts(private_parts(), distribution=_DISTRIBUTION)
        from .protocol import FastTransport
    except ImportError as error:
        raise unfit("redis", str(error), distribution=_DISTRIBUTION) from error
    return FastTransport
