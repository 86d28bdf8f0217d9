"""The events of the shop: pydantic models and dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel

from anymq import Topic


class Placed(BaseModel):
    number: int


@dataclass
class Cancelled:
    number: int


@dataclass
class Refunded:
    number: int


EVENTS = Topic[Placed | Cancelled | Refunded]("orders", Placed | Cancelled | Refunded)
