"""`anymq context`: named brokers."""

from __future__ import annotations

from cyclopts import App

from .common import DEFAULT, Common, Flag
from .contexts import Contexts

app = App(name="context", help="Named brokers, kept in the user's config folder.")


@app.command
def add(name: str, url: str, /, *, use: Flag = False, common: Common = DEFAULT) -> None:
    """Add a context, or replace the one of this name; the first is in use at once.

    Parameters
    ----------
    name
        The context's name.
    url
        The broker's URL. A secret in it is a reference: `${NAME}` or `${file:PATH}`.
    use
        Use this context from now on.
    """
    contexts = Contexts.read().added(name, url)
    if use:
        contexts = contexts.using(name)
    contexts.write()
    text = f"{name}: {url}{' (in use)' if contexts.current == name else ''}"
    common.output.result("context", _entry(contexts, name), text)


@app.command
def use(name: str, /, *, common: Common = DEFAULT) -> None:
    """Use a context wherever no other broker is named.

    Parameters
    ----------
    name
        The context's name.
    """
    contexts = Contexts.read().using(name)
    contexts.write()
    common.output.result("context", _entry(contexts, name), f"using {name}")


@app.command
def ls(*, common: Common = DEFAULT) -> None:
    """List the contexts; the one in use is marked."""
    contexts = Contexts.read()
    entries = [_entry(contexts, name) for name in sorted(contexts.urls)]
    rows = [["*" if entry["current"] else "", entry["name"], entry["url"]] for entry in entries]
    common.output.table("contexts", entries, ["", "CONTEXT", "URL"], rows)
    if not entries:
        common.output.note("there is no context yet: anymq context add NAME URL")


@app.command
def rm(name: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a context.

    Parameters
    ----------
    name
        The context's name.
    """
    contexts = Contexts.read()
    contexts.removed(name).write()
    common.output.result("context", _entry(contexts, name), f"removed {name}")


def _entry(contexts: Contexts, name: str) -> dict[str, object]:
    return {"name": name, "url": contexts.urls[name], "current": contexts.current == name}
