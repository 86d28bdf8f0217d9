"""`Router`: handlers in several files, prefixes, defaults, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from anymq import (
    App,
    Batch,
    ConfigurationError,
    Delivery,
    Handler,
    Idempotency,
    Middleware,
    Retry,
    Router,
    StateError,
    Topic,
)
from anymq.testing import TestBroker
from tests.core.shop import archive, cancelling, placing
from tests.core.shop.events import EVENTS, Cancelled, Placed, Refunded


async def handle(body: str) -> None: ...


def noting(name: str, notes: list[str]) -> Middleware:
    def middleware(handler: Handler) -> Handler:
        async def noted(delivery: Delivery) -> None:
            notes.append(name)
            await handler(delivery)

        return noted

    return middleware


async def test_routers_of_several_files_share_a_group_by_type() -> None:
    app = App()
    app.include(placing.router)
    app.include(cancelling.router)
    sent: list[Placed | Cancelled | Refunded]
    sent = [Placed(number=1), Cancelled(2), Refunded(3), Placed(number=4)]
    placing.placed.clear()
    cancelling.ended.clear()
    async with TestBroker(app) as broker:
        assert len(app.subscriptions) == 1
        for event in sent:
            await broker.publish(EVENTS, event)
        await broker.publish("orders", {"number": 5}, type="Unheard")
        await broker.drain()
        (letter,) = broker.dead_letters(EVENTS, group="view")
        assert "the handler takes Placed, Cancelled, Refunded" in str(letter.reason)
    assert placing.placed == [sent[0], sent[3]]
    assert cancelling.ended == [sent[1], sent[2]]


def test_types_that_overlap_are_named_with_their_handlers() -> None:
    app = App()
    app.include(placing.router)
    with pytest.raises(ConfigurationError) as caught:
        app.include(archive.router)
    text = str(caught.value)
    for name in (
        "'Placed'",
        "tests.core.shop.placing.place (tests.core.shop.events.Placed)",
        "tests.core.shop.archive.archive (tests.core.shop.archive.Placed)",
    ):
        assert name in text
    assert len(app.subscribers) == 1


async def test_prefixes_are_joined_and_defaults_are_inherited() -> None:
    inner = Router(prefix="sales.", retry=Retry(attempts=7), concurrency=3)
    outer = Router(concurrency=5, ack_deadline=60)
    app = App()
    inner.subscriber("orders", group="a")(handle)
    inner.subscriber(Topic("bills", str, partitions=2), group="b", concurrency=2, retry=None)(
        handle
    )
    outer.include(inner, prefix="shop.", prefetch=9, ack_deadline=50)
    outer.subscriber("other", group="c")(handle)
    app.include(outer, prefix="eu-")
    app.subscriber("plain", group="d")(handle)

    found = {item.topic.name: item.options for item in app.subscribers}
    assert list(found) == ["eu-shop.sales.orders", "eu-shop.sales.bills", "eu-other", "plain"]
    assert [item.concurrency for item in found.values()] == [3, 2, 5, 1]
    assert [item.prefetch for item in found.values()] == [9, 9, None, None]
    assert [item.ack_deadline for item in found.values()] == [50, 50, 60, 30]
    assert found["eu-shop.sales.bills"].topic == Topic("eu-shop.sales.bills", str, partitions=2)
    retries = [
        [link for link in options.middleware or () if isinstance(link, Retry)]
        for options in found.values()
    ]
    assert retries == [[Retry(attempts=7)], [], [Retry()], [Retry()]]


async def test_middleware_runs_from_the_app_to_the_handler() -> None:
    notes: list[str] = []
    inner = Router(middleware=[noting("inner", notes)])
    outer = Router(middleware=[noting("outer", notes)])
    inner.subscriber("t", group="g", middleware=[noting("own", notes)])(handle)
    outer.include(inner, middleware=[noting("included", notes)])
    app = App(middleware=[noting("app", notes)])
    app.include(outer)
    async with TestBroker(app) as broker:
        await broker.publish("t", "x")
        await broker.drain()
    assert notes == ["app", "outer", "included", "inner", "own"]


async def test_a_router_may_be_included_in_several_apps_and_under_several_prefixes() -> None:
    got: list[str] = []
    router = Router()

    @router.subscriber("t", group="g", to="out")
    async def echo(body: str) -> str:
        got.append(body)
        return body

    for app in (App(), App()):
        for prefix in ("one.", "two."):
            app.include(router, prefix=prefix)
        async with TestBroker(app) as broker:
            await broker.publish("one.t", "1")
            await broker.publish("two.t", "2")
            await broker.drain()
            assert [message.body for message in broker.published("one.out")] == [b"1"]
            assert [message.body for message in broker.published("two.out")] == [b"2"]
    assert sorted(got) == ["1", "1", "2", "2"]


def test_including_twice_is_refused_and_includes_nothing() -> None:
    router, second, app = Router(), Router(), App()
    router.subscriber("t", group="g")(handle)
    router.subscriber("t", group=None)(handle)
    app.include(router)
    second.subscriber("new", group="g")(handle)
    second.subscriber("t", group=None)(handle)
    for again in (router, second):
        with pytest.raises(
            ConfigurationError, match=r"handle is registered twice for t .* twice\?"
        ):
            app.include(again)
        assert len(app.subscribers) == 2
    second.subscriber("open", group="g")(handle)


def test_a_router_that_has_been_included_takes_no_handlers() -> None:
    router, app = Router(), App()
    app.include(router)
    with pytest.raises(ConfigurationError, match="included already, so handle would not run"):
        router.subscriber("t", group="g")(handle)
    other = Router()
    other.subscriber("t", group="g")(handle)
    with pytest.raises(ConfigurationError, match="included already"):
        router.include(other)


def test_circles_and_other_things_are_refused() -> None:
    router, app = Router(), App()
    with pytest.raises(ConfigurationError, match="itself"):
        router.include(router)
    for wrong in (app, App, "router", None):
        with pytest.raises(ConfigurationError, match="takes a Router"):
            app.include(wrong)  # type: ignore[arg-type]  # pyright: ignore
    one, other = Router(), Router()
    one.subscriber("t", group="g")(handle)
    other.include(one)
    with pytest.raises(ConfigurationError, match="included already"):
        one.include(other)


async def test_a_running_app_includes_and_registers_nothing() -> None:
    router, app = Router(), App()
    router.subscriber("t", group="g")(handle)
    async with TestBroker(app):
        with pytest.raises(StateError, match="before it starts"):
            app.include(router)
        with pytest.raises(StateError, match="before it starts"):
            app.subscriber("t", group="g")(handle)
    app.include(router)
    assert len(app.subscribers) == 1


@pytest.mark.parametrize("prefix", ["*.", ".", "a b.", "x" * 200])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    router, app = Router(), App()
    router.subscriber("t", group="g")(handle)
    with pytest.raises(ConfigurationError, match="not a topic name"):
        app.include(router, prefix=prefix)
    with pytest.raises(ConfigurationError, match="not a topic name"):
        Router(prefix=prefix).subscriber("t", group="g")(handle)


def test_mistakes_are_reported_where_they_are_made() -> None:
    router = Router()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"concurrency": 0}, "concurrency"),
        ({"retry": 5}, "retry is a Retry or None"),
        ({"idempotency": "sqlite:///x"}, r"write idempotency=Idempotency\("),
        ({"retry": Retry(exhausted="stop")}, "needs ordered=True"),
        ({"group": "a.b"}, "group"),
        ({"to": "*"}, "topic name"),
    ]
    for settings, reason in wrong:
        both: dict[str, Any] = {"group": "g", **settings}
        with pytest.raises(ConfigurationError, match=reason):
            router.subscriber("t", **both)(handle)
    with pytest.raises(ConfigurationError, match="list"):
        router.subscriber("t", group="g", batch=Batch())(handle)
    with pytest.raises(TypeError, match="no setting 'retri'; did you mean 'retry'"):
        router.subscriber("t", group="g", retri=None)  # type: ignore[call-overload]  # pyright: ignore
    with pytest.raises(TypeError, match="a Router has no setting 'group'"):
        Router(group="g")  # type: ignore[call-arg]  # pyright: ignore
    with pytest.raises(TypeError, match=r"include\(\) has no setting 'tag'"):
        App().include(router, tag="g")  # type: ignore[call-arg]  # pyright: ignore
    assert router.declarations == ()


def test_defaults_of_a_router_that_do_not_suit_a_handler_are_reported() -> None:
    router = Router(retry=Retry(exhausted="stop"), idempotency=Idempotency("memory://"))
    with pytest.raises(ConfigurationError, match="needs ordered=True"):
        router.subscriber("t", group="g")(handle)
    router.subscriber("t", group="g", ordered=True)(handle)
