"""Build the API reference, from the docstrings of the public modules, into build/reference.

Run `python docs/reference/build.py`. A warning of any tool ends it with exit code 1.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "core", ROOT / "adapters")

MODULES = {
    "anymq": "everything that an application imports",
    "anymq.errors": "all exceptions",
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

OPTIONS = {
    "extensions": [str(Path(__file__).with_name("docstrings.py"))],
    "filters": ["!^_"],
    "members_order": "source",
    "merge_init_into_class": True,
    "separate_signature": True,
    "show_bases": True,
    "show_if_no_docstring": True,
    "show_root_toc_entry": False,
    "show_signature_annotations": True,
    "show_source": False,
    "show_symbol_type_heading": True,
    "signature_crossrefs": True,
}


# The command line of zensical shows no warning of the Python libraries that it calls.
ZENSICAL = """
import logging
logging.basicConfig(level=logging.WARNING)
from zensical.main import cli
cli()
"""


def configuration(modules: Iterable[str], sources: Iterable[Path]) -> dict[str, Any]:
    """Return the content of mkdocs.yml, of which JSON is a form."""
    handler = {"paths": [str(path) for path in sources], "options": OPTIONS}
    return {
        "site_name": "anymq API reference",
        "docs_dir": "reference-pages",
        "site_dir": "reference",
        "use_directory_urls": False,
        "theme": {"name": "material", "font": False},
        "markdown_extensions": ["pymdownx.highlight", "tables"],
        "plugins": ["search", {"mkdocstrings": {"handlers": {"python": handler}}}],
        "nav": [{"Modules": "index.md"}, *({name: f"{name}.md"} for name in modules)],
    }


def write_pages(folder: Path, modules: Mapping[str, str]) -> None:
    """Write one page for each module, and one that lists them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows = [f"| [`{name}`]({name}.md) | {contents} |" for name, contents in modules.items()]
    table = "\n".join(["| module | contents |", "|---|---|", *rows])
    (folder / "index.md").write_text(f"# API reference\n\n{table}\n", encoding="utf-8")
    for name in modules:
        (folder / f"{name}.md").write_text(f"# `{name}`\n\n::: {name}\n", encoding="utf-8")


def build(
    folder: Path,
    modules: Mapping[str, str] = MODULES,
    *,
    sources: Iterable[Path] = SOURCES,
) -> int:
    """Write the site into `folder`/reference; return 0, or 1 if there was a warning."""
    write_pages(folder / "reference-pages", modules)
    shutil.rmtree(folder / "reference", ignore_errors=True)
    file = folder / "reference.yml"
    file.write_text(json.dumps(configuration(modules, sources), indent=2), encoding="utf-8")
    built = subprocess.run(
        [sys.executable, "-c", ZENSICAL, "build", "--strict", "--clean", "-f", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    failed = built.returncode != 0 or "WARNING" in built.stdout
    print(built.stdout if failed else f"{folder / 'reference' / 'index.html'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(build(ROOT / "build"))
