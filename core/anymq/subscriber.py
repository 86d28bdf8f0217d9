"""`Subscriber`: a handler, its settings, and what is done with the value that it returns."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypedDict, TypeVar, overload

from .consuming.delivery import Delivery
from .consuming.handlers import Returned, adapt
from .consuming.options import SubscribeOptions, Unknown
from .consuming.signature import AnyFunction, check_returns, name_of, returned_type, wants
from .driver.specs import Start
from .errors import ConfigurationError
from .identity import derived_id
from .message import Receipt
from .middleware import Acknowledge, DeadLetter, Deadline, Middleware, NoRetry, Retry
from .topic import Topic

if TYPE_CHECKING:
    from .consuming.batch import Batch
    from .middleware import Idempotency, KillSwitch, RateLimit

P = ParamSpec("P")
R = TypeVar("R")

_LINKS = (
    "acknowledge",
    "dead_letter",
    "kill_switch",
    "retry",
    "idempotency",
    "rate_limit",
    "deadline",
)
"""The settings that are middleware, outermost first."""


class SubscriberSettings(TypedDict, total=False):
    """The settings of a handler. Those that are not stated have the defaults of `DEFAULTS`."""

    start: Start | None
    concurrency: int
    ordered: bool
    batch: Batch | None
    ack_deadline: float
    prefetch: int | None
    prefetch_bytes: int | None
    unknown: Unknown
    acknowledge: Acknowledge
    dead_letter: DeadLetter | None
    kill_switch: KillSwitch | None
    retry: Retry | None
    idempotency: Idempotency | None
    rate_limit: RateLimit | None
    deadline: Deadline | None
    middleware: Sequence[Middleware]


DEFAULTS: SubscriberSettings = {
    "acknowledge": Acknowledge(),
    "dead_letter": DeadLetter(),
    "retry": Retry(),
    "deadline": Deadline(),
}
"""The settings of a handler that states none; the others are those of `Broker.subscribe`."""


class Returning(Protocol[R]):
    """A decorator of handlers that return an `R` or None. It returns the handler unchanged."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R | None]], /
    ) -> Callable[P, Coroutine[Any, Any, R | None]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """A handler and its subscription options, registered by `App.subscriber`."""

    function: AnyFunction
    options: SubscribeOptions
    to: Topic[Any] | None = None
    """The topic that its return value is published to."""
    reply: bool = False
    """Whether its return value answers a request."""

    @property
    def topic(self) -> Topic[Any]:
        """The subscribed topic."""
        return self.options.topic

    @property
    def group(self) -> str | None:
        """The consumer group; None for broadcast."""
        return self.options.group

    @property
    def payload(self) -> Any:
        """The annotation of the payload, of one message also in a batch; None if it takes none."""
        return wants(self.function, self.topic, self.options.batch).type

    @property
    def result(self) -> Any:
        """The annotation of the return value; None if that says nothing."""
        return returned_type(self.function)

    def returned(self, publish: Callable[..., Awaitable[Receipt]]) -> Returned | None:
        """Return the function that uses what the handler returns; None if nothing does."""
        if self.to is None and not self.reply:
            return None
        to, reply = self.to, self.reply

        async def returned(delivery: Delivery, value: Any) -> None:
            if to is not None and value is not None:
                id = _id_of("result", delivery, to.name)
                await publish(to, value, key=delivery.message.key, id=id)
            if reply and delivery.is_request:
                await delivery.reply(value, id=_id_of("reply", delivery))

        return returned


def _id_of(kind: str, delivery: Delivery, *to: str) -> str:
    """Return the id of what the handler of `delivery` sends, as a reply or to another topic.

    A redelivery, a retry or a redrive of the message has the same.
    """
    group = delivery.group
    reader = None if group is not None else delivery.subscription.member
    return derived_id(kind, *delivery.identity, delivery.topic, group, reader, *to)


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A handler as its decorator states it: the topics and settings around it may be added."""

    function: AnyFunction
    topic: Topic[Any]
    group: str | None
    to: Topic[Any] | None
    reply: bool
    settings: SubscriberSettings

    def within(self, prefix: str, defaults: SubscriberSettings) -> Declaration:
        """Return it with `prefix` before the names of topics, and `defaults` not stated here."""
        return replace(
            self,
            topic=_prefixed(self.topic, prefix),
            to=None if self.to is None else _prefixed(self.to, prefix),
            settings=merged(defaults, self.settings),
        )

    def subscriber(
        self, middleware: Sequence[Middleware] = (), drain_timeout: float = 20.0
    ) -> Subscriber:
        """Return the subscriber, whose chain has `middleware` before its own.

        Raises `ConfigurationError` for bad names, settings, and a function that is no handler.
        """
        settings: dict[str, Any] = {**DEFAULTS, **self.settings}
        chain = _chain(settings)
        own = settings.pop("middleware", ())
        options = SubscribeOptions(
            topic=self.topic,
            group=self.group,
            middleware=(*chain, *middleware, *own),
            drain_timeout=drain_timeout,
            **settings,
        )
        found = Subscriber(function=self.function, options=options, to=self.to, reply=self.reply)
        self._check(found)
        return found

    def _check(self, found: Subscriber) -> None:
        options = found.options
        check_returns(self.function, self.to, reply=self.reply)
        returned = found.returned(_nowhere)
        if returned is not None and options.batch is not None:
            raise ConfigurationError(
                f"the handler {name_of(self.function)} takes batches: its return value belongs to "
                "no single message, so publish it in the function instead of with to= or reply="
            )
        adapt(self.function, self.topic, options.batch, options.unknown, returned)


async def _nowhere(*_: Any, **__: Any) -> Receipt:
    raise AssertionError("a handler is checked, not called")


def merged(outer: SubscriberSettings, inner: SubscriberSettings) -> SubscriberSettings:
    """Return the settings of both; those of `inner` count, and the middleware of both is used."""
    links = (*outer.get("middleware", ()), *inner.get("middleware", ()))
    both: SubscriberSettings = {**outer, **inner}
    return {**both, "middleware": links} if links else both


def differences(one: SubscribeOptions, other: SubscribeOptions) -> list[str]:
    """Return the names of the settings in which both differ."""
    names = [item.name for item in fields(one)]
    found = [name for name in names if getattr(one, name) != getattr(other, name)]
    if "middleware" not in found:
        return found
    links, others = one.middleware or (), other.middleware or ()
    unlike = [link for link in (*links, *others) if link not in links or link not in others]
    found.remove("middleware")
    return [*found, *(dict.fromkeys(map(_setting_of, unlike)) or ["middleware"])]


def _setting_of(link: Middleware) -> str:
    """Return the name of the setting that `link` is."""
    if isinstance(link, NoRetry):
        return "retry"
    kind = type(link).__name__
    return next((name for name in _LINKS if _class_of(name) == kind), "middleware")


def _class_of(name: str) -> str:
    """Return the name of the class of a setting that is a middleware."""
    return "".join(word.title() for word in name.split("_"))


def check_settings(settings: SubscriberSettings, what: str) -> SubscriberSettings:
    """Return `settings`; raises `TypeError` for a name that is none, as a wrong argument does."""
    known = sorted(SubscriberSettings.__optional_keys__)
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"they are {', '.join(known)}"
            raise TypeError(f"{what} has no setting {name!r}; {hint}")
    return settings


def _chain(settings: dict[str, Any]) -> list[Middleware]:
    """Take the middleware that are settings out of `settings`, outermost first."""
    links = {name: settings.pop(name, None) for name in _LINKS}
    for name, link in links.items():
        _check_link(name, link)
    retry = links["retry"]
    if retry is None:
        links["retry"] = NoRetry()
    elif getattr(retry, "exhausted", None) == "stop" and not settings.get("ordered"):
        raise ConfigurationError("Retry(exhausted='stop') needs ordered=True")
    return [link for link in links.values() if link is not None]


def _check_link(name: str, link: object) -> None:
    """Raise `ConfigurationError` if `link` is a setting instead of a middleware."""
    if link is None or callable(link):
        return
    kind = _class_of(name)
    raise ConfigurationError(
        f"{name} is a {kind} or None, not {type(link).__name__}; write {name}={kind}(…)"
    )


def _prefixed(topic: Topic[Any], prefix: str) -> Topic[Any]:
    return replace(topic, name=prefix + topic.name) if prefix else topic
