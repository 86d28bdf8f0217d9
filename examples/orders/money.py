"""Money: computed exactly, rounded once, when it is shown."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Context, Decimal

# More digits than any sum here can have, so that nothing is ever rounded on the way.
EXACT = Context(prec=100)


def pence(amount: Decimal) -> str:
    """Return `amount` with two decimals, half a penny rounded away from zero."""
    rounded = amount.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP, context=EXACT)
    return str(EXACT.plus(rounded))  # which turns -0.00 into 0.00
