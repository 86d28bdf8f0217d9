"""`anymq new`: a small project that runs and passes its test as it is."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from .common import DEFAULT, Common
from .failures import UsageError

NAME_IN_FILES = "orders"
"""The word in the templates that becomes the name of the project."""
HIDDEN = ("gitignore",)
"""Files whose names begin with a dot in a project."""


def new(folder: Path, /, *, common: Common = DEFAULT) -> None:
    """Write a small project: a service with one handler, its test, and a Dockerfile.

    Parameters
    ----------
    folder
        The folder to create; its name becomes the name of the service.
    """
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")
    if not name or not name[0].isalpha():
        raise UsageError(f"{folder}: the folder's name begins with a letter, as a service's does")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not empty", hint="choose a folder that does not")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    templates = files("anymq.cli").joinpath("project").iterdir()
    for source in sorted(templates, key=lambda each: each.name):
        file = source.name.removesuffix(".template")
        target = folder / (f".{file}" if file in HIDDEN else file)
        text = source.read_text(encoding="utf-8").replace(NAME_IN_FILES, name)
        target.write_text(text, encoding="utf-8")
        written.append(target.name)
    text = f"""wrote {", ".join(written)} to {folder}

  cd {folder}
  pytest                         the service without a broker
  anymq run app:app --reload     the service on a SQLite file; README.md says how to go on"""
    common.output.result("project", {"folder": str(folder), "files": written}, text)
