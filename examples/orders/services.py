"""The five services by name."""

from __future__ import annotations

from .ledger import ledger
from .orders import orders
from .payment import payment
from .serve import Service
from .shipping import shipping
from .stock import stock

SERVICES: dict[str, Service] = {
    "orders": orders,
    "payment": payment,
    "stock": stock,
    "shipping": shipping,
    "ledger": ledger,
}
