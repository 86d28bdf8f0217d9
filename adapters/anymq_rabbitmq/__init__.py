"""The RabbitMQ backend of anymq."""

from .driver import RabbitMQDriver
from .options import RabbitMQOptions

__all__ = ["RabbitMQDriver", "RabbitMQOptions"]
