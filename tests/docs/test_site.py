"""The built site: whole, and every link in it leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import dermafuse
from documentation import ROOT, pages


class Page(HTMLParser):
    """Links and anchors of an HTML page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") not in ("canonical", "prev", "next"):
            self.loaded.append(found["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loaded.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that was just built (``DERMAFUSE_SITE``), else one built here, strictly, with a sample of seconds."""
    if os.environ.get("DERMAFUSE_SITE"):
        return Path(os.environ["DERMAFUSE_SITE"]).resolve()
    folder = tmp_path_factory.mktemp("site") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    own = {"DERMAFUSE_DOCS_SAMPLE": "tiny", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **own})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.timeout(900)
@pytest.mark.slow  # builds the site; .ci/run runs it (make docs)
def test_every_link_of_the_site_leads_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    parsed = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(parsed) > 30
    broken = []
    for path, page in parsed.items():
        for link in page.links + page.loaded:
            parts = urlsplit(link)
            if parts.scheme in ("data", "blob"):
                continue
            if parts.scheme or parts.netloc:
                # Of other machines only the form is looked at; pages load nothing from them.
                good = parts.scheme in ("http", "https", "mailto") and link not in page.loaded
                good = good and bool(parts.netloc if parts.scheme != "mailto" else parts.path)
            else:
                base = site if parts.path.startswith("/") else path.parent
                to = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
                known = parsed[to].anchors if to in parsed else set()
                good = to.is_file() and (to not in parsed or parts.fragment in known | {"", "__top"})
            if not good:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, "\n".join(broken)
    report = (site / "sample" / "report.html").read_text(encoding="utf-8")
    assert "SYNTHETIC DATA" in report
    assert "Generated data" in (site / "sample" / "card.html").read_text(encoding="utf-8")


def test_links_of_the_readme_and_of_the_pages_lead_to_files() -> None:
    generated = (
        "reference/cli.md",
        "reference/settings.md",
        "sample/report.html",
        "sample/card.md",
        "sample/explained.png",
    )
    made = {ROOT / "docs" / name for name in generated}
    for page in [*pages(), ROOT / "CONTRIBUTING.md"]:
        prose = re.sub(
            r"^\s*```.*?^\s*```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
        )
        for link in re.findall(r"\]\(([^)\s]+)\)", prose):
            if re.match(r"[a-z]+:", link):
                assert re.match(r"https://[\w.-]+/|mailto:", link), f"{page}: {link}"
                continue
            to = (page.parent / link.partition("#")[0]).resolve() if not link.startswith("#") else page
            assert to.exists() or to in made, f"{page}: {link}"


def test_the_python_page_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert {f"::: dermafuse.{name}" for name in dermafuse.__all__ if name != "__version__"} <= set(text.splitlines())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 200
