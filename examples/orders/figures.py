"""The figures of the business."""

from __future__ import annotations

from dataclasses import dataclass, fields
from decimal import Decimal

from .money import pence


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What the orders come to. Money is exact here, and rounded where it is shown."""

    orders_placed: int
    orders_cancelled: int
    payments_captured: int
    orders_shipped: int
    dead_letters: int
    retries: int
    duplicates_filtered: int
    revenue: Decimal
    refunds: Decimal
    revenue_by_country: dict[str, Decimal]

    def shown(self) -> dict[str, int | str | dict[str, str]]:
        """Return the figures by name, money as text with two decimals."""
        return {field.name: _shown(getattr(self, field.name)) for field in fields(self)}

    def differences(self, expected: Figures) -> list[str]:
        """Return a line for each figure that is not as `expected`.

        Duplicates are left out: how many there are depends on what went wrong on the way.
        """
        found: list[str] = []
        for field in fields(self):
            name = field.name
            ours, theirs = getattr(self, name), getattr(expected, name)
            if name != "duplicates_filtered" and ours != theirs:
                found.append(f"{name}: {_shown(ours)} in the ledger, {_shown(theirs)} in the file")
        return found


def _shown(value: int | Decimal | dict[str, Decimal]) -> int | str | dict[str, str]:
    if isinstance(value, dict):
        return {country: pence(amount) for country, amount in sorted(value.items())}
    return pence(value) if isinstance(value, Decimal) else value
