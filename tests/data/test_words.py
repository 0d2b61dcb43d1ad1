"""When two words of a category are the same: one rule for training, evaluation and prediction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.readers.layout_ham import LOCALIZATIONS
from dermafuse.data.readers.layout_isic import SITES
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.words import MISSING, Words, mapped, mapping, normal, one_spelling, says_nothing
from dermafuse.errors import BundleError, ConfigError, DataError

HAM = {"sex": ("female", "male", "unknown"), "localization": tuple(sorted(LOCALIZATIONS))}


@pytest.mark.parametrize(
    ("written", "word"),
    [
        (" Male ", "male"),
        ("UPPER_EXTREMITY", "upper extremity"),
        ("upper  \t extremity", "upper extremity"),
        ("1", "1"),
        ("1.0", "1"),
        ("01", "1"),
        (1, "1"),
        (1.0, "1"),
        ("+1", "1"),
        ("1.50", "1.5"),
        ("-0.0", "0"),
        ("0", "0"),
        ("00", "0"),
        ("010", "10"),
        (True, "true"),
        ("TRUE", "true"),
        (np.False_, "false"),
        ("1e3", "1e3"),
        ("1.2.3", "1.2.3"),
        ("v1.0", "v1.0"),
        ("", None),
        ("N/A", None),
        ("nan", None),
        ("unknown", "unknown"),
        ("te\u0302te", "t\u00eate"),
    ],
)
def test_a_word_is_kept_in_one_form_whatever_it_was_written_like(written: object, word: str | None) -> None:
    assert normal(written) == word


@given(st.text(max_size=12))
def test_the_form_of_a_word_is_its_own_form(text: str) -> None:
    word = normal(text)
    assert word is None or normal(word) == word


@given(st.integers(-(10**20), 10**20), st.integers(0, 3), st.integers(0, 3))
def test_a_whole_number_is_one_category_however_many_noughts(number: int, front: int, back: int) -> None:
    sign, digits = ("-", str(-number)) if number < 0 else ("", str(number))
    assert normal(f"{sign}{'0' * front}{digits}.{'0' * back}") == str(number)


@pytest.mark.parametrize(
    ("field", "written", "word"),
    [
        ("sex", "Male", "male"),
        ("sex", "f", "female"),
        ("sex", "M", "male"),
        ("sex", "Woman", "female"),
        ("sex", "unk", "unknown"),
        ("sex", "robot", None),
        ("localization", "arm", "upper extremity"),
        ("localization", "Left forearm", "upper extremity"),
        ("localization", "THIGH", "lower extremity"),
        ("localization", "upper_extremity", "upper extremity"),
        ("localization", "Lower Limbs", "lower extremity"),
        ("localization", "legs", "lower extremity"),
        ("localization", "head and neck", "face"),
        ("localization", "head_neck", "face"),
        ("localization", "HEAD/NECK", "face"),
        ("localization", "nose", "face"),
        ("localization", "torso", "trunk"),
        ("localization", "palms / soles", "acral"),
        ("localization", "oral or genital", "genital"),
        ("localization", "posterior torso", "back"),
        ("localization", "toes", "foot"),
        ("localization", "the moon", None),
        ("localization", "", None),
        ("localization", "-", None),
    ],
)
def test_the_usual_words_are_known_to_a_model_of_ham10000(field: str, written: str, word: str | None) -> None:
    assert Words(HAM[field], {}).find(written) == word


def test_isics_sites_go_where_its_reader_sends_them() -> None:
    words = Words(HAM["localization"], {})
    assert {site: words.find(site) for site in SITES} == SITES


def test_synonyms_lead_to_whatever_the_model_has_and_never_past_a_word_that_it_knows() -> None:
    isic = Words(("anterior torso", "head/neck", "lower extremity", "torso", "upper extremity"), {})
    assert [isic.find(word) for word in ("face", "scalp", "back", "trunk", "foot", "chest", "arm")] == [
        "head/neck",
        "head/neck",
        "torso",
        "torso",
        "lower extremity",
        "anterior torso",
        "upper extremity",
    ]
    assert isic.find("anterior torso") == "anterior torso"
    assert [Words(("f", "m"), {}).find(word) for word in ("Female", "male", "W")] == ["f", "m", "f"]
    assert [Words(("false", "true", "unk"), {}).find(word) for word in ("no", "Y", "1", "unknown")] == [
        "false",
        "true",
        "true",
        "unk",
    ]
    assert Words(("0", "1"), {}).find("yes") == "1"
    assert Words(("1", "2", "3"), {}).find("yes") is None  # a grade is no truth value
    assert Words(("left eye",), {}).find("right eye") is None
    assert Words(("er+", "er-"), {}).find("er") is None
    assert Words(("her2+",), {}).find("her2-") is None


@given(st.lists(st.text(min_size=1, max_size=8).map(normal).filter(bool), min_size=1, unique=True), st.data())
def test_a_word_of_the_model_is_always_itself(known: list[str], data: Any) -> None:
    words = Words(known, {})
    word = data.draw(st.sampled_from(known))
    assert words.find(word) == word
    assert words.find(f" {word} ") == word
    assert words.find(data.draw(st.text(max_size=8))) in {None, *known}


def test_numbers_of_an_older_model_keep_their_own_columns_and_are_found_in_other_forms() -> None:
    saved = fitted({"grade": ["a", "b"]}).to_json()
    saved["categorical"][0]["vocabulary"] = ["1.0", "2.0"]
    old = MetadataEncoder.from_json(saved)
    for written in ("1.0", "1", 1, 1.0, "01"):
        assert old.transform_one({"grade": written}).tolist() == [1, 0]
    saved["categorical"][0]["vocabulary"] = ["1", "1.0"]
    both = MetadataEncoder.from_json(saved)
    assert [both.transform_one({"grade": text}).tolist() for text in ("1", "1.0")] == [[1, 0], [0, 1]]


def fitted(columns: dict[str, list[Any]], **settings: Any) -> MetadataEncoder:
    return MetadataEncoder.fit(pd.DataFrame(columns), numeric=[], categorical=list(columns), **settings)


def test_the_words_of_a_table_travel_with_the_encoder_and_serve_later_records() -> None:
    told = mapping({"ARM": "upper limb", "NOSE": "face", "": "not given"})
    encoder = fitted({"site": ["Arm", "nose", "", "BACK"]}, values={"site": told})
    assert encoder.vocabularies == (("back", "face", "not given", "upper limb"),)
    again = MetadataEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    for one in (encoder, again):
        assert one.transform_one({"site": "ARM"}).tolist() == [0, 0, 0, 1]
        assert one.transform_one({"site": "upper_limb"}).tolist() == [0, 0, 0, 1]
        assert one.transform_one({}).tolist() == one.transform_one({"site": ""}).tolist() == [0, 0, 1, 0]
        assert one.unknown({"site": "Moon"}) == {"site": "Moon"}
        assert one.unknown({"site": "unknown"}) == one.unknown({}) == {}
        assert one.missing({"site": "moon"}) == ["site"]


def test_without_words_of_its_own_an_encoder_is_saved_as_it_always_was() -> None:
    assert fitted({"sex": ["male"]}).to_json()["categorical"] == [{"name": "sex", "vocabulary": ["male"]}]


@pytest.mark.parametrize("values", [3, {"a": 1}, {"A": "b"}, {"a": "b", "b": "c"}])
def test_damaged_words_of_a_saved_encoder_are_refused(values: object) -> None:
    saved = fitted({"site": ["b"]}).to_json()
    saved["categorical"][0]["values"] = values
    with pytest.raises(BundleError, match="'values' of 'site'"):
        MetadataEncoder.from_json(saved)


def test_what_is_said_of_a_word_twice_must_agree() -> None:
    with pytest.raises(ValueError, match="sends 'f' to 'female' and to 'male'"):
        mapping({"F": "female", "f": "male"})
    with pytest.raises(ValueError, match="sends 'a' to 'b', and 'b' to 'c'"):
        mapping({"a": "b", "b": "c"})
    assert mapping({"F": "Female", "female": "female", " ": "x"}) == {"f": "female", "female": "female", "": "x"}


TOML = """
table = "t.csv"
image = "img"
label = "dx"
numeric = ["age"]
categorical = { sex = "gender", localization = "region", skin = "skin", itch = "itch" }
[values.localization]
ARM = "upper extremity"
"LIP_UPPER" = "face"
"""


def clinic(folder: Path, toml: str = TOML) -> Path:
    rows = ["img,dx,age,gender,region,skin,itch"]
    rows += ["a,nv,85+,F,Arm,1,True", "b,mel,55.5,MALE,lip upper,1.0,TRUE", "c,nv,,f,BACK,01,true"]
    (folder / "t.csv").write_text("\n".join(rows))
    for name in "abc":
        (folder / f"{name}.png").write_text(name)
    (folder / "dermafuse.toml").write_text(toml)
    return folder


def test_a_table_is_read_by_the_same_rule_as_a_record(tmp_path: Path) -> None:
    records = read_dataset(clinic(tmp_path))
    assert list(records.table["localization"]) == ["upper extremity", "face", "back"]
    assert set(records.table["skin"]) == {"1"}
    assert set(records.table["itch"]) == {"true"}
    np.testing.assert_array_equal(records.table["age"], [85, 55.5, np.nan])
    encoder = MetadataEncoder.fit(
        records.table, numeric=records.numeric, categorical=records.categorical, values=records.values
    )
    raw = pd.read_csv(tmp_path / "t.csv", dtype=str, keep_default_na=False)
    raw = raw.rename(columns={"gender": "sex", "region": "localization"})
    np.testing.assert_array_equal(encoder.transform(raw), encoder.transform(records.table))
    for row, expected in zip(raw.to_dict("records"), encoder.transform(records.table), strict=True):
        np.testing.assert_array_equal(encoder.transform_one(row), expected)
        assert not encoder.unknown(row)


def test_a_map_of_words_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[values.localization\] sends 'arm' to 'upper extremity' and to 'hand'"):
        read_dataset(clinic(tmp_path, TOML + 'arm = "hand"\n'))


@pytest.mark.parametrize(("written", "years"), [("85+", 85.0), ("60.0", 60.0), ("unk", np.nan)])
def test_an_age_is_read_alike_from_tables_and_records(tmp_path: Path, written: str, years: float) -> None:
    records = read_dataset(clinic(tmp_path))
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("85+", f'"{written}"'))
    assert read_dataset(tmp_path).table["age"][0] == pytest.approx(years, nan_ok=True)
    encoder = MetadataEncoder.fit(records.table, numeric=["age"], categorical=[])
    assert encoder.transform_one({"age": written}) == encoder.transform_one({"age": years})


@pytest.mark.parametrize("written", ["1,000", "1.000,5", "old", "+", "8+5", "130", "-1", "130+", "<5", "1e999"])
def test_an_impossible_age_is_refused_alike_in_tables_and_records(tmp_path: Path, written: str) -> None:
    records = read_dataset(clinic(tmp_path))
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("85+", f'"{written}"'))
    with pytest.raises(DataError):
        read_dataset(tmp_path)
    encoder = MetadataEncoder.fit(records.table, numeric=["age"], categorical=[])
    with pytest.raises(DataError):
        encoder.transform_one({"age": written})


def test_words_of_one_table_that_mean_the_same_become_one_category_and_that_is_said(tmp_path: Path) -> None:
    toml = TOML.replace('ARM = "upper extremity"', "").replace('"LIP_UPPER" = "face"', "")
    rows = ["F,head/neck,1,yes", "female,Head_Neck,2,true", "M,head and neck,3,N", "Male,head/neck,4,?", "unk,,5,1"]
    table = ["img,dx,age,gender,region,skin,itch", *(f"{n},nv,50,{row}" for n, row in enumerate(rows))]
    for name in range(5):
        (tmp_path / f"{name}.png").write_text(str(name))
    clinic(tmp_path, toml)
    (tmp_path / "t.csv").write_text("\n".join(table))
    records = read_dataset(tmp_path)
    assert list(records.table["sex"]) == ["female", "female", "male", "male", "unk"]
    assert list(records.table["localization"]) == ["head/neck"] * 4 + [None]
    assert list(records.table["itch"]) == ["true", "true", "n", "?", "true"]
    assert list(records.table["skin"]) == ["1", "2", "3", "4", "5"]
    assert "Words of 'sex' that mean the same are one: f -> female (1), m -> male (1)." in records.notes
    encoder = MetadataEncoder.fit(records.table, numeric=[], categorical=["sex", "itch"])
    assert encoder.transform_one({"sex": "F"}).tolist() == encoder.transform_one({"sex": "female"}).tolist()


@given(st.lists(st.sampled_from([*sorted(LOCALIZATIONS), "male", "female", None])))
def test_a_table_in_the_words_of_ham10000_stays_as_it_is(column: list[str | None]) -> None:
    assert one_spelling(column) == {}


def test_what_a_table_says_of_its_words_is_kept() -> None:
    words = ["arm"] * 3 + ["arms", "f", "female"]
    assert one_spelling(words) == {"arms": "arm"}  # f is no sex among arms
    assert one_spelling(words, kept=["arms"]) == {"arm": "arms"}
    assert one_spelling(["f", "female"], kept=["f"]) == {"female": "f"}
    assert one_spelling(["1", "true", "2"]) == {}


def test_mapping_and_saying_nothing() -> None:
    assert mapped(["F", "", "x"], mapping({"F": "female", "x": ""})) == ["female", None, None]
    assert all(map(says_nothing, [None, "", "Unknown", "UNK", *MISSING]))
    assert not says_nothing("back")
