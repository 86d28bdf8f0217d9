"""Build the documentation site into build/site: `python docs/site.py`.

The pages of docs/ are staged in build/site-pages, with those that are generated: the API reference
from docstrings, the command line from its help, and an index of the decisions. mkdocs.yml has the
order of the pages. The site has llms.txt, and each page as Markdown too. A warning of any tool ends
it with exit code 1.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CONFIGURATION = ROOT / "mkdocs.yml"
PAGES = ROOT / "build" / "site-pages"
SITE = ROOT / "build" / "site"
COPIED = {".md", ".svg", ".html", ".json"}

MODULES = {
    "anymq": "everything that an application imports",
    "anymq.errors": "all exceptions",
    "anymq.health": "the report of `App.health`, and its endpoint",
    "anymq.middleware": "the functions that wrap a handler",
    "anymq.testing": "test doubles, and the conformance suite for adapters",
    "anymq.driver": "the interface that an adapter implements",
    "anymq_kafka": "the Kafka adapter",
    "anymq_rabbitmq": "the RabbitMQ adapter",
    "anymq_nats": "the NATS JetStream adapter",
    "anymq_redis": "the Redis Streams adapter",
    "anymq_sqlite": "the SQLite adapter",
    "anymq_memory": "the memory adapter",
}

# The command line of zensical shows no warning of the Python libraries that it calls.
ZENSICAL = """
import logging
logging.basicConfig(level=logging.WARNING)
from zensical.main import cli
cli()
"""

_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s]*)\)")


def write_pages(folder: Path) -> None:
    """Write every page of the site into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    for source in sorted(DOCS.rglob("*")):
        if source.suffix not in COPIED:
            continue
        target = folder / source.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".md":
            target.write_text(_staged(source), encoding="utf-8")
        else:
            shutil.copyfile(source, target)
    for name, text in generated():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def generated() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page that has no file in docs/."""
    rows = [f"| [`{name}`]({name}.md) | {contents} |" for name, contents in MODULES.items()]
    table = "\n".join(["| module | contents |", "|---|---|", *rows])
    yield "reference/api/index.md", f"# API\n\n{table}\n"
    for name in MODULES:
        yield f"reference/api/{name}.md", f"# `{name}`\n\n::: {name}\n"
    yield "reference/cli.md", command_line()
    yield "decisions/index.md", decisions()


def command_line() -> str:
    """Return the page of the command `anymq`, from its help."""
    from anymq.cli.application import application

    text = application().generate_docs(output_format="markdown", recursive=True)
    return text if isinstance(text, str) else str(text)


def llms(navigation: list[Any]) -> str:
    """Return llms.txt, as https://llmstxt.org describes it: each page with its first sentence."""
    lines = ["# anymq", "", f"> {_first_paragraph(DOCS / 'index.md')}"]
    for section in navigation:
        if isinstance(section, dict):
            for title, entries in section.items():
                lines += ["", f"## {title}", "", *_listed(entries)]
    return "\n".join([*lines, ""])


def _listed(entries: list[Any]) -> Iterator[str]:
    """Yield a line for each page of a section of the navigation."""
    for entry in entries:
        title, page = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(page, list):
            yield from _listed(page)
            continue
        path = PAGES / page
        title = title or path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        yield f"- [{title}]({page}): {_first_paragraph(path)}".removesuffix(": ")


def _first_paragraph(page: Path) -> str:
    """Return the first paragraph of a page that is text, as one line without links."""
    parts = page.read_text(encoding="utf-8").split("\n\n")
    texts = (part for part in parts if re.match(r"[A-Za-z`*\[]", part))
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", next(texts, "")).replace("\n", " ")


def decisions() -> str:
    """Return the page that lists the decisions, with the first line of each."""
    lines = []
    for page in sorted((DOCS / "decisions").glob("*.md")):
        title = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        lines.append(f"- [{title}]({page.name})")
    intro = "Each page tells an alternative that was rejected, and why."
    return "\n".join(["# Decisions", "", intro, "", *lines, ""])


def _staged(page: Path) -> str:
    """Return the text of a page; a link out of docs/ becomes its text."""

    def inside(found: re.Match[str]) -> str:
        target = (page.parent / found[2].partition("#")[0]).resolve()
        return found[0] if target.is_relative_to(DOCS) else found[1]

    return _LINK.sub(inside, page.read_text(encoding="utf-8"))


def build(configuration: Path = CONFIGURATION) -> int:
    """Build the site that `configuration` describes; return 0, or 1 if there was a warning."""
    built = subprocess.run(
        [sys.executable, "-c", ZENSICAL, "build", "--strict", "--clean", "-f", str(configuration)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    failed = built.returncode != 0 or "WARNING" in built.stdout
    if failed:
        print(built.stdout)
    return int(failed)


def make() -> int:
    """Build the whole site; return 0, or 1 if there was a warning."""
    write_pages(PAGES)
    status = build()
    if status == 0:
        for page in PAGES.rglob("*.md"):
            shutil.copyfile(page, SITE / page.relative_to(PAGES))
        navigation = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))["nav"]
        (SITE / "llms.txt").write_text(llms(navigation), encoding="utf-8")
    return status


def main() -> int:
    status = make()
    if status == 0:
        print(SITE / "index.html")
    return status


if __name__ == "__main__":
    sys.exit(main())
