"""A part of the shop with a class of its own, whose name is that of another one."""

from __future__ import annotations

from pydantic import BaseModel

from anymq import Router
from tests.core.shop.events import EVENTS

router = Router()


class Placed(BaseModel):
    number: int


@router.subscriber(EVENTS, group="view")
async def archive(event: Placed) -> None: ...
