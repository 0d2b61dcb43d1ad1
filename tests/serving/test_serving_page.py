"""The page, driven in a real browser. Without Chromium or Playwright these tests are skipped, and say so."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason='THE PAGE IS NOT TESTED: pip install "dermafuse[serve]"')
pytest.importorskip("playwright.sync_api", reason="THE PAGE IS NOT TESTED: pip install playwright")

pytest.importorskip("axe_playwright_python", reason="THE PAGE IS NOT TESTED: pip install axe-playwright-python")

from axe_playwright_python.sync_playwright import Axe
from playwright import sync_api as api
from test_serving_process import running

from dermafuse.labels import LabelSet
from dermafuse.runtime.bundle.folder import OutOfDistribution
from dermafuse.serving.samples import Samples
from tiny_bundle import tiny_bundle, tiny_network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="THE PAGE IS NOT TESTED: no Chromium on this machine")

OFFLINE = ("--no-sandbox", "--disable-gpu")

#: Whether the heatmap shows anything.
DRAWN = "document.getElementById('heat').getContext('2d').getImageData(0, 0, 224, 224).data.some(v => v > 200)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=[*OFFLINE])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def lesion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "lesion.jpg"
    file.write_bytes(Samples().jpeg(1))
    return file


class Visit:
    """A page that is open, and what went wrong in it or was asked elsewhere."""

    def __init__(self, browser: Any, port: int, *, key: str = "", **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if "Security Policy" in said.text else None)
        self.page.on("request", lambda asked: self._look(asked.url, port))
        self.page.goto(f"http://127.0.0.1:{port}/")
        if key:
            self.page.fill("#key", key)
            self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#samples img")

    def _look(self, address: str, port: int) -> None:
        if not address.startswith((f"http://127.0.0.1:{port}/", "blob:", "data:")):
            self.wrong.append(address)

    def choose(self, file: Path) -> None:
        self.page.set_input_files("#file", file)

    def until(self, true: Callable[[], bool]) -> None:
        """Wait; Playwright's own way needs eval, which the page's policy forbids."""
        for _ in range(100):
            if true():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("it did not come to be")

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))


def picture(folder: str, name: str, page: Any) -> None:
    """Keep a screenshot where somebody wants to look at it."""
    if folder:
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_a_lesion_gets_an_answer_with_bars_heatmap_and_shares(
    browser: Any, server: Any, lesion: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, server.port, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = visit.page
    page.fill("[name=age]", "55")
    page.select_option("[name=localization]", "back")
    visit.choose(lesion)
    page.wait_for_selector("#bars li >> nth=6")
    assert visit.text("#set").startswith("Cannot exclude ")
    assert "%" in visit.text("#malignant")
    assert page.locator("#shares li").count() == 4
    assert visit.text("#notes") == "Not known, and so not used: Sex."
    before = visit.text("#bars")
    page.select_option("[name=sex]", "female")  # what-if: at once
    visit.until(lambda: visit.text("#bars") != before)
    page.locator("#opacity").fill("0")
    assert page.evaluate("getComputedStyle(document.getElementById('heat')).opacity") == "0"
    assert page.is_visible("text=Research use only")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(DRAWN)
    picture(os.environ.get("DERMAFUSE_SCREENSHOTS", ""), f"{scheme}-{width}", page)
    assert violations(page) == []
    assert visit.wrong == []
    visit.context.close()


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong for people who see, hear or move otherwise."""
    return [f"{found['id']}: {found['nodes'][0]['html']}" for found in Axe().run(page).response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_description_of_the_api_reads_well_and_loads_nothing_from_elsewhere(
    browser: Any, server: Any, scheme: str
) -> None:
    visit = Visit(browser, server.port, viewport={"width": 360, "height": 800}, color_scheme=scheme)
    visit.page.goto(f"http://127.0.0.1:{server.port}/docs")
    visit.page.wait_for_selector("#routes section")
    assert "POST /v1/predict:batch" in visit.text("#routes")
    assert violations(visit.page) == []
    assert visit.wrong == []
    visit.context.close()


def test_an_answer_can_be_kept_with_what_was_given_and_without_the_image(
    browser: Any, server: Any, lesion: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, server.port)
    visit.page.fill("[name=age]", "61")
    visit.choose(lesion)
    visit.page.wait_for_selector("#bars li")
    with visit.page.expect_download() as kept:
        visit.page.click("#save")
    kept.value.save_as(tmp_path / "kept.json")
    told = json.loads((tmp_path / "kept.json").read_text())
    assert told["given"] == {"age": "61"}
    assert sum(told["probabilities"].values()) == pytest.approx(1)
    assert told["model"]["digest"]
    assert "lesion" not in (tmp_path / "kept.json").read_text().replace("vascular lesion", "")
    visit.page.emulate_media(media="print")
    assert visit.page.is_visible("#bars")
    assert not visit.page.is_visible("#drop")
    visit.context.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with running(tiny_bundle(tmp_path_factory.mktemp("page") / "tiny")) as started:
        yield started


def test_the_keyboard_is_enough(browser: Any, server: Any) -> None:
    visit = Visit(browser, server.port)
    page = visit.page
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('#samples') !== null"):
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("#bars li")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "opacity":
            break
    page.keyboard.press("Home")
    assert page.evaluate("document.getElementById('heat').style.opacity") == "0"
    visit.context.close()


def test_a_file_that_is_no_image_is_refused_in_a_sentence_and_no_old_answer_stands(
    browser: Any, server: Any, lesion: Path, tmp_path: Path
) -> None:
    (tmp_path / "letter.jpg").write_text("Dear colleague")
    visit = Visit(browser, server.port)
    visit.choose(lesion)
    visit.page.wait_for_selector("#bars li")
    visit.choose(tmp_path / "letter.jpg")
    visit.page.wait_for_selector("#trouble:not([hidden])")
    assert "not an image" in visit.text("#trouble")
    assert not visit.page.is_visible("#result")
    visit.page.fill("[name=age]", "500")
    visit.until(lambda: visit.text("#trouble").startswith("Age"))
    visit.context.close()


def test_another_label_set_makes_another_form_a_stranger_is_flagged_and_a_key_is_asked_for(
    browser: Any, tmp_path: Path, lesion: Path
) -> None:
    labels = LabelSet.of(("<b>wart</b>", "corn"))
    bundle = tiny_bundle(
        tmp_path / "two",
        metadata=False,
        labels=labels,
        models=(tiny_network(classes=2),),
        prediction_set=None,
        ood=OutOfDistribution(method="energy", threshold=-1000.0),
    )
    (tmp_path / "key").write_text("correct-horse-battery\n")
    with running(bundle, "--api-key-file", str(tmp_path / "key")) as server:
        visit = Visit(browser, server.port, key="correct-horse-battery")
        assert not visit.page.is_visible("#fields")
        visit.choose(lesion)
        visit.page.wait_for_selector("#bars li >> nth=1")
        assert visit.page.is_visible("#strange")
        assert "Do not trust" in visit.text("#strange")
        assert "<b>wart</b>" in visit.text("#bars")  # text, not markup
        assert visit.text("#malignant") == ""
        assert visit.wrong == []
        visit.context.close()


def test_the_server_goes_and_comes_back(browser: Any, lesion: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    with running(bundle) as server:
        visit = Visit(browser, server.port)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        visit.choose(lesion)
        visit.page.wait_for_selector("text=The server does not answer")
        with running(bundle, "--port", str(server.port)):
            visit.page.wait_for_selector("#bars li")
            assert not visit.page.is_visible("#trouble")
            visit.context.close()
