"""No public name disappears, and no signature changes, without a change of `surface.txt`."""

from __future__ import annotations

import sys

import pytest

from tests.packaging.surface import FILE, surface


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other Pythons write types differently")
def test_the_public_interface_is_the_one_that_was_reviewed() -> None:
    expected, found = FILE.read_text(encoding="utf-8").splitlines(), surface().splitlines()
    gone, new = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    assert (gone, new) == ([], []), "if it is meant: python -m tests.packaging.surface"
