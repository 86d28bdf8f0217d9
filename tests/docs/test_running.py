"""The manifest in docs/guides/running.md fits the command, and its times fit each other."""

from __future__ import annotations

import re
from typing import Any

import yaml

from anymq.cli.application import application
from anymq.health.endpoint import LIVE, READY
from anymq.supervision.slot import STOP_GRACE
from tests.docs.markdown import blocks
from tests.docs.pages import ROOT

TEXT = (ROOT / "docs/guides/running.md").read_text(encoding="utf-8")


def pod() -> Any:
    """Return the specification of the pods."""
    (manifest,) = [one for one in blocks(TEXT) if one.language == "yaml"]
    return yaml.safe_load(manifest.text)["spec"]["template"]["spec"]


def test_the_command_understands_its_arguments() -> None:
    (container,) = pod()["containers"]
    name, *arguments = container["args"]
    assert name == "anymq"
    (dockerfile,) = [one for one in blocks(TEXT) if one.language == "dockerfile"]
    other = yaml.safe_load(dockerfile.text.rpartition("CMD ")[2])
    for tokens in (arguments, other[1:]):
        _, bound, _ = application().parse_args(tokens, exit_on_error=False, print_error=False)
        assert bound.arguments["place"] == "shop:app"
        assert bound.arguments["health"] == ":8080"


def test_a_pod_has_the_time_to_drain() -> None:
    spec = pod()
    arguments = spec["containers"][0]["args"]
    drain = int(arguments[arguments.index("--drain") + 1].removesuffix("s"))
    assert spec["terminationGracePeriodSeconds"] > drain + STOP_GRACE


def test_probes_ask_what_is_answered() -> None:
    (container,) = pod()["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == LIVE
    assert container["readinessProbe"]["httpGet"]["path"] == READY
    assert container["startupProbe"]["httpGet"]["path"] == READY
    (port,) = container["ports"]
    assert f":{port['containerPort']}" in container["args"]


def test_exit_codes_are_those_of_the_help() -> None:
    from anymq.cli.run import run

    assert run.__doc__ is not None
    table = re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)
    told = run.__doc__.partition("Exit codes:")[2].partition("\n\n")[0]
    assert re.findall(r"(?:^|; )(\d+) ", " ".join(told.split())) == table
