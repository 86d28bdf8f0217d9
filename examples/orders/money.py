"""Amounts of money: computed exactly, and rounded once for display."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

# More digits than any sum here has, so that intermediate results are never rounded.
EXACT = Context(prec=100)


def pence(amount: Decimal) -> str:
    """Return `amount` with two decimals, half a penny rounded away from zero."""
    rounded = amount.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP, context=EXACT)
    return str(EXACT.plus(rounded))  # turns -0.00 into 0.00
