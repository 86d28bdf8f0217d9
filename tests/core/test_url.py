"""The connection URL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymq import URL, InvalidURL


@pytest.mark.parametrize(
    ("text", "hosts", "path"),
    [
        ("memory://", (), ""),
        ("memory://name", (("name", None),), ""),
        ("sqlite:///a.db", (), "/a.db"),
        ("sqlite:////tmp/a b.db", (), "//tmp/a b.db"),
        ("KAFKA://a:1,b:2", (("a", 1), ("b", 2)), ""),
        ("kafka+ssl://a:1,kafka+ssl://b:2", (("a", 1), ("b", 2)), ""),
        ("nats://[::1]:4222,h", (("::1", 4222), ("h", None)), ""),
        ("amqp://h/%2F", (("h", None),), "//"),
    ],
)
def test_hosts_and_path_are_parsed(text: str, hosts: object, path: str) -> None:
    url = URL.parse(text)
    assert (url.hosts, url.path) == (hosts, path)
    assert url.scheme == url.scheme.lower()


def test_credentials_and_options_are_parsed() -> None:
    url = URL.parse("amqp://us%40er:p%3Aw%2F%C3%BC@h:5672/v?heartbeat=5&name=a%20b")
    assert (url.username, url.password) == ("us@er", "p:w/ü")
    assert dict(url.query) == {"heartbeat": "5", "name": "a b"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:9092",
        "://x",
        "kafka://a:99999",
        "kafka://a:0",
        "kafka://a:port",
        "kafka://a,,b",
        "redis://h#frag",
        "redis://h\r\n",
        "redis://h/\x00",
        "redis://h?a=1&a=2",
        "redis://user:hunter2/x@h",
        "redis://user:hunter2 x@h y",
    ],
)
def test_an_invalid_url_is_refused_without_its_secrets(text: str) -> None:
    if text == "redis://h\r\n":  # surrounding blanks are forgiven, inner ones are not
        text = "redis://h\r\nSET x"
    with pytest.raises(InvalidURL) as caught:
        URL.parse(text)
    assert "hunter2" not in str(caught.value)


SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=6)


@given(SECRET)
def test_the_password_is_never_shown(secret: str) -> None:
    from urllib.parse import quote

    quoted = quote(secret, safe="")
    url = URL.parse(f"amqp://u:{quoted}@h/v?sasl_password={quoted}&ssl_key={quoted}")
    assert url.password == secret
    for text in (str(url), repr(url), f"{url}", f"{url!r}"):
        assert text.replace("***", "").count("u:@h") == 1
        assert secret not in text.replace("amqp://u:***@h/v?sasl_password=***&ssl_key=***", "")


def test_loopback_hosts_are_recognised() -> None:
    assert URL.parse("redis://127.0.0.1,localhost,[::1]").is_loopback
    assert not URL.parse("redis://127.0.0.1,example.org").is_loopback
