"""`anymq config`: the effective settings, and where each comes from."""

from __future__ import annotations

from cyclopts import App

from ..settings import Setting, Settings
from .common import DEFAULT, Common, Flag

app = App(name="config", help="The effective settings, and where each comes from.")

DEFAULTED = "default"


@app.command
def show(*, all: Flag = False, common: Common = DEFAULT) -> None:
    """Show the settings that a connection is opened with; secrets are masked.

    The origin of each is `code` (the command line, a context or the app), a variable, a file, or
    `default`. No connection is opened.

    Parameters
    ----------
    all
        Show settings that have their defaults, too.
    """
    settings = common.settings()
    items = settings.items if all or common.json else _stated(settings)
    data = [{"name": item.name, "value": item.value, "origin": item.origin} for item in items]
    rows = [[item.name, item.value, item.origin] for item in items]
    common.output.table("settings", data, ["SETTING", "VALUE", "ORIGIN"], rows)
    hidden = len(settings.items) - len(items)
    if hidden:
        common.output.note(f"{hidden} more have their defaults: --all shows them")


def _stated(settings: Settings) -> list[Setting]:
    return [item for item in settings.items if item.origin != DEFAULTED]
