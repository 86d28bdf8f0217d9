"""anymq: one publisher/consumer interface over Kafka, RabbitMQ, NATS JetStream and Redis Streams.

A URL selects the backend; `sqlite:///` and `memory://` need no server. Deliveries are settled in
the same way on every backend.
"""

from typing import TYPE_CHECKING

from .app import App
from .broker import Broker
from .connect import connect
from .consuming.delivery import Delivery
from .driver.capabilities import Capabilities, Level, Support
from .driver.registry import register
from .errors import (
    AccessDenied,
    AlreadySettled,
    AnymqError,
    BrokerError,
    Closed,
    ConfigurationError,
    ConnectionLost,
    InvalidURL,
    MessageTooLarge,
    MissingDependency,
    NotFound,
    PermanentError,
    PublishTimeout,
    Reject,
    RequestFailed,
    RequestTimeout,
    RetryAfter,
    StateError,
    StopLane,
    Throttled,
    TransientError,
    UnknownScheme,
    UnsupportedOperation,
)
from .flow import correlation, current_delivery
from .lazy_import import lazy_attributes
from .message import Message, Receipt
from .middleware import (
    Acknowledge,
    DeadLetter,
    Handler,
    Middleware,
    Publish,
    PublishMiddleware,
    Retry,
)
from .router import Router
from .subscriber import Subscriber
from .topic import Topic
from .url import URL

if TYPE_CHECKING:
    from .consuming.batch import Batch, BatchError
    from .consuming.subscription import Subscription
    from .diagnosis import diagnose
    from .driver.checks import Check
    from .driver.info import GroupInfo, MemberInfo, PartitionInfo, PoisonInfo, TopicInfo
    from .middleware import Deadline, Idempotency, KillSwitch, RateLimit
    from .operating.admin import Admin
    from .operating.dead_letters import DeadLetters
    from .operating.letter import Letter
    from .operating.letter_filter import LetterFilter
    from .operating.topic_access import Stored

__version__ = "0.1.0"

__all__ = [
    "URL",
    "AccessDenied",
    "Acknowledge",
    "Admin",
    "AlreadySettled",
    "AnymqError",
    "App",
    "Batch",
    "BatchError",
    "Broker",
    "BrokerError",
    "Capabilities",
    "Check",
    "Closed",
    "ConfigurationError",
    "ConnectionLost",
    "DeadLetter",
    "DeadLetters",
    "Deadline",
    "Delivery",
    "GroupInfo",
    "Handler",
    "Idempotency",
    "InvalidURL",
    "KillSwitch",
    "Letter",
    "LetterFilter",
    "Level",
    "MemberInfo",
    "Message",
    "MessageTooLarge",
    "Middleware",
    "MissingDependency",
    "NotFound",
    "PartitionInfo",
    "PermanentError",
    "PoisonInfo",
    "Publish",
    "PublishMiddleware",
    "PublishTimeout",
    "RateLimit",
    "Receipt",
    "Reject",
    "RequestFailed",
    "RequestTimeout",
    "Retry",
    "RetryAfter",
    "Router",
    "StateError",
    "StopLane",
    "Stored",
    "Subscriber",
    "Subscription",
    "Support",
    "Throttled",
    "Topic",
    "TopicInfo",
    "TransientError",
    "UnknownScheme",
    "UnsupportedOperation",
    "connect",
    "correlation",
    "current_delivery",
    "diagnose",
    "register",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__getattr__ = lazy_attributes(
    __name__,
    {
        "Check": "driver.checks",
        "diagnose": "diagnosis",
        "Admin": "operating.admin",
        "Stored": "operating.topic_access",
        "Batch": "consuming.batch",
        "BatchError": "consuming.batch",
        "DeadLetters": "operating.dead_letters",
        "Letter": "operating.letter",
        "LetterFilter": "operating.letter_filter",
        "GroupInfo": "driver.info",
        "MemberInfo": "driver.info",
        "PartitionInfo": "driver.info",
        "PoisonInfo": "driver.info",
        "TopicInfo": "driver.info",
        "Deadline": "middleware.deadline",
        "Idempotency": "middleware.idempotency",
        "KillSwitch": "middleware.kill_switch",
        "RateLimit": "middleware.rate_limit",
        "Subscription": "consuming.subscription",
    },
)
