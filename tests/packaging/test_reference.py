"""The API reference is built from the docstrings without a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.reference.build import MODULES, build
from tests.packaging.conftest import ADAPTERS


def test_every_public_module_has_a_page_without_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert set(ADAPTERS) < set(MODULES)
    assert build(tmp_path) == 0, capfd.readouterr().out
    pages = {name: (tmp_path / "reference" / f"{name}.html").read_text() for name in MODULES}
    assert 'id="anymq.Broker.publish"' in pages["anymq"]
    assert 'id="anymq.driver.Driver.publish"' in pages["anymq.driver"]
    assert 'id="anymq_kafka.KafkaOptions"' in pages["anymq_kafka"]


def test_a_warning_about_a_docstring_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = 'def pay(total: int) -> None:\n    """Pay.\n\n    Args:\n        sum: unknown\n    """\n'
    (tmp_path / "shop.py").write_text(text)
    assert build(tmp_path, {"shop": "an example"}, sources=[tmp_path]) == 1
    assert "'sum' does not appear" in capfd.readouterr().out
