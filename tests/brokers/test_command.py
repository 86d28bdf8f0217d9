"""The command line."""

from __future__ import annotations

import pytest

from brokers.__main__ import main


def test_status_of_stopped_servers(instance: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "redis", "nats", "--instance", instance]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "VERSION", "PID", "URL", "UPTIME", "FOLDER"]
    assert [line.split()[:2] for line in lines[1:]] == [["redis", "stopped"], ["nats", "stopped"]]


def test_an_error_is_one_line(instance: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pause", "redis", "--instance", instance]) == 1
    assert capsys.readouterr().err == f"brokers: redis: redis ({instance}) is not running\n"
    assert main(["up", "pulsar"]) == 1


@pytest.mark.redis
def test_each_command_controls_the_server(
    instance: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ["redis", "--instance", instance]
    assert main(["up", *at]) == 0
    url = capsys.readouterr().out
    assert main(["url", *at]) == 0
    assert capsys.readouterr().out == url
    assert main(["status", *at]) == 0
    assert main(["logs", "-n", "1", *at]) == 0
    assert "Ready to accept connections" in capsys.readouterr().out.splitlines()[-1]
    for command in ("pause", "resume", "kill", "restart", "reset", "down"):
        assert main([command, *at]) == 0
    assert main(["status", *at]) == 3
