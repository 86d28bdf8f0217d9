"""The Redis Streams backend of anymq."""

from .driver import RedisDriver
from .options import RedisOptions
from .store import RedisStore

__all__ = ["RedisDriver", "RedisOptions", "RedisStore"]
