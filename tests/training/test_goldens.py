"""What was answered before is answered still: files that version dd964d4 wrote, and three small runs with its settings.

The fixtures lie in ``tests/goldens``: ``before/`` a RUN and a bundle as that version wrote them, with the bundle's
answers; ``released.json`` its answers of the released model on 64 generated images; ``seed``, ``tail`` and ``ensemble``
the settings, numbers, predictions and visible report text of three runs on generated data (80 images, random weights,
float32). Times, paths and versions are left out. Where a difference is right, ``DERMAFUSE_RENEW_GOLDENS=1 pytest -m
slow tests/training/test_goldens.py`` writes the three runs anew; the commit says what differs, and why.
"""

import html
import json
import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dermafuse
from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.evaluation.measure import measure
from dermafuse.evaluation.overlap import find_overlap
from dermafuse.report.page import make_report
from dermafuse.runs import RunFolder
from dermafuse.runtime.bundle.folder import read_bundle
from report_reading import wrong_numbers
from tiny_bundle import tiny_image

GOLDENS = Path(__file__).parents[1] / "goldens"
RENEW = os.environ.get("DERMAFUSE_RENEW_GOLDENS") == "1"

#: Of metrics.json: what another machine, another day or another place changes.
LEFT_OUT = ("dermafuse", "environment", "files", "published", "seconds")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("goldens") / "data", lesions=60, seed=3, size=(96, 72))


def answer(model: Any, image: Any, **given: Any) -> dict[str, Any]:
    found = model.predict(image, **given)
    return {
        "label": found.label,
        "probabilities": dict(found.probabilities),
        "prediction_set": None if found.prediction_set is None else list(found.prediction_set),
        "out_of_distribution": found.out_of_distribution,
        "ood_score": found.ood_score,
    }


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Return where two JSON values differ: numbers by more than 1e-3 of their size, all else at all."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = [f"{where}/{key}: only in one" for key in old.keys() ^ new.keys()]
        return found + [
            text for key in old.keys() & new.keys() for text in differences(old[key], new[key], f"{where}/{key}")
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            text for n, pair in enumerate(zip(old, new, strict=True)) for text in differences(*pair, f"{where}/{n}")
        ]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (old, new))
    same = bool(np.isclose(old, new, rtol=1e-3, atol=1e-4)) if numbers else old == new
    return [] if same else [f"{where}: {old!r}, now {new!r}"]


def test_the_released_model_answers_as_before(data: Path) -> None:
    before = json.loads((GOLDENS / "released.json").read_text())
    table = read_dataset(data).table.set_index("image_id")
    model = dermafuse.load(precision="f32")
    for image, expected in before.items():
        row = table.loc[image]
        given = {name: row[name] for name in ("age", "sex", "localization") if not pd.isna(row[name])}
        assert differences(expected, answer(model, row["path"], **given)) == [], image
    assert len(before) == 64


def test_a_bundle_of_the_version_before_loads_and_answers_as_it_did() -> None:
    bundle = read_bundle(GOLDENS / "before" / "RUN")
    assert bundle.evaluation is None
    model = dermafuse.load(GOLDENS / "before" / "RUN", precision="f32")
    known = [
        {},
        {"age": 33},
        {"sex": "female", "localization": "face"},
        {"age": 70, "sex": "male", "localization": "back"},
    ]
    before = json.loads((GOLDENS / "before" / "answers.json").read_text())
    now = [answer(model, tiny_image(seed), **given) for seed, given in enumerate(known)]
    assert differences(before, now) == []


def test_a_run_of_the_version_before_is_read_measured_reported_and_compared_as_it_was(
    data: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(GOLDENS / "before" / "RUN", tmp_path / "RUN")
    settings = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(settings.replace('"DATA"', json.dumps(str(data))))
    run = RunFolder.open(copy)
    assert (run.kind, run.config["recipe"], run.data) == ("run", "seed", str(data))
    block = measure(run.reported_rows, seed=run.config["seed"])
    assert differences({name: run.block[name] for name in block}, block) == []
    records = read_dataset(data)
    overlap = find_overlap(copy, records, records.classes)
    assert overlap.known
    assert overlap.trained.sum() == run.metrics["data"]["train"]
    page = make_report(copy).read_text(encoding="utf-8")
    assert wrong_numbers(page, copy)[0] == []
    added = ("baselines", "calibration_line", "missed", "net_benefit")
    now = json.loads((copy / "metrics.json").read_text())
    assert sorted(differences(run.metrics, now)) == [f"/validation/{key}: only in one" for key in added]


#: Rows of a page's tables that another machine, day or place changes.
_PASSING = re.compile(r"/(environment|seconds|files|published|announcement_codes)\b|tensorflow|goldens|/data<")


def visible(page: str) -> str:
    """Return the words of a page in their order, without its numbers (metrics.json has them) and styles."""
    bare = re.sub(r'(?s)<(style|script)\b.*?</\1>|<p class="note made">.*?</p>', " ", page)
    bare = re.sub(r"(?s)<tr\b.*?</tr>", lambda row: " " if _PASSING.search(row[0]) else row[0], bare)
    words = re.findall(r"[^\W\d_]+", html.unescape(re.sub(r"(?s)<[^>]+>", " ", bare)))
    return textwrap.fill(" ".join(words), 120) + "\n"


@pytest.mark.slow  # three trainings: half a minute
@pytest.mark.parametrize("name", ["seed", "tail", "ensemble"])
def test_a_small_run_gives_the_numbers_predictions_and_words_that_it_gave(
    name: str, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / name
    config = tmp_path / "config.toml"
    config.write_text((GOLDENS / f"{name}.toml").read_text().replace('"DATA"', json.dumps(str(data))))
    assert main(["train", "--config", str(config), "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    now = {key: value for key, value in metrics.items() if key not in LEFT_OUT}
    now["network"].pop("images_computed")
    for member in now.get("members", []):
        member.pop("seconds")
    text = visible((out / "report.html").read_text(encoding="utf-8"))
    folder = GOLDENS / name
    if RENEW:
        folder.mkdir(exist_ok=True)
        (folder / "metrics.json").write_text(json.dumps(now, separators=(",", ":")) + "\n")
        shutil.copy(out / "predictions.csv", folder)
        (folder / "report.txt").write_text(text, encoding="utf-8")
    assert differences(json.loads((folder / "metrics.json").read_text()), now) == []
    before, table = (pd.read_csv(where / "predictions.csv") for where in (folder, out))
    pd.testing.assert_frame_equal(table, before, rtol=1e-3, atol=1e-4)
    assert text.split() == (folder / "report.txt").read_text(encoding="utf-8").split()
