"""Health of an application: the report behind `App.health`, and its endpoint for probes."""

from ..consuming.health import RunningHandlers, SubscriptionHealth
from .mounted import asgi
from .report import BrokerHealth, Health

__all__ = ["BrokerHealth", "Health", "RunningHandlers", "SubscriptionHealth", "asgi"]
