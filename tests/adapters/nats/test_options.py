"""URLs and options."""

from pathlib import Path
from typing import Any

import pytest

from anymq.errors import ConfigurationError
from anymq.url import URL
from anymq_nats import NatsOptions
from anymq_nats.connection import Target


@pytest.mark.parametrize(
    "options",
    [
        {"request_timeout": 0.0},
        {"max_age": -1.0},
        {"duplicate_window": 0.0},
        {"replicas": 2},
        {"key_file": __file__},
        {"ca": "/nowhere/ca.pem"},
        {"creds": "/nowhere/user.creds"},
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        NatsOptions(**options)


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("not a certificate")
    with pytest.raises(ConfigurationError):
        Target.of(URL.parse("tls://localhost"), NatsOptions(ca=str(file)))


def test_a_path_has_no_meaning() -> None:
    with pytest.raises(ConfigurationError):
        Target.of(URL.parse("nats://localhost/orders"), NatsOptions())


def test_servers_of_a_url() -> None:
    target = Target.of(URL.parse("nats://a,b:4333,[::1]:1"), NatsOptions())
    assert target.servers == ["nats://a:4222", "nats://b:4333", "nats://[::1]:1"]
    assert not target.secure
    assert Target.of(URL.parse("tls://a"), NatsOptions()).secure
    assert Target.of(URL.parse("nats://a"), NatsOptions(tls_first=True)).secure


def test_credentials_are_kept_out_of_sight() -> None:
    target = Target.of(URL.parse("nats://someone:hunter2@a"), NatsOptions())
    assert target.settings["user"]() == "someone"
    assert target.settings["password"]() == "hunter2"
    assert "hunter2" not in repr(target)
    assert "hunter2" not in "".join(target.servers)
    assert Target.of(URL.parse("nats://t0ken@a"), NatsOptions()).settings["token"]() == "t0ken"
