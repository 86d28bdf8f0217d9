"""URL options of the memory backend: none."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """No options."""
