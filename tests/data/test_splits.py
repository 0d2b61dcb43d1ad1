"""Splits: nothing crosses, nothing is lost, labels keep their proportions, the same everywhere."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.splits import By, Split, leakage, make_folds, make_split
from dermafuse.errors import ConfigError, DataError

LABELS = ("bcc", "mel", "nv")


def make_table(sizes: dict[str, list[int]]) -> pd.DataFrame:
    """Return a table with lesions of the given numbers of images, class by class."""
    rows = [
        (f"{label}_{lesion}", label)
        for label, counts in sizes.items()
        for lesion, n in enumerate(counts)
        for _ in range(n)
    ]
    table = pd.DataFrame(rows, columns=["lesion_id", "label"])
    # Ids in another order than rows, so that order by id is told apart from order in the file.
    table["image_id"] = [f"ISIC_{(7919 * n) % 100_003:06d}" for n in range(len(table))]
    return table


lesion_sizes = st.lists(st.integers(1, 6), min_size=5, max_size=40)
tables = st.fixed_dictionaries(dict.fromkeys(LABELS, lesion_sizes)).map(make_table)
seeds = st.integers(0, 2**32 - 1)
ways: st.SearchStrategy[By] = st.sampled_from(["lesion", "image"])


def check_partition(split: Split, n: int) -> None:
    for side in (split.train, split.validation):
        assert side.dtype == np.int64
        assert (np.diff(side) > 0).all()
        assert len(side) > 0
    np.testing.assert_array_equal(np.sort(np.concatenate([split.train, split.validation])), np.arange(n))


@given(tables, ways, seeds, st.floats(0.2, 0.8))
def test_every_row_is_on_exactly_one_side(table: pd.DataFrame, by: By, seed: int, fraction: float) -> None:
    check_partition(make_split(table, by=by, seed=seed, fraction=fraction), len(table))


@given(tables, seeds, st.floats(0.01, 0.99))
def test_no_lesion_crosses_a_lesion_level_split(table: pd.DataFrame, seed: int, fraction: float) -> None:
    split = make_split(table, by="lesion", seed=seed, fraction=fraction)
    train = set(table["lesion_id"].iloc[split.train])
    assert train.isdisjoint(table["lesion_id"].iloc[split.validation])
    assert leakage(table, split).leaked_images == 0


@given(tables, st.data(), seeds, st.integers(2, 5))
def test_no_lesion_crosses_even_where_a_lesion_has_two_labels(
    table: pd.DataFrame, data: st.DataObject, seed: int, k: int
) -> None:
    mixed = table.assign(label=data.draw(st.lists(st.sampled_from(LABELS), min_size=len(table), max_size=len(table))))
    try:
        splits = [make_split(mixed, by="lesion", seed=seed), *make_folds(mixed, by="lesion", k=k, seed=seed)]
    except DataError:  # a class may have too few lesions here
        return
    for split in splits:
        check_partition(split, len(mixed))
        assert leakage(mixed, split).shared_lesions == 0


@given(tables, seeds, st.floats(0.1, 0.9))
def test_a_lesion_level_split_meets_the_share_in_each_class_up_to_one_lesion(
    table: pd.DataFrame, seed: int, fraction: float
) -> None:
    split = make_split(table, by="lesion", seed=seed, fraction=fraction)
    held = table.iloc[split.validation]["label"].value_counts()
    for label, own in table.groupby("label"):
        largest = own["lesion_id"].value_counts().max()
        assert 0 < held[label] < len(own)
        assert abs(held[label] - fraction * len(own)) <= largest


@given(tables, seeds)
def test_an_image_level_split_meets_the_share_in_each_class_up_to_one_image(table: pd.DataFrame, seed: int) -> None:
    split = make_split(table, by="image", seed=seed)
    held = table.iloc[split.validation]["label"].value_counts()
    assert len(split.validation) == int(np.ceil(0.2 * len(table)))
    for label, own in table.groupby("label"):
        assert abs(held[label] - 0.2 * len(own)) <= 1.5


@given(tables, ways, seeds, st.integers(2, 5))
def test_the_validation_sides_of_the_folds_hold_each_row_once(table: pd.DataFrame, by: By, seed: int, k: int) -> None:
    folds = make_folds(table, by=by, k=k, seed=seed)
    assert len(folds) == k
    for fold in folds:
        check_partition(fold, len(table))
    held = np.concatenate([fold.validation for fold in folds])
    np.testing.assert_array_equal(np.sort(held), np.arange(len(table)))


@given(tables, seeds, st.integers(2, 5))
def test_lesion_folds_hold_each_class_evenly_and_no_lesion_crosses(table: pd.DataFrame, seed: int, k: int) -> None:
    folds = make_folds(table, by="lesion", k=k, seed=seed)
    for fold in folds:
        assert leakage(table, fold).shared_lesions == 0
    for label, own in table.groupby("label"):
        counts = [int((table["label"].iloc[fold.validation] == label).sum()) for fold in folds]
        assert max(counts) - min(counts) <= own["lesion_id"].value_counts().max()


@settings(max_examples=50)
@given(tables, ways, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(table: pd.DataFrame, by: By, seed: int, random: object) -> None:
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = table.iloc[order].reset_index(drop=True)
    for one, other in [
        (make_split(table, by=by, seed=seed), make_split(shuffled, by=by, seed=seed)),
        *zip(make_folds(table, by=by, k=3, seed=seed), make_folds(shuffled, by=by, k=3, seed=seed), strict=True),
    ]:
        assert set(table["image_id"].iloc[one.validation]) == set(shuffled["image_id"].iloc[other.validation])


def fixed_table() -> pd.DataFrame:
    return make_table({"bcc": [1, 2, 3] * 10, "mel": [1, 1, 4] * 12, "nv": [1] * 60 + [2] * 20})


def digest(splits: list[Split]) -> str:
    text = ";".join(",".join(map(str, split.validation)) for split in splits)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("by", "one", "folds"),
    [("lesion", "c02b4aac8ed1d2d2", "998aa42161256add"), ("image", "68a2822a536df858", "541ebf004a10fab9")],
)
def test_splits_are_the_same_on_every_machine_and_version(by: By, one: str, folds: str) -> None:
    table = fixed_table()
    assert digest([make_split(table, by=by, seed=42)]) == one
    assert digest(make_folds(table, by=by, k=5, seed=42)) == folds


@pytest.mark.parametrize("by", ["lesion", "image"])
def test_seeds_give_different_splits(by: By) -> None:
    table = fixed_table()
    digests = [digest([make_split(table, by=by, seed=seed)]) for seed in range(4)]
    assert all(a != b for a, b in pairwise(sorted(digests)))


def test_old_lesions_keep_their_place_in_the_order_of_chance_when_new_ones_come() -> None:
    small = make_table({"mel": [1] * 40})
    large = make_table({"mel": [1] * 44})
    before = set(small["lesion_id"].iloc[make_split(small, by="lesion", seed=1, fraction=0.25).validation])
    after = set(large["lesion_id"].iloc[make_split(large, by="lesion", seed=1, fraction=0.25).validation])
    assert len(before - after) <= 3


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_each_class_has_a_lesion_on_both_sides_at_extreme_shares(fraction: float) -> None:
    table = make_table({"mel": [1, 1], "nv": [5, 1, 1]})
    split = make_split(table, by="lesion", seed=0, fraction=fraction)
    for side in (split.train, split.validation):
        assert set(table["label"].iloc[side]) == {"mel", "nv"}


# --- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["lesion", "image"])
def test_a_class_too_small_for_two_sides_is_named(by: By) -> None:
    table = make_table({"mel": [1], "nv": [1] * 20})
    with pytest.raises(DataError, match=rf"Class 'mel' has 1 {by}\(s\)"):
        make_split(table, by=by, seed=0)


def test_a_class_of_one_lesion_is_refused_by_lesion_and_taken_by_image() -> None:
    table = make_table({"mel": [6], "nv": [1] * 20})
    assert len(make_split(table, by="image", seed=0).validation) == 6
    with pytest.raises(DataError, match="Class 'mel' has 1 lesion"):
        make_split(table, by="lesion", seed=0)


@pytest.mark.parametrize("by", ["lesion", "image"])
def test_fewer_lesions_or_images_than_folds_are_refused(by: By) -> None:
    table = make_table({"mel": [1] * 4, "nv": [1] * 20})
    assert len(make_folds(table, by=by, k=4, seed=0)) == 4
    with pytest.raises(DataError, match="too few for 5 parts"):
        make_folds(table, by=by, k=5, seed=0)


def test_too_few_images_for_the_classes_are_refused() -> None:
    table = make_table({label: [1, 1] for label in LABELS})
    with pytest.raises(DataError, match="too few to give each of 3 classes"):
        make_split(table, by="image", seed=0)
    assert len(make_split(table, by="lesion", seed=0).validation) == 3


def test_rows_without_a_label_and_no_rows_are_refused() -> None:
    table = make_table({"mel": [1] * 4, "nv": [1] * 20})
    table.loc[3, "label"] = None
    with pytest.raises(DataError, match=r"1 image\(s\) have no label \(ISIC_"):
        make_split(table, by="lesion", seed=0)
    with pytest.raises(DataError, match="no images to split"):
        make_split(table.iloc[:0], by="lesion", seed=0)


@pytest.mark.parametrize(
    "how",
    [
        {"by": "lesions", "seed": 0},
        {"by": "image", "seed": -1},
        {"by": "image", "seed": 2**32},
        {"by": "lesion", "seed": 0, "fraction": 0.0},
        {"by": "lesion", "seed": 0, "fraction": 1.0},
        {"by": "lesion", "seed": 0, "fraction": float("nan")},
    ],
)
def test_unusable_settings_are_refused(how: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        make_split(fixed_table(), **how)  # type: ignore[arg-type]


def test_one_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="give 2 or more"):
        make_folds(fixed_table(), by="image", k=1, seed=0)


# --- groups that hold several classes -----------------------------------------------------------------


def mixed_table(groups: list[list[str]]) -> pd.DataFrame:
    """Return a table of groups (patients), each given by the labels of its images."""
    rows = [(f"P{number}", label) for number, labels in enumerate(groups) for label in labels]
    table = pd.DataFrame(rows, columns=["lesion_id", "label"])
    table["image_id"] = [f"ISIC_{(7919 * n) % 100_003:06d}" for n in range(len(table))]
    return table


def divisible(groups: list[list[str]], parts: int) -> bool:
    """Try every way of laying groups into parts: can each part hold every class?"""
    number = {label: place for place, label in enumerate(sorted({label for own in groups for label in own}))}
    masks = [sum(1 << number[label] for label in set(own)) for own in groups]
    whole = (1 << len(number)) - 1
    for homes in product(range(parts), repeat=len(masks)):
        held = [0] * parts
        for home, mask in zip(homes, masks, strict=True):
            held[home] |= mask
        if all(each == whole for each in held):
            return True
    return False


def carriers(groups: list[list[str]]) -> dict[str, int]:
    return {label: sum(label in own for own in groups) for label in {label for own in groups for label in own}}


few_groups = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4), min_size=2, max_size=7)


@given(few_groups, seeds, st.sampled_from(["split", "split and tuning", "3 folds", "2 folds and tuning"]))
@example([["a", "b"], ["b", "c"], ["a", "c"]], 0, "split")
@example([["a", "b"], ["a", "b"], ["a"], ["b"]], 1, "split and tuning")
def test_every_side_holds_every_class_wherever_that_is_possible_and_refusals_count_right(
    groups: list[list[str]], seed: int, way: str
) -> None:
    table = mixed_table(groups)
    parts = {"split": 2, "split and tuning": 3, "3 folds": 3, "2 folds and tuning": 4}[way]
    if parts == 4:
        groups, table = groups[:6], mixed_table(groups[:6])
    train_parts = 2 if "tuning" in way else 1
    try:
        if "folds" in way:
            splits = make_folds(table, by="lesion", k=int(way[0]), seed=seed, train_parts=train_parts)
        else:
            splits = [make_split(table, by="lesion", seed=seed, train_parts=train_parts)]
    except DataError as error:
        assert not divisible(groups, parts)
        few = {label: count for label, count in carriers(groups).items() if count < parts}
        if few:
            assert f"too few for {parts} parts" in str(error)
            assert all(f"'{label}' has {count}" in str(error) for label, count in few.items())
        else:
            assert f"cannot be divided into {parts} parts" in str(error)
        return
    assert divisible(groups, parts)
    labels = set(table["label"])
    for split in splits:
        check_partition(split, len(table))
        assert leakage(table, split).shared_lesions == 0
        assert set(table["label"].iloc[split.train]) == set(table["label"].iloc[split.validation]) == labels
        train = table.iloc[split.train].reset_index(drop=True)
        if train_parts == 2:
            inner = make_split(train, by="lesion", seed=seed + 1 if seed < 2**32 - 1 else 0, fraction=0.1)
            assert set(train["label"].iloc[inner.train]) == set(train["label"].iloc[inner.validation]) == labels


@settings(max_examples=30)
@given(few_groups, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter_to_mixed_groups(
    groups: list[list[str]], seed: int, random: object
) -> None:
    table = mixed_table(groups)
    order = list(range(len(table)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = table.iloc[order].reset_index(drop=True)
    try:
        one = make_split(table, by="lesion", seed=seed)
    except DataError as error:
        with pytest.raises(DataError, match=re.escape(str(error))):
            make_split(shuffled, by="lesion", seed=seed)
        return
    other = make_split(shuffled, by="lesion", seed=seed)
    assert set(table["image_id"].iloc[one.validation]) == set(shuffled["image_id"].iloc[other.validation])


@pytest.mark.parametrize("malignant", [2, 5, 8, 12, 20])
def test_a_class_that_few_patients_carry_is_on_every_side_and_in_every_fold(malignant: int) -> None:
    random = np.random.default_rng(malignant)
    counts = random.integers(2, 31, 200)
    groups = [["malignant"] * (number < malignant) + ["benign"] * count for number, count in enumerate(counts)]
    table = mixed_table(groups)
    label = table["label"].to_numpy()
    for seed in range(60):
        split = make_split(table, by="lesion", seed=seed)
        assert set(label[split.train]) == set(label[split.validation]) == {"malignant", "benign"}
        assert len(split.validation) == pytest.approx(0.2 * len(table), abs=40)
        if malignant >= 5:
            for fold in make_folds(table, by="lesion", k=5, seed=seed):
                held = label[fold.validation]
                assert abs((held == "malignant").sum() - malignant / 5) <= 1
                assert len(held) == pytest.approx(0.2 * len(table), abs=40)


def test_classes_that_share_their_patients_are_refused_together_with_the_right_count() -> None:
    table = mixed_table([["a", "b"], ["b", "c"], ["a", "c"], *[["d"]] * 9])
    with pytest.raises(DataError, match=r"Classes 'a', 'b' and 'c' lie in 3 lesions that cannot be divided into 2"):
        make_split(table, by="lesion", seed=0)


def test_a_class_hidden_in_patients_with_many_images_is_counted_by_the_patients_that_carry_it() -> None:
    groups = [["akiec", "bcc", "bkl"] for _ in range(20)]
    groups[0].append("bkl")
    table = mixed_table(groups)
    for split in [make_split(table, by="lesion", seed=3), *make_folds(table, by="lesion", k=5, seed=3)]:
        assert set(table["label"].iloc[split.validation]) == {"akiec", "bcc", "bkl"}
    with pytest.raises(DataError, match=r"Class 'akiec' has 20 lesion\(s\), .* too few for 21 parts"):
        make_folds(table, by="lesion", k=21, seed=0)


def test_a_split_leaves_the_training_side_fit_for_tuning_rows() -> None:
    table = make_table({"mel": [1, 1, 8], "nv": [1] * 30})
    for seed in range(20):
        split = make_split(table, by="lesion", seed=seed, train_parts=2)
        inner = make_split(table.iloc[split.train], by="lesion", seed=seed, fraction=0.1)
        assert set(table["label"].iloc[split.train].iloc[inner.validation]) == {"mel", "nv"}
    small = make_table({"mel": [4, 4], "nv": [1] * 30})
    wanted = r"Class 'mel' has 2 lesion\(s\), too few for 3 parts that share none \(validation, tuning and training\)"
    with pytest.raises(DataError, match=wanted):
        make_split(small, by="lesion", seed=0, train_parts=2)
    with pytest.raises(DataError, match=r"'mel' has [12] lesion\(s\) in training, too few for the 3 parts by lesion"):
        make_split(small, by="image", seed=0, train_parts=3)


def test_what_lesions_are_called_is_said_in_refusals(synthetic: Path) -> None:
    records = replace(read_dataset(synthetic), group="patient")
    rows = records.table["label"].ne("df") | ~records.table["label"].duplicated()
    with pytest.raises(DataError, match=r"Class 'df' has 1 patient\(s\)"):
        make_split(records.subset(rows), by="lesion", seed=0)


# --- leakage ---------------------------------------------------------------------------------------


def test_leakage_counts_validation_images_of_lesions_in_training_by_class() -> None:
    table = make_table({"mel": [2, 3], "nv": [1, 1, 2]})  # rows: mel 0 0 1 1 1, nv 0 1 2 2
    split = Split(train=np.array([0, 2, 5, 7]), validation=np.array([1, 3, 4, 6, 8]))
    found = leakage(table, split)
    assert (found.validation_images, found.leaked_images, found.shared_lesions) == (5, 4, 3)
    assert found.share == 0.8
    assert found.to_dict() == {
        "lesions_known": True,
        "shared_lesions": 3,
        "validation_images": 5,
        "leaked_images": 4,
        "share": 0.8,
        "per_class": {
            "mel": {"validation_images": 3, "leaked_images": 3, "share": 1.0},
            "nv": {"validation_images": 2, "leaked_images": 1, "share": 0.5},
        },
    }
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False)) == found.to_dict()


@pytest.mark.ham10000
def test_on_the_real_data_an_image_level_split_leaks_and_a_lesion_level_one_does_not(ham10000: Path) -> None:
    records = read_dataset(ham10000)
    by_image = [leakage(records, make_split(records, by="image", seed=seed)) for seed in range(5)]
    assert np.mean([found.share for found in by_image]) == pytest.approx(0.39, abs=0.02)
    assert np.mean([found.per_class["mel"].share for found in by_image]) == pytest.approx(0.70, abs=0.03)
    for seed in range(3):
        split = make_split(records, by="lesion", seed=seed)
        assert leakage(records, split).shared_lesions == 0
        assert len(split.validation) == pytest.approx(2003, abs=5)
        held = records.subset(split.validation).counts()
        for code, n in records.counts().items():
            assert held[code] == pytest.approx(0.2 * n, abs=2)


@pytest.mark.ham10000
def test_the_splits_of_the_real_data_are_those_of_the_published_figures(ham10000: Path) -> None:
    records = read_dataset(ham10000)
    assert digest([make_split(records, by="lesion", seed=0)]) == "55a385463f885e49"
    assert digest([make_split(records, by="lesion", seed=0, train_parts=2)]) == "55a385463f885e49"
    assert digest([make_split(records, by="image", seed=0)]) == "2bb885f9f1a05f04"
    assert digest(make_folds(records, by="lesion", k=5, seed=0)) == "6910523df43cefbe"
    assert digest(make_folds(records, by="lesion", k=5, seed=0, train_parts=5)) == "6910523df43cefbe"
