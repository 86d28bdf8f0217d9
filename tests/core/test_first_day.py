"""What users meet on the first day: settings, secrets, what is logged, how a process ends."""

import asyncio
import logging
from typing import Any

import pytest

import anymq
from anymq import App, Batch, ConfigurationError, Idempotency, InvalidURL, Retry
from anymq.testing import TestBroker
from anymq.url import URL


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"retry": 3}, r"write retry=Retry\("),
        ({"idempotency": "redis://x"}, r"write idempotency=Idempotency\("),
        ({"deadline": 5}, r"write deadline=Deadline\("),
        ({"rate_limit": 5}, r"write rate_limit=RateLimit\("),
    ],
)
def test_a_setting_in_the_place_of_a_middleware_is_refused(
    setting: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        App("memory://").subscriber("t", group="g", **setting)


def test_a_handler_that_returns_a_value_is_refused() -> None:
    async def answer(x: int) -> int:
        return x

    with pytest.raises(ConfigurationError, match=r"delivery\.reply"):
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


def test_dir_lists_what_is_imported_later() -> None:
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
    assert "dead letter" in caplog.text
    assert "hunter2" not in caplog.text


def test_an_app_that_cannot_start_says_so_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        App("nowhere://").run()
    assert caught.value.code == 2
    (line,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.getMessage().startswith("cannot start: nowhere://")
    asyncio.set_event_loop(None)
