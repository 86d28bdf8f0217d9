"""Correction of dead letters: orders without a customer are assigned to a guest."""

from __future__ import annotations

from anymq import Broker

from .events import OrderPlaced
from .payment import NO_CUSTOMER
from .run import Run

GUEST = "guest"


async def mend(broker: Broker, run: Run) -> int:
    """Edit and redrive the orders rejected only for a missing customer; return their number.

    Only the payment group receives a redriven order, with its original id and as a first attempt.
    """
    letters = broker.admin.dead_letters(run.placed, "payment")
    mendable = await letters.list(where=lambda letter: letter.reason == NO_CUSTOMER)
    for letter in mendable:
        order = OrderPlaced.model_validate_json(letter.message.body)
        lines = tuple(
            line.model_copy(update={"customer": line.customer or GUEST}) for line in order.lines
        )
        await letters.redrive_edited(letter, order.model_copy(update={"lines": lines}))
    return len(mendable)
