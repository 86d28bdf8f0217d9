"""The wheel holds the packages of core/ and adapters/, typed, and nothing else."""

from __future__ import annotations

import configparser
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import ADAPTERS, PACKAGES, built_once

pytestmark = built_once


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.fixture(scope="module")
def entry_points(wheel: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(delimiters=("=",))
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/entry_points.txt"))
        parser.read_string(archive.read(name).decode())
    return parser


def test_only_the_import_packages_are_installed(wheel_names: list[str]) -> None:
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)


def test_no_cache_or_local_data_is_installed(wheel_names: list[str]) -> None:
    assert [n for n in wheel_names if n.endswith((".pyc", ".db", ".log", ".md"))] == []


def test_the_licence_is_included(wheel_names: list[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


def test_the_sdist_holds_what_the_tests_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"Makefile", "requirements.lock", "pyproject.toml", ".ci/bootstrap.py"}
    assert needed | {"tests/run.py", "brokers/__init__.py", "core/anymq/__init__.py"} <= names


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package: str, wheel_names: list[str]) -> None:
    assert f"{package}/__init__.py" in wheel_names
    assert f"{package}/py.typed" in wheel_names


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_adapter_is_found_by_a_scheme(
    adapter: str, entry_points: configparser.ConfigParser
) -> None:
    targets = entry_points["anymq.adapters"].values()
    assert adapter in {target.partition(":")[0] for target in targets}


@pytest.mark.parametrize("group", ["anymq.adapters", "anymq.stores", "pytest11"])
def test_every_entry_point_names_a_package_of_the_wheel(
    group: str, entry_points: configparser.ConfigParser
) -> None:
    targets = entry_points[group].values()
    assert {target.partition(":")[0] for target in targets} <= set(PACKAGES)
