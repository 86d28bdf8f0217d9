"""The business figures of a run."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from .money import pence


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Totals of all orders. Amounts are exact, and rounded only for display."""

    orders_placed: int
    orders_cancelled: int
    payments_captured: int
    orders_shipped: int
    orders_expired: int
    dead_letters: int
    retries: int
    duplicates_filtered: int
    revenue: Decimal
    refunds: Decimal
    revenue_by_country: dict[str, Decimal]

    def shown(self) -> dict[str, int | str]:
        """Return the figures except those by country; amounts as text with two decimals."""
        return {name: _shown(value) for name, value in self._single().items()}

    def countries_shown(self) -> dict[str, str]:
        """Return the revenue by country, sorted by country."""
        return {name: pence(amount) for name, amount in sorted(self.revenue_by_country.items())}

    def differences(self, expected: Figures) -> list[str]:
        """Return a line for each figure that differs from `expected`.

        Duplicates are excluded, because their number depends on crashes during the run.
        """
        ours, theirs = self._comparable(), expected._comparable()
        return [
            f"{name}: {_shown(ours.get(name, 0))}, not {_shown(theirs.get(name, 0))}"
            for name in ours | theirs
            if ours.get(name) != theirs.get(name)
        ]

    def _single(self) -> dict[str, int | Decimal]:
        return {
            "orders_placed": self.orders_placed,
            "orders_cancelled": self.orders_cancelled,
            "payments_captured": self.payments_captured,
            "orders_shipped": self.orders_shipped,
            "orders_expired": self.orders_expired,
            "dead_letters": self.dead_letters,
            "retries": self.retries,
            "duplicates_filtered": self.duplicates_filtered,
            "revenue": self.revenue,
            "refunds": self.refunds,
        }

    def _comparable(self) -> dict[str, int | Decimal]:
        by_country = {f"revenue of {name}": it for name, it in self.revenue_by_country.items()}
        return self._single() | by_country | {"duplicates_filtered": 0}


def _shown(value: int | Decimal) -> int | str:
    return pence(value) if isinstance(value, Decimal) else value
