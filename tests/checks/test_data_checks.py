"""Every check of the data on a small case that has its fault, and on one that has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dermafuse.checks.context import MAX_BAD
from dermafuse.checks.df005_missing_metadata import association
from dermafuse.checks.findings import Finding
from dermafuse.checks.image_facts import ImageFacts
from dermafuse.checks.run import CHECKS, check_data
from dermafuse.data.readers.description import group_word
from dermafuse.data.readers.given_split import given_split
from dermafuse.data.records import COLUMNS, Records, summarize
from dermafuse.data.splits import Split
from dermafuse.data.words import Words
from dermafuse.errors import DataError
from dermafuse.labels import LabelSet
from dermafuse.training.config import TrainConfig, resolve
from dermafuse.training.recipes import RECIPES, against_imbalance

N = 200


def records(n: int = N, **columns: Any) -> Records:
    """A data set without faults: two classes of equal size, one image a lesion, full metadata that tell nothing."""
    rng = np.random.default_rng(0)
    found: dict[str, Any] = {
        "image_id": [f"I{i:04}" for i in range(n)],
        "lesion_id": [f"L{i:04}" for i in range(n)],
        "label": ["mel" if i % 2 else "nv" for i in range(n)],
        "path": [f"/nowhere/I{i:04}.jpg" for i in range(n)],
        "age": rng.integers(20, 90, n).astype(float),
        "sex": rng.choice(["male", "female"], n),
        "localization": rng.choice(["back", "face"], n),
        "dx_type": [None] * n,
        "source": [None] * n,
    }
    table = pd.DataFrame({name: columns.get(name, found[name]) for name in COLUMNS})
    text = [name for name in COLUMNS if name != "age"]
    table[text] = table[text].astype(object)
    rest = {name: value for name, value in columns.items() if name not in COLUMNS}
    return Records(
        table,
        "kaggle",
        Path("/nowhere"),
        **{
            "labels": LabelSet.of(rest.pop("classes", ("mel", "nv"))),
            "numeric": ("age",),
            "categorical": ("sex", "localization"),
            **rest,
        },
    )


def facts(n: int = N, **changes: Any) -> ImageFacts:
    rng = np.random.default_rng(1)
    found: dict[str, Any] = {
        "unreadable": {},
        "grey": rng.integers(0, 256, (n, 64, 64), dtype=np.uint8),
        "sizes": np.full((n, 2), 200),
        "digests": tuple(bytes([i % 256, i // 256]) for i in range(n)),
    }
    return ImageFacts(**{**found, **changes})


def finding(code: str, data: Records, **given: Any) -> Finding:
    found = [entry for entry in check_data(data, **given).findings if entry.code == code]
    assert len(found) == 1, f"{code} was not found"
    assert found[0].explanation.endswith(".")
    assert found[0].action
    return found[0]


def test_data_without_faults_pass_every_check() -> None:
    checked = check_data(records(400), images=facts(400))
    assert [entry.code for entry in checked.findings] == []
    assert set(checked.passed) == set(CHECKS)
    assert not checked.left_out


def test_checks_of_images_are_left_out_not_passed_where_no_image_was_opened() -> None:
    checked = check_data(records())
    assert set(checked.left_out) == {"DF002", "DF006", "DF008"}
    assert not set(checked.passed) & set(checked.left_out)


def test_df001_counts_the_leaked_images_of_a_given_split_by_class() -> None:
    data = records(lesion_id=[f"L{i // 4}" for i in range(N)], label=["mel" if i // 4 % 2 else "nv" for i in range(N)])
    # Lesions 0 to 49; lesion 0 (nv) lies half on each side, all others whole on one.
    validation = np.array([2, 3, *range(160, 200)])
    split = Split(np.setdiff1d(np.arange(N), validation), validation)
    found = finding("DF001", data, split=split)
    assert found.severity == "error"
    assert (found.data["leaked_images"], found.data["shared_lesions"]) == (2, 1)
    assert found.data["share"] == pytest.approx(2 / 42)
    assert found.data["per_class"]["nv"]["leaked_images"] == 2
    assert found.data["per_class"]["mel"]["share"] == 0.0
    assert "2 of 42 validation images" in found.explanation


def test_df001_warns_of_the_image_level_split_and_states_how_many_images_share_a_lesion() -> None:
    found = finding("DF001", records(lesion_id=[f"L{max(i, 59)}" for i in range(N)], label=["nv"] * 60 + ["mel"] * 140))
    assert found.severity == "warning"
    assert found.data["images_sharing_a_lesion"] == 60
    assert found.data["share_sharing_a_lesion"] == 0.3
    assert "60 of 200 images (30.0 %) share their lesion" in found.explanation


def test_df001_says_that_leakage_cannot_be_ruled_out_without_lesion_ids() -> None:
    assert finding("DF001", records(has_lesions=False)).data == {"lesions_known": False}


def test_df001_is_passed_by_a_split_by_lesion() -> None:
    data = records(lesion_id=[f"L{i // 2}" for i in range(N)], label=["mel" if i // 2 % 2 else "nv" for i in range(N)])
    split = Split(np.arange(160), np.arange(160, 200))
    assert "DF001" in check_data(data, split=split).passed


def test_df002_finds_a_copy_under_another_lesion_id_and_tells_whether_it_lies_across_the_split() -> None:
    images = facts()
    images.grey[190] = images.grey[3]
    data = records()
    split = Split(np.arange(160), np.arange(160, 200))
    found = finding("DF002", data, images=images, split=split)
    assert [pair["images"] for pair in found.data["listed"]] == [["I0003", "I0190"]]
    assert found.data["pairs"] == 1
    assert found.data["across_the_split"] == 1
    assert found.data["listed"][0]["fit"] > 0.99


def test_df003_names_dx_type_where_one_of_its_values_is_always_one_class() -> None:
    found = finding("DF003", records(dx_type=["follow_up" if i % 2 == 0 and i < 120 else "histo" for i in range(N)]))
    assert found.data["flagged"] == ["dx_type"]
    assert found.severity == "warning"
    assert "'follow_up' is always nv (60 images)" in found.explanation
    assert "dermafuse does not" in found.action


def test_df003_is_an_error_where_a_feature_of_the_model_gives_the_label_away() -> None:
    found = finding("DF003", records(localization=["back" if i % 2 else "face" for i in range(N)]))
    assert found.severity == "error"
    assert found.data["used_as_feature"] == ["localization"]
    assert found.data["columns"]["localization"]["information"] > 0.8


def test_df003_does_not_take_many_rare_values_for_information() -> None:
    assert "DF003" in check_data(records(source=[f"camera {i}" for i in range(N)])).passed


def test_df004_gives_the_ratio_and_what_the_commonest_class_would_score() -> None:
    found = finding("DF004", records(label=["nv"] * 180 + ["mel"] * 20))
    assert found.data["ratio"] == 9.0
    assert found.data["accuracy_of_the_commonest_class"] == 0.9
    assert "(9 to 1)" in found.explanation


def test_df004_says_what_the_recipe_at_hand_does_for_rare_classes() -> None:
    unequal = records(label=["nv"] * 180 + ["mel"] * 20)
    said = {
        name: finding("DF004", unequal, against_imbalance=against_imbalance(resolve(name).model_dump())).action
        for name in RECIPES
    }
    assert "weights the classes in the loss (balanced)" in said["seed"]
    for name in ("standard", "best"):
        assert "weights" not in said[name]
        assert f"Recipe {name} draws images of rare classes more often (sampling_power 0.5)" in said[name]
    nothing = resolve("seed", assignments=["class_weighting=none"]).model_dump()
    assert "nothing for rare classes" in finding("DF004", unequal, against_imbalance=against_imbalance(nothing)).action
    assert "recipe" not in finding("DF004", unequal).action.lower()


def test_df005_and_the_summary_count_the_same_rows_as_missing() -> None:
    sex = ["unknown"] * 30 + [None] * 10 + ["male"] * 160
    label = [None] * 8 + ["mel", "nv"] * 96
    data = records(sex=sex, label=label, age=[np.nan] * 5 + [50.0] * 195)
    features = finding("DF005", data).data["features"]
    assert {name: figures["images"] for name, figures in features.items()} == {"age": 5, "sex": 40}
    assert summarize(data)["missing"] == {"age": 5, "sex": 40, "localization": 0}


def test_df005_warns_where_missing_values_go_with_the_diagnosis_and_only_tells_where_not() -> None:
    age = records().table["age"].to_numpy().copy()
    tied, even = age.copy(), age.copy()
    tied[1:80:2] = np.nan  # melanomas alone
    even[:40] = np.nan  # both classes alike
    found = finding("DF005", records(age=tied))
    assert found.severity == "warning"
    assert found.data["associated"] == ["age"]
    assert found.data["features"]["age"]["share_by_class"] == {"mel": 0.4, "nv": 0.0}
    assert finding("DF005", records(age=even)).severity == "info"


def test_the_association_of_df005_agrees_with_the_chi_squared_test() -> None:
    from scipy.stats import chi2_contingency

    part, whole = np.array([30, 10, 25]), np.array([100, 120, 90])
    p, strength = association(part, whole)
    exact = chi2_contingency([part, whole - part], correction=False)
    assert p is not None
    assert abs(p - exact.pvalue) < 0.003
    assert strength == pytest.approx(np.sqrt(exact.statistic / whole.sum()))


def test_df006_lists_unreadable_files_with_the_reason() -> None:
    found = finding("DF006", records(), images=facts(unreadable={7: "I0007.jpg is cut off."}))
    assert found.data["images"] == [
        {"image_id": "I0007", "path": "/nowhere/I0007.jpg", "reason": "I0007.jpg is cut off."}
    ]
    assert found.severity == "warning"
    assert "1 of 200 images (0.5 %)" in found.explanation
    many = dict.fromkeys(range(5), "broken")
    assert finding("DF006", records(), images=facts(unreadable=many)).severity == "error"


def test_df007_names_words_that_a_model_does_not_know_and_implausible_ages() -> None:
    sites = ["back"] * (N - 3) + ["nail bed"] * 3
    found = finding("DF007", records(localization=sites))
    assert found.data["unknown_words"] == {"localization": {"nail bed": 3}}
    assert found.severity == "warning"
    known = {"localization": Words(("back", "nail bed"), {})}
    assert "DF007" in check_data(records(localization=sites), vocabulary=known).passed
    ages = finding("DF007", records(age=[0.0, 0.0, 130.0] + [50.0] * (N - 3)))
    assert ages.data["implausible_ages"] == {"0": 2, "130": 1}
    assert ages.severity == "info"


def test_df007_names_classes_without_images_and_images_without_diagnosis() -> None:
    found = finding("DF007", records(classes=("df", "mel", "nv"), label=[None] + ["mel", "nv"] * 99 + ["mel"]))
    assert found.data["absent_classes"] == ["df"]
    assert found.data["unlabelled"] == 1


def test_df008_is_an_error_where_copies_carry_different_diagnoses() -> None:
    digests = [bytes([i]) for i in range(N)]
    digests[1] = digests[0]
    found = finding("DF008", records(), images=facts(digests=tuple(digests)))
    assert found.severity == "error"
    assert found.data["groups"] == [["I0000", "I0001"]]


def test_df009_tells_how_unsure_the_sensitivity_of_a_small_class_will_be() -> None:
    found = finding("DF009", records(label=["nv"] * 160 + ["mel"] * 40))
    assert set(found.data["classes"]) == {"mel"}
    assert found.data["classes"]["mel"]["validation_lesions"] == 8
    assert found.data["classes"]["mel"]["half_width"] == pytest.approx(1.96 * np.sqrt(0.8 * 0.2 / 8))


def test_df010_names_lesions_with_two_diagnoses() -> None:
    found = finding("DF010", records(lesion_id=["L0", "L0"] + [f"L{i}" for i in range(2, N)]))
    assert found.data["lesions"] == {"L0": ["mel", "nv"]}


def test_df011_counts_rows_without_an_image() -> None:
    skipped = pd.DataFrame({"image_id": ["X1"], "path": [""], "reason": ["no file"]})
    assert finding("DF011", records(skipped=skipped)).data["rows"] == 1


def test_missing_and_broken_images_count_together_towards_the_share_that_stops_training() -> None:
    skipped = pd.DataFrame({"image_id": ["X1", "X2"], "path": ["", ""], "reason": ["no file"] * 2})
    one_broken = facts(unreadable={7: "I0007.jpg is cut off."})
    for code in ("DF006", "DF011"):
        found = finding(code, records(skipped=skipped), images=one_broken)
        assert found.severity == "error"
        assert "Training will stop: 3 of 202 rows (1.5 %) cannot be used" in found.explanation
        assert "(2 without an image file, 1 broken), more than max_bad = 0.01" in found.explanation
    assert finding("DF011", records(skipped=skipped), images=facts()).severity == "warning"
    assert TrainConfig.model_fields["max_bad"].default == MAX_BAD


def test_findings_come_with_the_most_serious_first_and_a_code_of_the_known_form() -> None:
    severities = [
        entry.severity
        for entry in check_data(
            records(label=["nv"] * 180 + ["mel"] * 20, localization=["back"] * 180 + ["face"] * 20, age=[0.0] * N)
        ).findings
    ]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert len(set(severities)) == 3
    with pytest.raises(DataError, match="DF and three digits"):
        Finding("X1", "t", "info", "e", "a")


def test_a_patient_with_two_diagnoses_is_no_contradiction() -> None:
    pairs = [f"P{i // 2}" for i in range(N)]
    assert "DF010" in check_data(records(lesion_id=pairs, group="patient")).passed
    unsure = finding("DF010", records(lesion_id=pairs, group="group"))
    assert unsure.severity == "info"
    assert "group(s)" in unsure.explanation
    assert finding("DF010", records(lesion_id=pairs)).severity == "warning"


def test_findings_say_patients_where_patients_are_grouped() -> None:
    pairs = [f"P{i // 2}" for i in range(N)]
    found = finding("DF001", records(lesion_id=pairs, group="patient"))
    assert "lesion" not in found.explanation
    assert "patients that would be in training" in found.explanation


@pytest.mark.parametrize(
    ("column", "word"),
    [
        ("patient_id", "patient"),
        ("PatientID", "patient"),
        ("PATIENT", "patient"),
        ("pat_id", "patient"),
        ("pid", "patient"),
        ("subject", "patient"),
        ("lesion_id", "lesion"),
        ("LesionID", "lesion"),
        ("case_num", "group"),
        ("path", "group"),
    ],
)
def test_the_name_of_a_column_says_what_its_ids_name(column: str, word: str) -> None:
    assert group_word(column) == word


def test_df009_foresees_what_training_refuses_with_the_same_count() -> None:
    def labels(rare: int) -> list[str]:
        return ["nv"] * (N - rare) + ["mel"] * rare

    assert "Training will refuse these data: All 200 images" in finding("DF009", records(label=["nv"] * N)).explanation
    one, two = (finding("DF009", records(label=labels(count))) for count in (1, 2))
    assert one.severity == two.severity == "error"
    assert "A split by lesion will refuse these data: Class 'mel' has 1 lesion(s)" in one.explanation
    assert "such as standard, will refuse these data: Class 'mel' has 2 lesion(s), too few for 3" in two.explanation
    assert finding("DF009", records(label=labels(3))).severity == "warning"
    pairs = [f"P{i // 2}" for i in range(N)]
    conflict = ["nv", "mel"] * 2 + ["nv"] * (N - 4)
    told = finding("DF009", records(lesion_id=pairs, label=conflict, group="patient"))
    assert "Class 'mel' has 2 patient(s)" in told.explanation


def test_df009_foresees_a_given_split_whose_training_part_lacks_a_class() -> None:
    split = ["validation"] * 40 + ["train"] * (N - 40)
    data = records(label=["mel"] * 40 + ["nv"] * (N - 40))
    data.table["given_split"] = split
    used = given_split(data)
    assert used is not None
    assert "leaves no image of class 'mel' to learn from" in finding("DF009", data, split=used).explanation


def test_unlabelled_images_and_no_labels_at_all_are_no_reason_to_fail() -> None:
    assert "DF009" in check_data(records(label=[None] * N)).passed
