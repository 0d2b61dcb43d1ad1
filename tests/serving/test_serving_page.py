"""The page, driven in a real browser. Without Chromium or Playwright these tests are skipped, and say so."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason='THE PAGE IS NOT TESTED: pip install "dermafuse[serve]"')
pytest.importorskip("playwright.sync_api", reason="THE PAGE IS NOT TESTED: pip install playwright")

pytest.importorskip("axe_playwright_python", reason="THE PAGE IS NOT TESTED: pip install axe-playwright-python")

from axe_playwright_python.sync_playwright import Axe
from playwright import sync_api as api
from test_serving_process import running

from dermafuse.data.metadata import MetadataEncoder
from dermafuse.evaluation.operating_points import ppv_at_prevalence
from dermafuse.labels import HAM10000, LabelSet
from dermafuse.runtime.bundle.folder import OutOfDistribution
from dermafuse.runtime.released import released_bundle
from dermafuse.serving import samples
from tiny_bundle import tiny_bundle, tiny_encoder, tiny_network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="THE PAGE IS NOT TESTED: no Chromium on this machine")

OFFLINE = ("--no-sandbox", "--disable-gpu")

#: Whether the heatmap shows anything.
DRAWN = "e => e.getContext('2d').getImageData(0, 0, 224, 224).data.some(v => v > 200)"
PAGE = Path(samples.__file__).parent / "page"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=[*OFFLINE])
        yield opened
        opened.close()


def serving(bundle: Path, *options: str) -> Any:
    """A server of one worker: it starts soonest."""
    return running(bundle, "--workers", "1", *options)


#: As `evaluation.operating_points` writes them.
POINTS = [
    {"target": "malignant", "rule": "sensitivity", "level": 0.9, "threshold": 0.0, "n": 1432, "positives": 280}
    | {"sensitivity": 0.902, "specificity": 0.771, "ci95": {"sensitivity": [0.868, 0.931], "specificity": None}},
    {"target": "mel", "rule": "sensitivity", "level": 0.95, "threshold": 0.999, "n": 1432, "positives": 160}
    | {"sensitivity": 0.948, "specificity": 0.66, "ci95": {}},
    {"target": "mel", "rule": "specificity", "level": 0.9, "threshold": None, "n": 9, "positives": 1}
    | {"sensitivity": None, "specificity": None, "ci95": {}},
]

#: What a bundle says of how its model was judged.
JUDGED = {
    "validation": {"n": 1432, "balanced_accuracy": 0.72, "ci95": {"balanced_accuracy": [0.698, 0.741]}}
    | {"operating_points": POINTS},
    "trained_on": {"train": {"files": "AAAAAAAAAAAAAAAB", "lesions": "AAAAAAAA"}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("page") / "tiny"
    with serving(tiny_bundle(folder, evaluation_json=json.dumps(JUDGED).encode())) as started:
        yield started


@pytest.fixture(scope="module")
def lesion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "lesion.jpg"
    file.write_bytes(samples.Samples().jpeg(1))
    return file


class Visit:
    """A page that is open, and what went wrong in it or was asked elsewhere."""

    def __init__(
        self,
        browser: Any,
        port: int,
        *,
        key: str = "",
        path: str = "",
        routes: Any = None,
        script: str = "",
        **context: Any,
    ) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(10_000)
        self.wrong: list[str] = []
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda said: self.wrong.append(said.text) if "Security Policy" in said.text else None)
        self.page.on("request", lambda asked: self._look(asked.url, port))
        self.page.add_init_script(script)
        for pattern, handler in (routes or {}).items():
            self.page.route(pattern, handler)
        self.page.goto(f"http://127.0.0.1:{port}/{path}")
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

    def part(self, name: str, panel: int = 0) -> Any:
        """A part of the panel that shows an answer."""
        return self.page.locator(".answer").nth(panel).locator(f"[data-part={name}]")

    def told(self, name: str, panel: int = 0) -> str:
        return str(self.part(name, panel).inner_text())

    def answered(self, file: Path, bars: int = 7) -> None:
        self.choose(file)
        self.part("bars").locator("li").nth(bars - 1).wait_for()

    def close(self) -> None:
        """Close it; nothing may have gone wrong in it."""
        assert self.wrong == []
        self.context.close()


def picture(name: str, page: Any) -> None:
    """Keep a screenshot where somebody wants to look at it."""
    if folder := os.environ.get("DERMAFUSE_SCREENSHOTS", ""):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def violations(page: Any) -> list[str]:
    """What axe-core finds wrong for people who see, hear or move otherwise."""
    found = Axe().run(page, options={"rules": {"target-size": {"enabled": True}}}).response["violations"]
    return [f"{each['id']}: {each['nodes'][0]['html']}" for each in found]


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
def test_a_lesion_gets_an_answer_with_bars_heatmap_shares_and_what_if(
    browser: Any, server: Any, lesion: Path, width: int, scheme: str
) -> None:
    visit = Visit(browser, server.port, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = visit.page
    page.fill("[name=age]", "55")
    page.locator(".body [data-word=back] path").first.click()
    assert page.input_value("[name=localization]") == "back"
    visit.answered(lesion)
    assert visit.told("set").startswith("Cannot exclude ")
    assert "%" in visit.told("malignant")
    assert visit.part("shares").locator("li").count() == 4
    assert "Not known, and so not used: Sex." in visit.told("notes")
    assert visit.told("given") == "Given: Age 55; Body site back."
    visit.part("stability").wait_for()
    assert " of 8 flips and quarter turns" in visit.told("stable")
    assert visit.part("what-ifs").locator("svg circle").count() == 1  # at the age that is given
    before = visit.told("bars")
    page.locator("#inputs input[type=range]").fill("20")  # what-if: at once
    visit.until(lambda: visit.told("bars") != before and "Age 20" in visit.told("given"))
    visit.part("opacity").fill("0")
    assert visit.part("heat").evaluate("e => getComputedStyle(e).opacity") == "0"
    visit.part("opacity").fill("60")
    assert visit.part("heat").evaluate(DRAWN)
    page.mouse.wheel(0, 3000)
    assert page.locator("text=Research use only").first.is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    picture(f"{scheme}-{width}", page)
    assert violations(page) == []
    visit.close()


def test_the_description_of_the_api_reads_well_and_loads_nothing_from_elsewhere(browser: Any, server: Any) -> None:
    visit = Visit(browser, server.port, viewport={"width": 360, "height": 800})
    visit.page.goto(f"http://127.0.0.1:{server.port}/docs")
    visit.page.wait_for_selector("#routes section")
    assert "POST /v1/predict:batch" in visit.text("#routes")
    for scheme in ("light", "dark"):
        visit.page.emulate_media(color_scheme=scheme)
        assert violations(visit.page) == []
    visit.close()


def test_an_answer_can_be_kept_and_printed_with_what_was_given_and_without_the_image(
    browser: Any, server: Any, lesion: Path, tmp_path: Path
) -> None:
    visit = Visit(browser, server.port)
    visit.page.fill("[name=age]", "61")
    visit.answered(lesion)
    with visit.page.expect_download() as kept:
        visit.part("save").click()
    kept.value.save_as(tmp_path / "kept.json")
    told = json.loads((tmp_path / "kept.json").read_text())
    assert told["given"] == {"age": "61"}
    assert sum(told["probabilities"].values()) == pytest.approx(1)
    assert told["model"]["digest"]
    assert "lesion" not in (tmp_path / "kept.json").read_text().replace("vascular lesion", "")
    visit.page.emulate_media(media="print")
    assert visit.part("bars").is_visible()
    assert "not a diagnosis" in visit.told("printed")
    assert not visit.page.is_visible("#drop")
    assert visit.page.pdf().startswith(b"%PDF")
    visit.close()


def test_the_keyboard_is_enough(browser: Any, server: Any) -> None:
    visit = Visit(browser, server.port)
    page = visit.page

    def tab_to(there: str) -> None:
        for _ in range(25):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches('{there}')"):
                return
        raise AssertionError(f"no way to {there}")

    tab_to("#samples button")
    page.keyboard.press("Enter")
    visit.part("bars").locator("li").first.wait_for()
    tab_to(".body [role=radio]")
    page.keyboard.press("ArrowDown")
    chosen = page.input_value("[name=localization]")
    assert chosen
    visit.until(lambda: f"Body site {chosen}" in visit.told("given"))
    page.keyboard.press("Delete")
    assert page.input_value("[name=localization]") == ""
    tab_to("[data-part=opacity]")
    page.keyboard.press("Home")
    assert visit.part("heat").evaluate("e => e.style.opacity") == "0"
    visit.close()


def test_a_file_that_is_no_image_is_refused_in_a_sentence_and_no_old_answer_stands(
    browser: Any, server: Any, lesion: Path, tmp_path: Path
) -> None:
    (tmp_path / "letter.jpg").write_text("Dear colleague")
    visit = Visit(browser, server.port)
    visit.answered(lesion)
    visit.choose(tmp_path / "letter.jpg")
    visit.page.wait_for_selector("#trouble:not([hidden])")
    assert "not an image" in visit.text("#trouble")
    assert not visit.part("bars").is_visible()
    visit.page.fill("[name=age]", "500")
    visit.until(lambda: visit.text("#trouble").startswith("Age"))
    assert visit.page.locator("#cases li").count() == 1  # the one that was answered
    visit.close()


def test_another_label_set_without_metadata_has_no_form_and_a_key_is_asked_for(
    browser: Any, tmp_path: Path, lesion: Path
) -> None:
    bundle = tiny_bundle(
        tmp_path / "two",
        metadata=False,
        labels=LabelSet.of(("<b>wart</b>", "corn")),
        models=(tiny_network(classes=2),),
        prediction_set=None,
        ood=OutOfDistribution(method="energy", threshold=-1000.0),
    )
    (tmp_path / "key").write_text("correct-horse-battery\n")
    with serving(bundle, "--api-key-file", str(tmp_path / "key")) as server:
        visit = Visit(browser, server.port, key="correct-horse-battery")
        assert not visit.page.is_visible("#fields")
        visit.answered(lesion, bars=2)
        assert "Do not trust" in visit.told("strange")
        assert visit.told("doubtful") == "Not to be relied on:"
        assert "<b>wart</b>" in visit.told("bars")  # text, not markup
        assert not visit.part("malignant").is_visible()
        assert not visit.part("decision").is_visible()
        visit.close()


def test_other_metadata_make_another_form_and_an_outline_wherever_the_words_are_body_sites(
    browser: Any, tmp_path: Path, lesion: Path
) -> None:
    table = pd.DataFrame(
        {
            "diameter": [2.0, 4.0, 6.0],
            "place": ["head/neck", "posterior torso", "oral/genital"],
            "itches": ["yes", "no", "no"],
        }
    )
    encoder = MetadataEncoder.fit(table, numeric=["diameter"], categorical=["place", "itches"])
    bundle = tiny_bundle(tmp_path / "own", encoder=encoder, models=(tiny_network(width=encoder.width),))
    with serving(bundle) as server:
        visit = Visit(browser, server.port)
        page = visit.page
        assert page.locator("#inputs [name]").evaluate_all("all => all.map(e => e.name)") == [
            "diameter",
            "place",
            "itches",
        ]
        assert page.locator(".body").count() == 1
        words = page.locator(".body [role=radio]").evaluate_all("all => all.map(e => e.dataset.word)")
        assert sorted(words) == ["head/neck", "oral/genital", "posterior torso"]
        visit.answered(lesion)
        page.locator(".body [data-word='posterior torso'] path").first.click()
        visit.until(lambda: "place posterior torso" in visit.told("given"))
        assert violations(page) == []
        visit.close()


def test_a_photograph_that_is_not_skin_is_flagged(browser: Any, tmp_path: Path) -> None:
    data = pytest.importorskip("sklearn.datasets")
    Image.fromarray(data.load_sample_image("china.jpg")).save(tmp_path / "temple.jpg")
    with serving(released_bundle()) as server:
        visit = Visit(browser, server.port)
        visit.answered(tmp_path / "temple.jpg")
        assert "Do not trust" in visit.told("strange")
        assert "mostly fair-skinned" in visit.text("#card")  # what it does not know, without a click
        picture("strange", visit.page)
        visit.close()


#: Lets go of files over the page, or pastes them.
GIVE = """([kind, files]) => {
  const held = new DataTransfer();
  const bytes = (content) => Uint8Array.from(atob(content), c => c.charCodeAt(0));
  for (const content of files) held.items.add(new File([bytes(content)], "x.jpg"));
  const place = document.getElementById("drop");
  place.dispatchEvent(kind === "drop" ? new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: held, bubbles: true }));
}"""


def test_images_are_dropped_pasted_or_taken_with_the_camera_of_a_phone(browser: Any, server: Any, lesion: Path) -> None:
    visit = Visit(browser, server.port, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 800})
    content = base64.b64encode(lesion.read_bytes()).decode()
    visit.page.evaluate(GIVE, ["drop", [content, content]])  # two at once: side by side
    visit.part("bars", 1).locator("li").first.wait_for()
    visit.page.evaluate(GIVE, ["paste", [content]])
    visit.page.locator("#cases li").nth(2).wait_for()
    assert visit.page.is_visible(".camera")
    assert visit.page.get_attribute("#camera", "capture") == "environment"
    visit.close()


def test_two_images_stand_side_by_side_and_the_list_is_cleared(browser: Any, server: Any, lesion: Path) -> None:
    visit = Visit(browser, server.port, viewport={"width": 1280, "height": 900})
    page = visit.page
    visit.answered(lesion)
    page.fill("[name=age]", "30")
    visit.until(lambda: "Age 30" in visit.told("given"))
    page.locator("#samples button").nth(4).click()
    page.locator("#cases li").nth(1).wait_for()
    page.fill("[name=age]", "70")
    visit.until(lambda: "Age 70" in visit.told("given"))
    page.get_by_label("Put image 1 beside").click()
    left, right = (page.locator(".answer").nth(n).bounding_box() for n in (0, 1))
    assert left["x"] + left["width"] <= right["x"]
    assert ["Image 2" in visit.told("title"), "Age 30" in visit.told("given", 1)] == [True, True]
    picture("two", page)
    assert violations(page) == []
    page.locator("#cases .show").first.click()  # back to the first, with what was given for it
    assert page.input_value("[name=age]") == "30"
    assert page.evaluate("document.activeElement.matches('#cases .show')")  # the keyboard stays where it was
    page.click("#clear")
    assert not page.is_visible("#looked-at")
    assert not visit.part("bars").is_visible()
    visit.close()


def test_the_server_goes_and_comes_back(browser: Any, lesion: Path, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "tiny")
    with serving(bundle) as server:
        visit = Visit(browser, server.port)
        server.process.send_signal(signal.SIGKILL)
        server.process.wait(10)
        visit.choose(lesion)
        visit.page.wait_for_selector("text=The server does not answer")
        with serving(bundle, "--port", str(server.port)):
            visit.part("bars").locator("li").first.wait_for()
            assert not visit.page.is_visible("#trouble")
            visit.close()


def test_an_operating_point_says_what_it_means_and_what_is_true_at_a_stated_prevalence(
    browser: Any, server: Any, lesion: Path
) -> None:
    visit = Visit(browser, server.port)
    assert visit.text("#learned") == "It has learned from 2 images of 1 lesions."
    assert "balanced accuracy 72.0 % (95 % interval 69.8 % to 74.1 %)" in visit.text("#judged").replace("\u00a0", " ")
    visit.answered(lesion)
    assert visit.part("point").locator("option").count() == 2  # the third has too few lesions to be one
    assert visit.told("verdict").startswith("Flagged: ")
    assert "95 % interval 86.8" in visit.told("meaning").replace("\u00a0", " ")
    visit.part("prevalence").fill("5")
    expected = ppv_at_prevalence(0.902, 0.771, 0.05)
    assert expected is not None
    visit.until(lambda: f"flagged, {100 * expected:.0f} truly are" in visit.told("truly"))
    visit.part("prevalence").fill("100")
    assert "below 100" in visit.told("truly")
    visit.part("point").select_option("1")
    assert visit.told("verdict").startswith("Not flagged: ")
    assert "melanoma" in visit.told("meaning")
    picture("decision", visit.page)
    assert violations(visit.page) == []
    visit.close()


#: Adds to the answers of the server what another server could say. (Playwright cannot pass an upload on.)
ADDING = """
const real = window.fetch;
window.fetch = async (path, options) => {
  const answer = await real(path, options);
  if (!answer.ok || !path.startsWith("/v1/predict")) return answer;
  return new Response(JSON.stringify({ ...(await answer.json()), ...MORE }));
};
"""


def test_poor_images_stability_and_similar_lesions_are_shown_where_the_server_tells_them(
    browser: Any, server: Any, lesion: Path
) -> None:
    dot = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
    neighbours = [{"label": "mel", "name": "melanoma", "distance": 0.1234, "thumbnail": dot}]
    spread = {"mel": [0.2, 0.3], "nv": [0.4, 0.7], "df": [0.0, 0.01]}
    stability = {"views": 8, "same_label": 6, "probabilities": spread, "malignant_probability": [0.2, 0.35]}
    more = {"quality": {"flags": ["blurred", "dark"]}, "stability": stability}
    routes = {
        "**/v1/model": lambda route: route.fulfill(json={**route.fetch().json(), "gallery": True}),
        "**/v1/similar": lambda route: route.fulfill(json={"similar": neighbours}),
    }
    visit = Visit(browser, server.port, routes=routes, script=ADDING.replace("MORE", json.dumps(more)))
    visit.answered(lesion)
    assert visit.told("poor").startswith("Poor image: blurred and too dark.")
    visit.part("similar").wait_for()
    assert visit.told("stable").startswith("6 of 8 ")
    assert "treat it with care" in visit.told("unstable")
    assert visit.part("spreads").locator("li").count() == 3
    assert visit.told("neighbours").split("\n")[-2:] == ["melanoma", "distance 0.123"]
    picture("all", visit.page)
    assert violations(visit.page) == []
    visit.close()


#: A language in which every text is the English one in brackets.
TEST_LANGUAGE = """
import english from "./texts.js";
const marked = (value) => typeof value === "function" ? (...all) => `[${value(...all)}]`
  : typeof value === "string" ? `[${value}]`
  : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, marked(inner)]));
export default { ...marked(english), words: { back: "[Rücken]" } };
"""


def test_a_file_beside_the_texts_translates_all_of_the_page(browser: Any, server: Any, lesion: Path) -> None:
    def language(route: Any) -> None:
        route.fulfill(body=TEST_LANGUAGE, content_type="text/javascript")

    routes = {"**/page/texts.qaa.js": language}
    visit = Visit(browser, server.port, path="?lang=qaa", routes=routes)
    visit.page.locator(".body [data-word=back] path").first.click()
    visit.answered(lesion)
    assert visit.page.evaluate("document.documentElement.lang") == "qaa"
    assert visit.page.locator(".body [aria-label='[Rücken]']").count() == 1
    said = visit.page.locator(
        "header, .ask h2, .ask p, .ask legend, .ask .button, .ask label span, .ask button, .answer *"
    )
    own = said.evaluate_all(
        "all => all.flatMap(e => [...e.childNodes]).filter(n => n.nodeType === 3).map(n => n.data.trim())"
    )
    left = [text for text in own if re.search("[a-z]{2}", text) and not text.startswith("[")]
    names = {*HAM10000.names.values(), *tiny_encoder().vocabularies[0], *tiny_encoder().vocabularies[1]}
    assert set(left) <= names
    visit.close()
    other = Visit(browser, server.port, path="?lang=zz")  # nobody has translated it
    assert "Research use only" in other.text("header")
    other.close()


def test_every_text_that_the_page_names_is_there() -> None:
    keys = set(re.findall(r'data-text="(\w+)"', (PAGE / "index.html").read_text()))
    for script in PAGE.glob("*.js"):
        if script.name != "texts.js":
            keys |= set(re.findall(r"(?<!/)\btexts\.(\w+)", script.read_text()))
    written = set(re.findall(r"^  (\w+):", (PAGE / "texts.js").read_text(), re.M))
    assert keys <= written
