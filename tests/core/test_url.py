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
        "redis://user:hunter2?x@h",
        "redis://user:hunter2#x@h",
        "redis://us@er:12?hunter2@h",
        "redis://us@er:12?size=hunter2@h",
        "redis://user:hunter2%ff@h",
        "redis://user:hunter2%00@h",
        "redis://user%0D:hunter2@h",
        "redis://::1",
        "redis://[::1",
        "redis://[1.2.3]:6379",
        "redis://[::1]:x",
        "nats://h,[::]],i",
    ],
)
def test_an_invalid_url_is_refused_without_its_secrets(text: str) -> None:
    if text == "redis://h\r\n":  # surrounding blanks are forgiven, inner ones are not
        text = "redis://h\r\nSET x"
    with pytest.raises(InvalidURL) as caught:
        URL.parse(text)
    assert "hunter2" not in str(caught.value)


USERINFO = [
    ("user:p@ss", "user", "p@ss"),
    ("user:100%", "user", "100%"),
    ("user:100%25", "user", "100%"),
    ("user:50%zz", "user", "50%zz"),
    ("user:%41", "user", "A"),
    ("user:%2541", "user", "%41"),
    ("user:a:b", "user", "a:b"),
    ("us%3Aer:a%3Ab", "us:er", "a:b"),
    ("us er:p w", "us er", "p w"),
    ("us%20er:p%20w", "us er", "p w"),
    ("a+b:c+d", "a+b", "c+d"),
    ("üser:pä€ß😀", "üser", "pä€ß😀"),
    ("%C3%BCser:p%C3%A4", "üser", "pä"),
    ("user:a%2Fb%3Fc%23d%40e", "user", "a/b?c#d@e"),
    ("user@corp:p", "user@corp", "p"),
    ("user:a,b;c=d&e", "user", "a,b;c=d&e"),
    ("user:", "user", ""),
    (":secret", None, "secret"),
    ("token", "token", None),
    ("", None, None),
]


@pytest.mark.parametrize("hosts", ["h", "h:1,i:2", "[::1]", "[::1]:1,h"])
@pytest.mark.parametrize(("text", "username", "password"), USERINFO)
def test_user_and_password_are_percent_encoded_or_not(
    text: str, username: str | None, password: str | None, hosts: str
) -> None:
    url = URL.parse(f"nats://{text}@{hosts}/path?name=x")
    assert (url.username, url.password) == (username, password)
    assert (url.path, dict(url.query)) == ("/path", {"name": "x"})
    assert url.hosts == URL.parse(f"nats://{hosts}").hosts


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
