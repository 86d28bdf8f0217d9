"""`ConsumerContext`: the parts of a broker that its subscriptions use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..driver.base import Driver
from ..driver.clock import Clock
from ..store_pool import StorePool
from .delivery import Replies


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerContext:
    """The parts of a broker that a subscription uses."""

    driver: Driver
    clock: Clock
    stores: StorePool
    replies: Replies
    translate: Callable[[BaseException, str], BaseException]
    """Maps an error of the client library; its arguments name the operation and the object."""
    declare: Callable[[str], Awaitable[None]]
    """Declares a topic."""
