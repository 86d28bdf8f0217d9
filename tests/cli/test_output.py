"""The tables that commands write."""

from __future__ import annotations

import pytest

from anymq.cli.output import Output


def test_a_column_of_numbers_is_set_to_the_right_and_others_to_the_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows: list[list[object]] = [["lag", 5, 12, None], ["native name", "orders", None, None]]
    Output().table("probe", {}, ["NAME", "MIXED", "NUMBER", "NONE"], rows)
    assert capsys.readouterr().out.splitlines() == [
        "NAME         MIXED   NUMBER  NONE",
        "lag          5           12  -",
        "native name  orders       -  -",
    ]


def test_received_text_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table("probe", {}, ["NAME"], [["a\nb\x1b[31m"]])
    assert capsys.readouterr().out.splitlines() == ["NAME", "a\\nb\\x1b[31m"]
