import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.errors import DataError
from dermafuse.evaluation.compare import changed_images, compare, leaves, read_judged
from dermafuse.evaluation.paired_tests import delong, holm, mcnemar
from tiny_run import predictions_table, tiny_run


@pytest.fixture(scope="module")
def runs(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same rows, of which the second is more skilled."""
    folder = tmp_path_factory.mktemp("compare")
    base, better = (tiny_run(folder / name, synthetic, model=False) for name in ("base", "better"))
    records = read_dataset(synthetic)
    own = read_judged(base).rows.image_id
    chosen = records.subset(records.table["image_id"].isin(set(own)).to_numpy())
    predictions_table(chosen, "validation", seed=5, skill=7.0).to_csv(better / "predictions.csv", index=False)
    return base, better


def closed_form_delong(a: np.ndarray, b: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """The definition: every positive against every negative (DeLong et al. 1988, equations 2 to 5)."""
    placements = []
    for score in (a, b):
        beats = np.array([[float(x > y) + 0.5 * float(x == y) for y in score[~positive]] for x in score[positive]])
        placements.append((beats.mean(axis=1), beats.mean(axis=0)))
    (v10a, v01a), (v10b, v01b) = placements
    variance = np.var(v10b - v10a, ddof=1) / len(v10a) + np.var(v01b - v01a, ddof=1) / len(v01a)
    difference = v10b.mean() - v10a.mean()
    return float(difference), float(2 * stats.norm.cdf(-abs(difference) / np.sqrt(variance)))


def test_delong_is_its_definition_on_real_predictions_with_ties(runs: tuple[Path, Path]) -> None:
    a, b = (read_judged(run).rows for run in runs)
    for position in range(len(a.classes)):
        positive = a.true == position
        first, second = (np.round(rows.probabilities[:, position], 2) for rows in (a, b))
        found = delong(first, second, positive)
        if positive.sum() < 2 or not found["standard_error"]:  # nothing to divide by: tested below
            continue
        difference, p = closed_form_delong(first, second, positive)
        assert found["difference"] == pytest.approx(difference, abs=1e-12)
        assert found["p"] == pytest.approx(p, rel=1e-9)


def test_delong_of_equal_scores_shows_nothing_and_of_too_few_says_so() -> None:
    score = np.array([0.1, 0.4, 0.35, 0.8])
    positive = np.array([False, True, False, True])
    assert delong(score, score, positive)["p"] == 1.0
    assert delong(score, score, np.array([True, False, False, False]))["p"] is None


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_sign_test(only_a: int, only_b: int) -> None:
    a = np.array([True] * only_a + [False] * only_b + [True] * 3 + [False] * 2)
    b = np.array([False] * only_a + [True] * only_b + [True] * 3 + [False] * 2)
    n, k = only_a + only_b, min(only_a, only_b)
    tail = sum(stats.binom.pmf(i, n, 0.5) for i in range(k + 1)) if n else 1.0
    found = mcnemar(a, b)
    assert found["p"] == pytest.approx(min(1.0, 2 * tail) if n else 1.0)
    assert (found["only_a"], found["only_b"], found["both"], found["neither"]) == (only_a, only_b, 3, 2)


@given(st.lists(st.none() | st.floats(0, 1), max_size=6))
def test_holm_is_the_closed_testing_procedure_of_bonferroni(p_values: list[float | None]) -> None:
    """Closed form: p of H_i is the largest Bonferroni p over all sets of hypotheses that contain i."""
    tested = [place for place, p in enumerate(p_values) if p is not None]
    for place, corrected in enumerate(holm(p_values)):
        if p_values[place] is None:
            assert corrected is None
            continue
        sets = (
            chosen
            for size in range(1, len(tested) + 1)
            for chosen in itertools.combinations(tested, size)
            if place in chosen
        )
        worst = max(min(1.0, len(chosen) * min(p_values[i] or 0.0 for i in chosen)) for chosen in sets)
        assert corrected == pytest.approx(worst)


def test_a_better_model_is_shown_as_better(runs: tuple[Path, Path]) -> None:
    found = compare([read_judged(run) for run in runs], replicates=200)
    (entry,) = found["compared"]
    gain = entry["differences"]["accuracy"]
    assert gain["difference"] == pytest.approx(entry["metrics"]["accuracy"] - found["base_metrics"]["accuracy"])
    assert gain["low"] > 0
    assert gain["holds_zero"] is False
    assert entry["mcnemar"]["p"] < 0.01
    assert entry["changed"]["gained"] == entry["mcnemar"]["only_b"]
    assert entry["changed"]["lost"] == entry["mcnemar"]["only_a"]


def test_a_model_against_itself_differs_in_nothing(runs: tuple[Path, Path]) -> None:
    judged = read_judged(runs[0])
    (entry,) = compare([judged, judged], replicates=60)["compared"]
    assert all(leaf["difference"] in (0.0, None) for leaf in leaves(entry["differences"]))
    assert all(leaf["holds_zero"] is not False for leaf in leaves(entry["differences"]))
    assert changed_images(judged.rows, judged.rows).empty


def test_p_values_are_corrected_for_the_number_of_models(runs: tuple[Path, Path]) -> None:
    base, better = (read_judged(run) for run in runs)
    one = compare([base, better], replicates=100)["compared"][0]
    first, second = compare([base, better, better], replicates=100)["compared"]
    p = one["differences"]["accuracy"]["p"]
    assert one["differences"]["accuracy"]["p_holm"] == p
    assert first["differences"]["accuracy"]["p_holm"] == second["differences"]["accuracy"]["p_holm"] == min(1.0, 2 * p)


def test_rows_in_another_order_are_the_same_rows(runs: tuple[Path, Path], tmp_path: Path) -> None:
    base, better = runs
    lines = (better / "predictions.csv").read_text().splitlines()
    shuffled = tmp_path / "predictions.csv"
    shuffled.write_text("\n".join([lines[0], *reversed(lines[1:])]))
    straight = compare([read_judged(base), read_judged(better)], replicates=60)["compared"][0]
    turned = compare([read_judged(base), read_judged(shuffled)], replicates=60)["compared"][0]
    assert straight["differences"] == turned["differences"]


def test_different_images_labels_or_lesions_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    base = read_judged(runs[0])
    lines = (runs[1] / "predictions.csv").read_text().splitlines()
    fewer = tmp_path / "fewer.csv"
    fewer.write_text("\n".join(lines[:-3]))
    with pytest.raises(DataError, match=r"different images .* 3 and 0 in one alone"):
        compare([base, read_judged(fewer)])
    cells = lines[1].split(",")
    for column, what in ((1, "lesion ids"), (3, "labels")):
        other = [*cells]
        other[column] = "HAM_other" if column == 1 else next(code for code in base.rows.classes if code != cells[3])
        changed = tmp_path / f"{column}.csv"
        changed.write_text("\n".join([lines[0], ",".join(other), *lines[2:]]))
        with pytest.raises(DataError, match=f"different {what} for 1 image"):
            compare([base, read_judged(changed)])
    twice = tmp_path / "twice.csv"
    twice.write_text("\n".join([*lines, lines[1]]))
    with pytest.raises(DataError, match="twice"):
        read_judged(twice)


def test_the_verb_leaves_a_page_a_table_and_the_numbers(
    runs: tuple[Path, Path], synthetic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["compare", *map(str, runs), "--data", str(synthetic), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "better" in shown
    page = (out / "comparison.html").read_text()
    numbers = json.loads((out / "compare.json").read_text())
    assert f"{numbers['compared'][0]['differences']['accuracy']['difference']:+.3f}" in page
    assert "data:image/jpeg;base64," in page
    changed = (out / "changed-1.csv").read_text().splitlines()
    assert len(changed) - 1 == sum(numbers["compared"][0]["changed"].values())
    assert main(["compare", *map(str, runs), "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_a_single_run_and_a_wrong_path_are_refused_in_a_sentence(
    runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(runs[0])]) == 2
    assert "at least two" in capsys.readouterr().err
    assert main(["compare", str(runs[0]), str(tmp_path / "no")]) == 2
    assert "does not exist" in capsys.readouterr().err
