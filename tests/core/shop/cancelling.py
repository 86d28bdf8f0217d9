"""The part of the shop that handles cancelled and refunded orders."""

from __future__ import annotations

from anymq import Router
from tests.core.shop.events import EVENTS, Cancelled, Refunded

router = Router()
ended: list[Cancelled | Refunded] = []


@router.subscriber(EVENTS, group="view")
async def end(event: Cancelled | Refunded) -> None:
    ended.append(event)
