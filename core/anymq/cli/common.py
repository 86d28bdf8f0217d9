"""`Common`: the options that every command has."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from ..connect import connect
from .failures import UsageError
from .output import Output

if TYPE_CHECKING:
    from ..broker import Broker
    from ..settings import Settings

SHARED = Group("Common options", sort_key=100)
Flag = Annotated[bool, Parameter(negative="", show_default=False)]
"""An option that is given or not."""

_BROKER_OPTIONS = ("url", "context", "app")


@Parameter(name="*", group=SHARED)
@dataclass(kw_only=True)
class Common:
    """The broker to use, and the form of the output."""

    url: Annotated[str | None, Parameter(name=("--url", "-u"))] = None
    """The broker's URL, for example sqlite:///app.db."""
    context: Annotated[str | None, Parameter(name=("--context", "-c"))] = None
    """The context that names the broker, see `anymq context`."""
    app: Annotated[str | None, Parameter(name=("--app", "-a"))] = None
    """The app whose broker and names to use, as module:attribute."""
    json: Flag = False
    """Write results as lines of JSON: `{"anymq": 1, "kind": ..., "data": ...}`."""
    quiet: Annotated[Flag, Parameter(name=("--quiet", "-q"))] = False
    """Write no remarks to standard error."""
    verbose: Annotated[Flag, Parameter(name=("--verbose", "-v"))] = False
    """Write the log to standard error."""
    traceback: Flag = False
    """Show the traceback of an error."""

    def __post_init__(self) -> None:
        chosen = [f"--{name}" for name in _BROKER_OPTIONS if getattr(self, name) is not None]
        empty = [name for name in chosen if not getattr(self, name.removeprefix("--"))]
        if empty:
            raise UsageError(f"{empty[0]} is empty: is the variable in it set?")
        if len(chosen) > 1:
            raise UsageError(f"{' and '.join(chosen)} both name a broker; give one of them")

    @property
    def names_a_broker(self) -> bool:
        """Whether `--url`, `--context` or `--app` is given."""
        return any(getattr(self, name) is not None for name in _BROKER_OPTIONS)

    @cached_property
    def output(self) -> Output:
        """The output of the command."""
        return Output(as_json=self.json, quiet=self.quiet)

    @contextmanager
    def logging(self) -> Iterator[None]:
        """Write the errors that anymq logs to standard error, with `--verbose` every log.

        Client libraries log what anymq reports itself, so their warnings are left out otherwise.
        """
        root, library = logging.getLogger(), logging.getLogger("anymq")
        level = library.level
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        others = handler if self.verbose else logging.NullHandler()
        if not self.verbose:
            library.addHandler(handler)
        root.addHandler(others)
        library.setLevel(logging.INFO if self.verbose else logging.ERROR)
        try:
            yield
        finally:
            library.removeHandler(handler)
            root.removeHandler(others)
            library.setLevel(level)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Broker]:
        """Open the broker that the options name, and close it on exit."""
        if self.app is not None:
            from .loading import load_app

            connecting = load_app(self.app).connect()
        else:
            connecting = connect(self.needed_url)
        async with connecting as broker:
            yield broker

    def settings(self) -> Settings:
        """Return the settings that `connect` uses, without connecting."""
        if self.app is not None:
            from .loading import load_app

            return load_app(self.app).settings()
        from ..settings import effective

        return effective(self.needed_url)

    @property
    def broker_url(self) -> str | None:
        """The URL by `--url` or a context; None leaves it to `connect`.

        Environment and settings file come before the current context, because they belong to this
        process.
        """
        if self.url is not None:
            return self.url
        from .contexts import Contexts

        named = self.context or os.environ.get("ANYMQ_CONTEXT")
        if named:
            return Contexts.read().url(named)
        from ..settings import names_url

        if names_url():
            return None
        return Contexts.read().current_url()

    @property
    def needed_url(self) -> str | None:
        """As `broker_url`; raises `UsageError` if nothing names a broker."""
        from ..settings import names_url

        url = self.broker_url
        if url is None and not names_url():
            hint = (
                "give --url sqlite:///app.db, set ANYMQ_URL, write url into anymq.toml, or keep a "
                "broker: anymq context add NAME URL"
            )
            raise UsageError("no broker URL", hint=hint)
        return url


DEFAULT = Common()
"""The options of a command line that has none of them."""
