"""Records: subsets, counts and the summary that `dermafuse check` prints."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dermafuse.data.records import COLUMNS, Records, summarize
from dermafuse.errors import DataError


def make_records() -> Records:
    text = {
        "image_id": ["a", "b", "c", "d"],
        "lesion_id": ["L1", "L1", "L2", "d"],
        "label": ["mel", "mel", "nv", None],
        "path": ["/x/a.jpg", "/x/b.jpg", "/x/c.jpg", "/x/d.jpg"],
        "sex": ["male", "male", None, "unknown"],
        "localization": ["back", "back", "face", "face"],
        "dx_type": [None] * 4,
        "source": ["rosendahl", None, "rosendahl", None],
    }
    table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in text.items()})
    table["age"] = [40.0, 40.0, np.nan, 80.0]
    return Records(
        table[list(COLUMNS)],
        "kaggle",
        Path("/x"),
        numeric=("age",),
        categorical=("sex", "localization"),
        skipped=pd.DataFrame({"image_id": ["e"], "path": [None], "reason": ["image file not found"]}),
        notes=("a note.",),
    )


def test_counts_name_every_class_in_order_and_leave_out_unlabelled_rows() -> None:
    assert make_records().counts() == {"akiec": 0, "bcc": 0, "bkl": 0, "df": 0, "mel": 2, "nv": 1, "vasc": 0}


@pytest.mark.parametrize("rows", [[2, 0], np.array([2, 0]), pd.Series([2, 0])])
def test_a_subset_by_position_keeps_the_order_asked_for_and_is_numbered_anew(rows: object) -> None:
    part = make_records().subset(rows)  # type: ignore[arg-type]
    assert list(part.table["image_id"]) == ["c", "a"]
    assert list(part.table.index) == [0, 1]
    assert part.notes == ("a note.",)


def test_a_subset_by_mask_takes_the_true_rows() -> None:
    records = make_records()
    part = records.subset(records.table["label"] == "mel")
    assert list(part.table["image_id"]) == ["a", "b"]
    assert len(part) == 2
    assert len(records) == 4


def test_a_subset_may_be_empty() -> None:
    assert len(make_records().subset([])) == 0


@pytest.mark.parametrize("rows", [[True, False], [4], [-1]])
def test_a_mask_of_wrong_length_or_a_row_that_is_not_there_is_refused(rows: list[int]) -> None:
    with pytest.raises(DataError):
        make_records().subset(rows)


def test_the_summary_counts_images_lesions_missing_values_and_skipped_rows() -> None:
    summary = summarize(make_records())
    assert summary["images"] == 4
    assert summary["lesions"] == 3
    assert summary["unlabelled"] == 1
    assert summary["classes"]["mel"] == {"images": 2, "lesions": 1, "share": 2 / 3}
    assert summary["missing"] == {"age": 1, "sex": 2, "localization": 0}
    assert summary["age"] == {"min": 40.0, "median": 40.0, "max": 80.0}
    assert summary["images_per_lesion"] == {"mean": 4 / 3, "max": 2, "histogram": {"1": 2, "2": 1}}
    assert list(summary["categories"]["localization"].items()) == [("back", 2), ("face", 2)]
    assert summary["sources"] == {"rosendahl": 2}
    assert summary["skipped"] == 1
    assert summary["skipped_share"] == 0.2
    assert summary["skipped_reasons"] == {"image file not found": 1}


@pytest.mark.parametrize("rows", [[], [0, 1, 2, 3]])
def test_the_summary_is_json_even_of_no_rows(rows: list[int]) -> None:
    summary = summarize(make_records().subset(rows))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_has_metadata_is_false_without_features() -> None:
    records = make_records()
    assert records.has_metadata
    assert not Records(records.table, "isic2018", Path("/x")).has_metadata


def test_known_values_leave_out_what_is_missing_and_keep_the_word_unknown() -> None:
    assert make_records().known(["age", "sex"]) == [
        {"age": 40.0, "sex": "male"},
        {"age": 40.0, "sex": "male"},
        {},
        {"age": 80.0, "sex": "unknown"},
    ]
    assert make_records().known([]) == [{}] * 4
