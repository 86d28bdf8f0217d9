"""`Batch`: how many messages a handler takes at a time."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Up to `size` messages at a time, or what has come `wait` seconds after the first of them."""

    size: int = 100
    wait: float = 0.5

    def __post_init__(self) -> None:
        if self.size < 1 or self.wait < 0:
            raise ConfigurationError("Batch: size must be at least 1, wait not negative")
