"""The part of the shop that handles placed orders."""

from __future__ import annotations

from anymq import Delivery, Router
from tests.core.shop.events import EVENTS, Placed

router = Router()
placed: list[Placed] = []


@router.subscriber(EVENTS, group="view")
async def place(event: Placed, delivery: Delivery) -> None:
    placed.append(event)
