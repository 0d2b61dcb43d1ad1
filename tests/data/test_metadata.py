"""`MetadataEncoder`: scikit-learn's numbers, NumPy's speed, and no value that crashes it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from dermafuse.data import tables, values
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.errors import BundleError, ConfigError, DataError

AGES = st.none() | st.floats(0, 120)
WORDS = st.sampled_from(["male", "female", "unknown", " Back ", "sole of foot", "ß", "", "NaN", "1.0"]) | st.none()


def table(rows: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 18, rows) * 5.0
    age[::7] = np.nan
    return pd.DataFrame(
        {
            "age": age,
            "sex": rng.choice(["male", "female", "unknown"], rows),
            "localization": rng.choice(["back", "face", "lower extremity"], rows),
        }
    )


def fitted(frame: pd.DataFrame | None = None, indicators: bool = False) -> MetadataEncoder:
    return MetadataEncoder.fit(
        table() if frame is None else frame,
        numeric=["age"],
        categorical=["sex", "localization"],
        missing_indicators=indicators,
    )


def scikit_learn(train: pd.DataFrame, rows: pd.DataFrame) -> np.ndarray:
    recipe = ColumnTransformer(
        [
            ("age", make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()), ["age"]),
            ("words", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["sex", "localization"]),
        ]
    )
    return recipe.fit(train).transform(rows).astype(np.float32)


def test_it_is_the_published_recipe_bit_by_bit() -> None:
    train, other = table(), table(40, seed=1)
    result = fitted(train).transform(other)
    assert result.dtype == np.float32
    assert np.array_equal(result, scikit_learn(train, other))


@pytest.mark.ham10000
def test_it_is_the_published_recipe_on_real_rows(ham10000: Path) -> None:
    rows = pd.read_csv(ham10000 / "HAM10000_metadata.csv")
    train, other = rows[::5], rows[1::5]
    result = fitted(train).transform(other)
    assert np.array_equal(result, scikit_learn(train, other))
    assert np.isnan(other["age"]).any()
    for column in ("sex", "localization"):  # cleaning changes nothing in HAM10000
        assert (rows[column] == rows[column].str.strip().str.lower()).all()


def test_a_missing_age_is_the_mean_of_the_training_rows_only() -> None:
    encoder = fitted(pd.DataFrame({"age": [20.0, 40.0, np.nan], "sex": "male", "localization": "back"}))
    found = encoder.statistics[0]
    assert (found.fill, found.mean) == (30.0, 30.0)
    assert found.scale == pytest.approx(np.std([20, 40, 30]))
    assert encoder.transform_one({"age": None})[0] == 0.0
    assert encoder.transform_one({"age": 30 + found.scale})[0] == pytest.approx(1.0)


def test_columns_are_named_and_owned_by_fields() -> None:
    encoder = fitted()
    assert encoder.feature_names == (
        "age",
        "sex=female",
        "sex=male",
        "sex=unknown",
        "localization=back",
        "localization=face",
        "localization=lower extremity",
    )
    assert encoder.fields == {"age": slice(0, 1), "sex": slice(1, 4), "localization": slice(4, 7)}
    assert encoder.width == 7
    with_indicators = fitted(indicators=True)
    assert with_indicators.feature_names == (
        "age",
        "age_missing",
        "sex=female",
        "sex=male",
        "sex_missing",
        "localization=back",
        "localization=face",
        "localization=lower extremity",
        "localization_missing",
    )
    assert with_indicators.fields == {"age": slice(0, 2), "sex": slice(2, 5), "localization": slice(5, 9)}


@pytest.mark.parametrize("sex", [None, math.nan, "", " NaN ", "unknown", "robot", pd.NA, np.nan])
def test_missing_and_unseen_words_count_as_unknown_or_as_nothing(sex: object) -> None:
    record = {"age": 40, "sex": sex, "localization": "the moon" if sex is None else None}
    encoded = fitted().transform_one(record)
    assert encoded[1:4].tolist() == [0, 0, 1]  # "unknown" is in the training rows
    assert encoded[4:7].tolist() == [0, 0, 0]  # "unknown" is not
    encoded = fitted(indicators=True).transform_one(record)
    assert encoded[2:].tolist() == [0, 0, 1, 0, 0, 0, 1]
    assert fitted().missing(record) == ["sex", "localization"]


def test_indicators_say_which_numbers_are_missing() -> None:
    encoder = fitted(indicators=True)
    assert encoder.transform_one({"age": 40})[1] == 0
    assert encoder.transform_one({"age": "unknown"})[:2].tolist() == pytest.approx([0, 1], abs=1e-6)
    assert encoder.missing({"sex": "Male ", "localization": "back"}) == ["age"]
    assert encoder.missing({}) == ["age", "sex", "localization"]


def test_absent_is_the_record_of_which_nothing_is_known() -> None:
    assert np.array_equal(fitted().absent(), fitted().transform({"image_id": ["a"]})[0])
    assert fitted(indicators=True).absent().tolist() == pytest.approx([0, 1, 0, 0, 1, 0, 0, 0, 1], abs=1e-6)


def test_case_and_surrounding_blanks_do_not_matter() -> None:
    frame = pd.DataFrame({"age": 1.0, "sex": ["Male", " male "], "localization": ["BACK", "back"]})
    assert fitted(frame).vocabularies == (("male",), ("back",))
    assert fitted().transform_one({"sex": " FEMALE"})[1] == 1


@pytest.mark.parametrize("ages", [[np.nan] * 3, [40.0] * 3, [0.1, 0.1, np.nan]])
def test_an_age_that_is_constant_or_never_given_stays_finite(ages: list[float]) -> None:
    encoder = fitted(pd.DataFrame({"age": ages, "sex": None, "localization": "back"}))
    encoded = encoder.transform({"age": [*ages, 77.0]})
    assert np.isfinite(encoded).all()
    assert encoded[:3, 0] == pytest.approx(0, abs=1e-6)
    assert encoder.vocabularies[0] == ()


def test_without_fields_there_are_rows_of_no_columns() -> None:
    encoder = MetadataEncoder.fit(table(), numeric=[], categorical=[])
    assert encoder.width == 0
    assert encoder.transform(table()).shape == (60, 0)
    assert encoder.transform(pd.DataFrame(index=range(5))).shape == (5, 0)
    assert encoder.transform({}).shape == (0, 0)
    assert encoder.absent().shape == (0,)
    assert encoder.missing({"age": 3}) == []
    assert MetadataEncoder.from_json(encoder.to_json()) == encoder


def test_any_kind_of_column_gives_the_same_rows() -> None:
    encoder, frame = fitted(), table()
    expected = encoder.transform(frame)
    as_lists = {name: list(frame[name]) for name in frame}
    as_text = {"age": [str(age) for age in frame["age"]], "sex": frame["sex"].to_numpy()}
    nullable = frame.convert_dtypes()
    whole = frame.assign(age=frame["age"].fillna(50).astype(int))
    assert np.array_equal(encoder.transform(as_lists), expected)
    assert np.array_equal(encoder.transform({**as_lists, **as_text}), expected)
    assert np.array_equal(encoder.transform(nullable), expected)
    assert np.array_equal(encoder.transform(whole)[1], encoder.transform_one(whole.iloc[1].to_dict()))
    for row in range(0, 60, 9):
        assert np.array_equal(encoder.transform_one(frame.iloc[row].to_dict()), expected[row])


@given(
    ages=st.lists(AGES, min_size=1, max_size=12),
    words=st.lists(WORDS, min_size=1, max_size=12),
    indicators=st.booleans(),
    record=st.fixed_dictionaries({}, optional={"age": AGES, "sex": WORDS | st.text(max_size=5)}),
)
@settings(max_examples=80, deadline=None)
def test_a_saved_encoder_gives_the_same_bits(
    ages: list[Any], words: list[Any], indicators: bool, record: dict[str, Any]
) -> None:
    rows = min(len(ages), len(words))
    frame = pd.DataFrame({"age": pd.Series(ages[:rows], dtype=float), "sex": pd.Series(words[:rows], dtype=object)})
    encoder = MetadataEncoder.fit(frame, numeric=["age"], categorical=["sex"], missing_indicators=indicators)
    again = MetadataEncoder.from_json(json.loads(json.dumps(encoder.to_json(), allow_nan=False)))
    assert again == encoder
    assert again.transform(frame).tobytes() == encoder.transform(frame).tobytes()
    one = encoder.transform_one(record)
    assert again.transform_one(record).tobytes() == one.tobytes()
    assert one.shape == (encoder.width,) == (len(encoder.feature_names),)
    assert np.isfinite(encoder.transform(frame)).all()
    assert set(encoder.missing(record)) <= {"age", "sex"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("abc", "'age' is 'abc', which is not a number"),
        (500, "'age' is 500; give a number from 0 to 120"),
        (-1, "from 0 to 120"),
        (math.inf, "from 0 to 120"),
        ("1_0", "not a number"),
        (True, "not a number"),
        ([40], "not a number"),
        ("x" * 500, "not a number"),
        (1j, "not a number"),
    ],
)
def test_an_impossible_age_is_refused_in_one_sentence(value: object, said: str) -> None:
    for attempt in (fitted().transform_one, fitted().missing):
        with pytest.raises(DataError, match=said) as caught:
            attempt({"age": value})
        assert len(str(caught.value)) < 130


def test_impossible_tables_are_refused() -> None:
    encoder = fitted()
    with pytest.raises(DataError, match="'sex' is a list"):
        encoder.transform_one({"sex": ["male"]})
    with pytest.raises(DataError, match="'sex' has 1 values where 'age' has 2"):
        encoder.transform({"age": [1, 2], "sex": ["male"]})
    with pytest.raises(DataError, match="one word where a column"):
        encoder.transform({"sex": "male"})
    with pytest.raises(DataError, match=r"'age' has shape \(2, 1\)"):
        encoder.transform({"age": np.zeros((2, 1))})
    with pytest.raises(DataError, match="no column 'sex'"):
        fitted(table().drop(columns="sex"))
    with pytest.raises(DataError, match="no rows"):
        fitted(table()[:0])
    with pytest.raises(DataError, match="'abc'"):
        fitted(table().astype({"age": object}).replace({"age": {5.0: "abc"}}))
    with pytest.raises(ConfigError, match="'age' is named twice"):
        MetadataEncoder.fit(table(), numeric=["age"], categorical=["age"])
    other = MetadataEncoder.fit(pd.DataFrame({"mm": [1.0, 2.0]}), numeric=["mm"], categorical=[])
    with pytest.raises(DataError, match="too large"):
        other.transform_one({"mm": 1e300})
    with pytest.raises(DataError, match="finite number"):
        other.transform_one({"mm": "inf"})


def _put(path: str, value: object) -> dict[str, Any]:
    saved: Any = fitted().to_json()
    *way, last = path.split(".")
    place = saved
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    place[int(last) if isinstance(place, list) else last] = value
    return saved


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (None, "is a NoneType"),
        ({}, "lacks 'format'"),
        (_put("format", 2), "has format 2 and this version reads 1"),
        (_put("format", True), "has format True"),
        (_put("missing_indicators", 1), "neither true nor false"),
        (_put("numeric", {}), "'numeric' is a dict"),
        (_put("numeric", ["age"]), "a numeric field is a str"),
        (_put("numeric.0.mean", math.nan), "'mean' of 'age' is 'nan'"),
        (_put("numeric.0.mean", 10**400), "'mean' of 'age' is '1000"),
        (_put("numeric.0.fill", "3"), "'fill' of 'age'"),
        (_put("numeric.0.scale", 0), "not above 0"),
        (_put("numeric.0.name", ""), "'' is not the name"),
        (_put("categorical.0.name", "age"), "'age' is not the name"),
        (_put("categorical.0.vocabulary", ["male", "male"]), "a word twice"),
        (_put("categorical.0.vocabulary", ["Male"]), "lower case"),
        (_put("categorical.0.vocabulary", [3]), "lower case"),
        (_put("categorical.0", {"name": "sex"}), "lacks 'vocabulary'"),
    ],
)
def test_a_damaged_saved_encoder_is_refused(saved: Any, said: str) -> None:
    with pytest.raises(BundleError) as caught:
        MetadataEncoder.from_json(saved)
    assert said in str(caught.value)


def test_values_are_read_as_the_readers_read_them() -> None:
    assert values.MISSING == tables.MISSING
    assert values.AGE_RANGE == tables.AGE_RANGE


def test_loading_and_transforming_need_numpy_alone() -> None:
    code = (
        "import json, sys; from dermafuse.data.metadata import MetadataEncoder\n"
        "MetadataEncoder.from_json(json.load(sys.stdin)).transform_one({'age': 40, 'sex': 'male'})\n"
        "print([m for m in ('pandas', 'sklearn', 'scipy', 'PIL', 'tensorflow') if m in sys.modules])"
    )
    saved = json.dumps(fitted().to_json())
    out = subprocess.run([sys.executable, "-c", code], input=saved, capture_output=True, check=True, text=True)
    assert out.stdout.strip() == "[]"


def test_a_spread_that_is_only_rounding_counts_as_none() -> None:
    encoder = MetadataEncoder.fit(pd.DataFrame({"age": [0.0, 1e-122]}), numeric=["age"], categorical=[])
    np.testing.assert_array_equal(encoder.transform({"age": [0.0, 1.0]}), [[0.0], [1.0]])
