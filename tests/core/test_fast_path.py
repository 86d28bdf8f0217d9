"""The fast path: it settles as the whole chain does, for every outcome of a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from anymq import Acknowledge, DeadLetter, Delivery, Reject, Retry, RetryAfter
from anymq.driver import Received
from anymq.middleware import Deadline, Handler, Middleware, Passthrough, compose
from anymq.middleware.chain import fast_path
from anymq.middleware.default import DEFAULT_CHAIN, Chain
from anymq.testing.tools import until

from .scripted import scripted

CHAINS: dict[str, Sequence[Middleware]] = {
    "default": DEFAULT_CHAIN,
    "no retry": (Acknowledge(), DeadLetter()),
    "manual": (Acknowledge("manual"), DeadLetter()),
    "receipt": (Acknowledge("receipt"), DeadLetter(), Retry(attempts=2, initial=0.0)),
    "short deadline": (Acknowledge(), DeadLetter(), Deadline(5.0), Retry(attempts=2)),
    "in another order": (Retry(attempts=2, initial=0.0), Acknowledge(), DeadLetter()),
    "none": (),
}


async def succeed(delivery: Delivery) -> None:
    """Return."""


async def fail(delivery: Delivery) -> None:
    raise ValueError("no")


async def fail_once(delivery: Delivery) -> None:
    if delivery.attempt == 1:
        raise ValueError("no")


async def reject(delivery: Delivery) -> None:
    raise Reject("bad")


async def retry_later(delivery: Delivery) -> None:
    raise RetryAfter(3.0, "busy", counted=False)


async def settle_by_hand(delivery: Delivery) -> None:
    await delivery.nack(2.0)


async def settle_then_fail(delivery: Delivery) -> None:
    await delivery.ack()
    raise ValueError("too late")


async def cancel_itself(delivery: Delivery) -> None:
    raise asyncio.CancelledError


HANDLERS = (
    succeed,
    fail,
    fail_once,
    reject,
    retry_later,
    settle_by_hand,
    settle_then_fail,
    cancel_itself,
)


async def settlements(
    chain: Sequence[Middleware], handler: Handler, attempts: Sequence[int]
) -> list[tuple[str, list[str]]]:
    """Return the settlement calls for one message of each of `attempts`."""
    broker, driver = await scripted()
    handled: list[str] = []

    async def counted(delivery: Delivery) -> None:
        handled.append(f"{delivery.received.position} {delivery.attempt}")
        await handler(delivery)

    async with broker.subscribe("t", group="g", handler=counted, middleware=chain, prefetch=10):
        source = driver.sources[0]
        for number, attempt in enumerate(attempts):
            source.inbox.put_nowait(
                Received(
                    b"%d" % number,
                    {},
                    position=str(number),
                    token=str(number),
                    redeliveries=attempt - 1,
                )
            )
        await until(lambda: len({line.split()[0] for line in handled}) == len(attempts))
    await broker.aclose()
    verbs = {verb for verb, _ in source.calls} - {"extend"}
    return [("handled", sorted(handled)), *((v, sorted(source.settled(v))) for v in sorted(verbs))]


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__)
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
async def test_the_fast_path_settles_as_the_whole_chain(
    chain: Sequence[Middleware], handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    fast = await settlements(chain, handler, (1, 2))
    monkeypatch.setattr(Chain, "around", lambda self, inner: compose(self.links, inner))
    assert fast == await settlements(chain, handler, (1, 2))


@dataclass(frozen=True)
class Noting:
    """Middleware that notes its calls."""

    calls: list[str]
    name: str
    passthrough: bool

    def __call__(self, handler: Handler) -> Handler:
        async def noting(delivery: Delivery) -> None:
            self.calls.append(self.name)
            await handler(delivery)

        return noting


def noting(calls: list[str], name: str) -> Callable[[Handler], Handler]:
    return Noting(calls, name, passthrough=False)


async def test_a_first_attempt_skips_quiet_middleware() -> None:
    calls: list[str] = []
    inner: list[str] = []
    chain = (Noting(calls, "outer", True), noting(calls, "own"), Noting(calls, "inner", True))

    async def handler(delivery: Delivery) -> None:
        inner.append(delivery.position)

    broker, driver = await scripted()
    async with broker.subscribe("t", group="g") as deliveries:
        driver.sources[0].put("1")
        delivery = await anext(deliveries)
        handle = fast_path(chain, handler)
        await handle(delivery)
        assert calls == ["own", "inner"]
        delivery.set_attempt(2)
        await handle(delivery)
        assert calls[2:] == ["outer", "own", "inner"]
        assert inner == ["1", "1"]
    await broker.aclose()


async def test_a_failed_first_attempt_calls_the_handler_once() -> None:
    calls: list[str] = []

    async def handler(delivery: Delivery) -> None:
        calls.append("handler")
        raise ValueError("no")

    broker, driver = await scripted()
    async with broker.subscribe("t", group="g") as deliveries:
        driver.sources[0].put("1")
        delivery = await anext(deliveries)
        with pytest.raises(ValueError, match="no"):
            await fast_path((Noting(calls, "outer", True),), handler)(delivery)
        assert calls == ["handler", "outer"]
    await broker.aclose()


def test_plain_functions_are_never_skipped() -> None:
    def middleware(handler: Handler) -> Handler:
        return handler

    assert not isinstance(middleware, Passthrough)
    assert isinstance(Acknowledge(), Passthrough)
