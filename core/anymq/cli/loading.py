"""`load_app`: the `App` that `module:attribute` names."""

from __future__ import annotations

import difflib
import importlib
import os
import sys

from ..app import App
from ..errors import ConfigurationError


def load_app(place: str) -> App:
    """Return the app at `place`: `module`, `module:attribute` or `module:factory()`.

    The attribute is `app` by default. The working directory is searched first. Raises
    `ConfigurationError` if the module cannot be imported or the attribute is no `App`.
    """
    module_name, _, attribute = place.partition(":")
    attribute = attribute or "app"
    if module_name.endswith(".py"):
        meant = module_name.removesuffix(".py").replace("/", ".")
        raise ConfigurationError(f"{module_name} is a file: write its module, {meant}:{attribute}")
    if not module_name or not all(part.isidentifier() for part in module_name.split(".")):
        raise ConfigurationError(f"{place!r} names no app; write module:attribute")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ConfigurationError(f"there is no module {error.name!r} in {folder}") from error
        raise ConfigurationError(f"importing {module_name} failed: {error}") from error
    except Exception as error:
        raise ConfigurationError(
            f"importing {module_name} failed: {type(error).__name__}: {error}"
        ) from error
    name = attribute.removesuffix("()")
    found = getattr(module, name, None)
    if found is None:
        apps = [key for key, value in vars(module).items() if isinstance(value, App)]
        close = difflib.get_close_matches(name, apps or dir(module), n=1) or apps[:1]
        raise ConfigurationError(
            f"module {module_name} has no {name!r}"
            + (f"; did you mean {module_name}:{close[0]}?" if close else "")
        )
    if attribute.endswith("()"):
        found = found()
    if not isinstance(found, App):
        raise ConfigurationError(f"{place} is no App but a {type(found).__name__}")
    return found
