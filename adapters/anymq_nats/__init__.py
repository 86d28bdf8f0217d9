"""The NATS JetStream backend of anymq."""

from .driver import NatsDriver
from .options import NatsOptions

__all__ = ["NatsDriver", "NatsOptions"]
