"""`anymq docs`: what applications receive and send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from ..description import Service, asyncapi, compare, dot, mermaid, service
from ..description import graph as graph_of
from ..description.comparison import DIRECTIONS, Change, Direction
from ..errors import ConfigurationError
from ..settings import effective, names_url
from ..url import URL
from .common import DEFAULT, Common
from .failures import EXIT_FAILED, UsageError
from .loading import load_app

if TYPE_CHECKING:
    from ..app import App as Application

app = App(name="docs", help="Documents of apps: AsyncAPI, and the graph of events.")

Language = Literal["mermaid", "dot", "json"]
OutputFile = Annotated[Path | None, Parameter(name=("--output", "-o"))]
Compatibility = Literal["full", "backward", "forward"]


@app.command(name="asyncapi")
def write_asyncapi(
    *apps: str,
    check: Annotated[Path | None, Parameter(name="--check")] = None,
    compatibility: Compatibility = "full",
    output: OutputFile = None,
    common: Common = DEFAULT,
) -> int:
    """Write the AsyncAPI 3.0 document of apps in JSON, which is YAML as well.

    With --check nothing is written. The exit code is 1 if a payload has changed so that messages
    or consumers of the old document break, with a line for each break.

    Parameters
    ----------
    apps
        The apps, as module:attribute.
    check
        An AsyncAPI document of an earlier version to compare with.
    compatibility
        What --check demands: that new consumers read old messages (backward), old consumers new
        ones (forward), or both.
    output
        The file to write to instead of standard output.
    """
    document = asyncapi(_services(apps, common))
    if check is None:
        text = json.dumps(document, indent=2, ensure_ascii=False)
        _write("asyncapi", document, text, output, common)
        return 0
    if output is not None:
        raise UsageError("--check writes no document; leave --output out")
    return _check(check, document, compatibility, common)


@app.command(name="graph")
def write_graph(
    *apps: str,
    format: Annotated[Language, Parameter(name=("--format", "-f"))] = "mermaid",
    output: OutputFile = None,
    common: Common = DEFAULT,
) -> None:
    """Write the graph of events: services, their handlers, and the topics between them.

    Parameters
    ----------
    apps
        The apps, as module:attribute.
    format
        The language of the graph.
    output
        The file to write to instead of standard output.
    """
    found = graph_of(_services(apps, common))
    data = found.as_json()
    if format == "json":
        text = json.dumps(data, indent=2, ensure_ascii=False)
    else:
        text = mermaid(found) if format == "mermaid" else dot(found)
    _write("graph", data, text.rstrip("\n"), output, common)


def _write(kind: str, data: Any, text: str, output: Path | None, common: Common) -> None:
    if output is None:
        common.output.result(kind, data, text)
        return
    output.write_text(text + "\n", encoding="utf-8")
    common.output.note(f"wrote {output}")


def _services(places: Sequence[str], common: Common) -> list[Service]:
    chosen = places or ([common.app] if common.app else [])
    if not chosen:
        raise UsageError("no app given", hint="name it as module:attribute, such as shop:app")
    found: list[Service] = []
    for place in dict.fromkeys(chosen):
        loaded = load_app(place)
        found.append(service(loaded, name=_name(place), url=_url(loaded, common)))
    names = [each.name for each in found]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            raise UsageError(
                f"{names.count(name)} apps are called {name!r}",
                hint="give each a name: App(name=…)",
            )
    return found


def _name(place: str) -> str:
    """Return the name of an app without one: its attribute, or its module if that is `app`."""
    module, _, attribute = place.partition(":")
    attribute = attribute.removesuffix("()")
    return module.rpartition(".")[2] if attribute in ("", "app") else attribute


def _url(loaded: Application, common: Common) -> URL | None:
    """Return the URL of the options, else the app's own, else that of the environment."""
    if common.url is None and common.context is None and loaded.url is not None:
        return loaded.url
    text = common.broker_url
    if text is not None:
        return URL.parse(text)
    return effective().url if names_url() else None


def _check(file: Path, document: Any, compatibility: Compatibility, common: Common) -> int:
    directions: list[Direction] = [each for each in DIRECTIONS if compatibility in ("full", each)]
    try:
        found = compare(_read(file), document, directions=directions)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from error
    breaks = [each for each in found if each.breaks]
    shown = breaks or found
    head = [] if breaks else ["compatible"]
    common.output.result(
        "compatibility",
        {"compatible": not breaks, "changes": [_change(each) for each in found]},
        "\n".join([*head, *map(str, shown)]),
    )
    return EXIT_FAILED if breaks else 0


def _change(change: Change) -> dict[str, str | None]:
    return {
        "topic": change.topic,
        "type": change.type,
        "path": change.path,
        "text": change.text,
        "breaks": change.breaks,
    }


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(error.strerror or "cannot be read") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError("not a text in UTF-8") from error
    except RecursionError as error:
        raise ConfigurationError("nested too deeply") from error
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"not JSON: {error}; compare with a document that `anymq docs asyncapi` wrote"
        ) from error
