"""The documentation site: built without a warning, every link leads somewhere, no page is lost."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

from docs.site import CONFIGURATION, MODULES, SITE, build, make
from tests.docs.pages import ROOT
from tests.packaging.conftest import ADAPTERS

pytestmark = pytest.mark.xdist_group("site")


class Links(HTMLParser):
    """The links and the anchors of one page."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = {"", "__skip"}
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {found.get("id") or "", found.get("name") or ""}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"] or "")
        if tag in ("script", "img", "link") and found.get("rel") != "canonical":
            self.loaded.append(found.get("src") or found.get("href") or "")


@pytest.fixture(scope="module")
def site() -> Path:
    """The folder of the built site."""
    assert make() == 0
    return SITE


def test_every_link_leads_somewhere(site: Path) -> None:
    pages = {path: Links(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 30
    broken = []
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            name, _, anchor = unquote(link).partition("#")
            target = (path.parent / name).resolve() if name else path
            if not target.exists() or (
                anchor and target in pages and anchor not in pages[target].anchors
            ):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_no_page_loads_from_another_host(site: Path) -> None:
    for path in site.rglob("*.html"):
        if path.parent.name != "reports":
            loaded = [each for each in Links(path).loaded if re.match(r"(https?:)?//", each)]
            assert loaded == [], path


def test_the_api_is_in_the_reference(site: Path) -> None:
    assert set(ADAPTERS) < set(MODULES)
    api = site / "reference" / "api"
    assert 'id="anymq.Broker.publish"' in (api / "anymq.html").read_text()
    assert 'id="anymq.driver.Driver.publish"' in (api / "anymq.driver.html").read_text()
    assert 'id="anymq_kafka.KafkaOptions"' in (api / "anymq_kafka.html").read_text()


def test_llms_txt_lists_every_page_of_the_navigation(site: Path) -> None:
    text = (site / "llms.txt").read_text(encoding="utf-8")
    links = re.findall(r"^- \[.+\]\((.+?)\)(?:: .+)?$", text, re.MULTILINE)
    assert text.startswith("# anymq\n\n> ")
    assert [link for link in links if not (site / link).exists()] == []
    named = set(re.findall(r"[\w./-]+\.md", CONFIGURATION.read_text(encoding="utf-8")))
    assert named - {"index.md"} == set(links)


def test_every_page_is_in_the_navigation() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w./-]+\.md", text))
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    decisions = {name for name in written if name.startswith("decisions/")}
    assert written - decisions - listed == set()
    assert yaml.safe_load(text)["nav"][0] == "index.md"


def test_a_warning_about_a_docstring_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = 'def pay(total: int) -> None:\n    """Pay.\n\n    Args:\n        sum: unknown\n    """\n'
    (tmp_path / "shop.py").write_text(text)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# Shop\n\n::: shop\n")
    settings = yaml.safe_load(CONFIGURATION.read_text(encoding="utf-8"))
    python = settings["plugins"][1]["mkdocstrings"]["handlers"]["python"]
    python["paths"] = [str(tmp_path)]
    python["options"]["extensions"] = [str(ROOT / "docs" / "docstrings.py")]
    settings |= {"docs_dir": "pages", "site_dir": "site", "nav": ["index.md"]}
    file = tmp_path / "mkdocs.yml"
    file.write_text(yaml.safe_dump(settings))
    assert build(file) == 1
    assert "'sum' does not appear" in capfd.readouterr().out
