"""Settings, secrets, logged failures, and the start of a process."""

import asyncio
import inspect
import logging
import time
from typing import Any

import pytest

import anymq
from anymq import App, Batch, ConfigurationError, Idempotency, InvalidURL, Retry
from anymq.driver import Claim
from anymq.driver.registry import STORES as STORE_GROUP
from anymq.driver.registry import register
from anymq.publishing.options import PublishOptions
from anymq.testing import TestBroker
from anymq.url import URL
from anymq_memory import MemoryStore
from tests.core.scripted import Lost, Refused, ScriptedDriver


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"retry": 3}, r"write retry=Retry\("),
        ({"idempotency": "redis://x"}, r"write idempotency=Idempotency\("),
        ({"deadline": 5}, r"write deadline=Deadline\("),
        ({"rate_limit": 5}, r"write rate_limit=RateLimit\("),
    ],
)
def test_a_setting_instead_of_a_middleware_is_refused(setting: dict[str, Any], text: str) -> None:
    async def handle(body: str) -> None: ...

    with pytest.raises(ConfigurationError, match=text):
        App("memory://").subscriber("t", group="g", **setting)(handle)


def test_a_handler_that_returns_a_value_is_refused() -> None:
    async def answer(x: int) -> int:
        return x

    with pytest.raises(ConfigurationError, match="reply=True"):
        App("memory://").subscriber("t", group="g")(answer)  # type: ignore[type-var]  # pyright: ignore


async def test_a_parameter_with_a_default_keeps_it() -> None:
    app, seen = App(), []

    @app.subscriber("t", group="g")
    async def weigh(x: int, unit: str = "kg") -> None:
        seen.append((x, unit))

    async with TestBroker(app) as broker:
        await broker.publish("t", 5)
        await broker.drain()
    assert seen == [(5, "kg")]


@pytest.mark.parametrize("id", ["", 5])
async def test_a_bad_id_is_refused(id: Any) -> None:
    async with anymq.connect("memory://") as broker:
        with pytest.raises(ConfigurationError, match="the id"):
            await broker.publish("t", b"x", id=id)
        with pytest.raises(ConfigurationError, match="the id"):
            await broker.publish_many("t", [b"x"], id=lambda _: id)


async def test_connect_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANYMQ_URL", "memory://")
    async with anymq.connect() as broker:
        assert broker.url.scheme == "memory"
    monkeypatch.delenv("ANYMQ_URL")
    with pytest.raises(ConfigurationError, match="ANYMQ_URL"):
        anymq.connect()


@pytest.mark.parametrize("option", ["correlation_id", "causation_id", "content_type"])
@pytest.mark.parametrize("wrong", ["", 5, "a\nb"])
async def test_a_bad_attribute_is_refused(option: str, wrong: Any) -> None:
    async with anymq.connect("memory://") as broker:
        with pytest.raises(ConfigurationError, match=option.replace("_", " ")):
            await broker.publish("t", b"x", **{option: wrong})
        with pytest.raises(ConfigurationError, match=option.replace("_", " ")):
            await broker.publish_many("t", [b"x"], **{option: wrong})


async def test_stated_attributes_override_inherited_ones() -> None:
    app = App()
    later = anymq.Topic("later", dict[str, int])

    @app.subscriber("first", group="g")
    async def pass_on(x: int) -> None:
        await app.publish(later, {"n": 1})
        await app.publish(later, {"n": 2}, correlation_id="stated", causation_id="other")

    async with TestBroker(app) as broker:
        await broker.publish("first", 1, id="one", correlation_id="c")
        await broker.drain()
        seen = [(m.correlation_id, m.causation_id) for m in broker.published(later)]
    assert seen == [("c", "one"), ("stated", "other")]


def test_every_publish_method_takes_the_same_options() -> None:
    parameters = inspect.signature(anymq.Broker.publish).parameters.values()
    keywords = {item.name for item in parameters if item.kind is item.KEYWORD_ONLY}
    assert keywords == PublishOptions.__optional_keys__


def test_dir_lists_lazily_imported_names() -> None:
    assert set(anymq.__all__) <= set(dir(anymq))
    assert Batch.__name__ in dir(anymq)


def test_a_token_is_not_shown() -> None:
    assert "s3cret" not in repr(URL.parse("nats://s3cret@localhost"))


def test_the_url_of_a_store_is_shown_without_its_password() -> None:
    store = "redis://:hunter2@localhost/0"
    assert "hunter2" not in repr(Idempotency(store)) + repr(Retry(marker=store))
    assert "redis://:***@localhost/0" in repr(Idempotency(store))


@pytest.mark.parametrize("password", ["12/hunter2", "12?hunter2", "a@b/hunter2"])
def test_a_password_that_is_not_encoded_is_not_quoted(password: str) -> None:
    with pytest.raises(InvalidURL) as caught:
        URL.parse(f"amqp://user:{password}@host/")
    assert "hunter2" not in str(caught.value)


async def test_the_last_failure_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.subscriber("failing", group="g", retry=Retry(attempts=3, initial=1))
    async def fail(x: int) -> None:
        raise RuntimeError("no bank today")

    with caplog.at_level(logging.INFO, logger="anymq"):
        async with TestBroker(app) as broker:
            broker.expect_errors()
            await broker.publish("failing", 1)
            await broker.advance(60)
    shown = [record for record in caplog.records if record.exc_info]
    assert [record.name for record in shown] == ["anymq.dead_letters"]
    assert 'raise RuntimeError("no bank today")' in caplog.text
    assert "fail listens to failing (group g, concurrency 1)" in caplog.text


async def test_a_body_that_does_not_validate_is_not_quoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()

    @app.subscriber("unreadable", group="g")
    async def count(x: int) -> None: ...

    async with TestBroker(app) as broker:
        await broker.publish("unreadable", {"secret": "hunter2"})
        await broker.drain()
    assert "moving to the dead-letter topic" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_app_that_cannot_start_logs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        App("nowhere://").run()
    assert caught.value.code == 2
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage().startswith("cannot start: nowhere://")
    asyncio.set_event_loop(None)


# Starting.


async def test_connect_waits_for_a_broker_that_is_starting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    register("scripted", "tests.core.scripted:ScriptedDriver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ScriptedDriver, "opening", [Lost("refused"), Lost("refused"), Lost("refused")]
        )
        async with anymq.connect("scripted://host?connect_timeout=60"):
            assert ScriptedDriver.opening == []
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "retrying for 60 s" in line.getMessage()


async def test_permanent_errors_of_connect_are_raised_at_once() -> None:
    register("scripted", "tests.core.scripted:ScriptedDriver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedDriver, "opening", [Lost("later"), Refused("wrong password")])
        with pytest.raises(anymq.PermanentError, match="wrong password"):
            await anymq.connect("scripted://host?connect_timeout=60")
        assert len(ScriptedDriver.opening) == 1


@pytest.mark.parametrize("scheme", ["kafka", "amqp", "nats", "redis"])
def test_an_app_without_a_broker_waits_and_ends_with_one_line_and_code_2(
    scheme: str, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with pytest.raises(SystemExit) as caught:
        App(f"{scheme}://127.0.0.1:1?connect_timeout=2").run()
    assert caught.value.code == 2
    assert time.monotonic() - began >= 1.5
    lines = [record for record in caplog.records if record.name == "anymq"]
    assert [record.levelname for record in lines] == ["WARNING", "CRITICAL"]
    assert lines[-1].getMessage().startswith("cannot start: ")
    assert not [record for record in lines if record.exc_info]


STORES = [
    ("nowhere://x", "nowhere:// is no store"),
    ("sqlite:////no/such/folder/x.db", "/no/such/folder"),
    ("redis://127.0.0.1:1?connect_timeout=1", "Connect"),
]


@pytest.mark.parametrize("marker", [False, True])
@pytest.mark.parametrize(("store", "text"), STORES)
async def test_an_app_whose_store_cannot_be_used_does_not_start(
    store: str, text: str, marker: bool
) -> None:
    app = App("memory://?connect_timeout=1")
    retry = Retry(marker=store if marker else None)

    @app.subscriber("t", group="g", retry=retry, idempotency=None if marker else Idempotency(store))
    async def handle(x: int) -> None: ...

    with pytest.raises(anymq.AnymqError, match=r"the store .* cannot be used") as caught:
        await app.start()
    assert text in str(caught.value)


async def test_a_read_only_store_is_detected_at_start() -> None:
    register("refusing", "tests.core.test_settings_and_startup:RefusingStore", group=STORE_GROUP)
    app = App("memory://")

    @app.subscriber("t", group="g", idempotency=Idempotency("refusing://x"))
    async def handle(x: int) -> None: ...

    with pytest.raises(anymq.AccessDenied, match="refusing://x cannot be used: read-only"):
        await app.start()


async def test_the_package_of_a_store_that_is_missing_is_named_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(scheme: str) -> None:
        raise anymq.MissingDependency("redis:// needs redis; run: pip install 'anymq[redis]'")

    monkeypatch.setattr("anymq.store_pool.load_store", missing)
    app = App("memory://?connect_timeout=60")

    @app.subscriber("t", group="g", idempotency=Idempotency("redis://:hunter2@localhost"))
    async def handle(x: int) -> None: ...

    with pytest.raises(anymq.MissingDependency, match=r"pip install 'anymq\[redis\]'") as caught:
        await app.start()
    assert "hunter2" not in str(caught.value)


class RefusingStore(MemoryStore):
    async def begin(self, key: str, owner: str, lease: float) -> Claim:
        raise anymq.AccessDenied("read-only")
