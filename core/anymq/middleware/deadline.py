"""Give a handler only so long."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..delivery import Delivery
    from . import Handler


@dataclass(frozen=True, slots=True)
class Deadline:
    """Cancel the handler after `seconds`; that is a failed attempt, a `TimeoutError`."""

    seconds: float

    def __post_init__(self) -> None:
        if self.seconds <= 0:
            raise ConfigurationError("Deadline: seconds must be positive")

    def __call__(self, handler: Handler) -> Handler:
        async def deadline(delivery: Delivery) -> None:
            limit = asyncio.timeout(self.seconds)
            try:
                async with limit:
                    await handler(delivery)
            except TimeoutError:
                if limit.expired():
                    raise TimeoutError(f"the handler took over {self.seconds:g} s") from None
                raise

        return deadline
