"""No module of a package needs to know another one that knows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.conftest import ADAPTERS, ROOT
from tests.packaging.import_graph import cycles, import_graph, one_circle

# Modules that may be part of an import cycle. A package that is not listed has none. Lower a number
# when a cycle is removed; never raise one.
ALLOWED: dict[str, int] = {}

PACKAGES = [ROOT / "core" / "anymq", *(ROOT / "adapters" / name for name in ADAPTERS)]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_modules_import_each_other_in_no_circle(package: Path) -> None:
    graph = import_graph(package)
    found = cycles(graph)
    count = sum(map(len, found))
    assert count <= ALLOWED.get(package.name, 0), f"{found}, for example {one_circle(graph)}"


def test_a_circle_through_a_subpackage_and_type_checking_is_found(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    (package / "till").mkdir(parents=True)
    (package / "__init__.py").write_text("from .order import Order\n")
    (package / "order.py").write_text("def pay():\n    from .till.card import Card\n")
    (package / "till" / "__init__.py").write_text("")
    (package / "till" / "card.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..order import Order\n"
    )
    (package / "stock.py").write_text("import shop.order\n")
    graph = import_graph(package)
    assert cycles(graph) == [["shop.order", "shop.till.card"]]
    assert set(one_circle(graph).split(" <- ")) == {"shop.order", "shop.till.card"}
