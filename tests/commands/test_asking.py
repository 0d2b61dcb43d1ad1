"""predict and explain as a person types them: which model answers, from which words, and how it is said."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dermafuse
from dermafuse.api.evaluate import _predict
from dermafuse.cli import main
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import Records
from dermafuse.progress import Silent
from dermafuse.runtime.batch.predict_table import predict_table
from dermafuse.runtime.batch.unknown_words import UnknownWords
from dermafuse.runtime.bundle.schema import PredictionSets
from dermafuse.runtime.prediction import Query
from dermafuse.runtime.released import is_released, released_bundle
from tiny_bundle import TABLE, tiny_bundle, tiny_image, tiny_network

Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model ``RUN`` and images."""
    folder = tmp_path_factory.mktemp("home")
    tiny_bundle(folder / "RUN" / "model")
    for name in ("lesion.png", "shots/a.png", "shots/deeper/b.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tiny_image(len(name))).save(folder / name)
    (folder / "notes.txt").write_text("some notes")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def say(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    monkeypatch.chdir(home)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = main(list(words))
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


# Which model answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["predict", "RNU", "lesion.png"],
        ["predict", "RNU", "lesion.png", "--json"],
        ["predict", "RNU", "--csv", "t.csv", "--out", "o.csv"],
        ["explain", "RNU", "lesion.png", "--json"],
        ["evaluate", "RNU", "--data", "d", "--out", "o"],
        ["export", "RNU", "--format", "onnx", "--to", "o"],
        ["export", "RNU", "--format", "openvino", "--to", "o"],
        ["report", "RNU"],
        ["release", "RNU", "--to", "o"],
        ["check", "nowhere", "--model", "RNU"],
        ["compare", "RNU", "RUN"],
    ],
    ids=" ".join,
)
def test_a_model_misspelt_is_refused_by_every_verb_with_its_nearest_name(say: Said, words: list[str]) -> None:
    status, out, err = say(*words)
    assert status == 2
    assert out == ""
    assert "RNU" in err
    assert "Did you mean 'RUN'?" in err
    assert "Research use" not in err  # nothing was asked of any model


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("notes.txt", "notes.txt"),
        ("RUN/model/manifest.json", "manifest.json"),
        ("empty", "holds neither"),
        ("shots", "It holds 2 image"),
        ("leson.png", "Did you mean 'lesion.png'?"),
        ("no/way/there", "no/way/there"),
        ("RUN/modle", "Did you mean 'RUN/model'?"),
        ("shot/a.png", "Did you mean 'shots/a.png'?"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_a_first_argument_that_is_no_image_and_no_model_is_refused(say: Said, verb: str, first: str, said: str) -> None:
    more = ["--json"] if verb == "explain" else []
    status, out, err = say(verb, first, "lesion.png", *more)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_the_first_true_cause_is_said_and_not_what_follows_from_it(say: Said) -> None:
    assert "empty holds neither" in say("predict", "./empty")[2]
    assert "Name images to predict" in say("predict", "RUN")[2]


def test_every_answer_says_which_model_gave_it(say: Said, home: Path, tmp_path: Path) -> None:
    digest = dermafuse.load(home / "RUN").bundle.digest
    facts = {"path": "RUN/model", "digest": digest, "released": False}
    status, out, err = say("predict", "RUN", "lesion.png")
    assert status == 0
    assert f"Model: RUN/model (digest {digest[:12]})." in err
    assert json.loads(say("predict", "RUN", "lesion.png", "--json")[1])[0]["model"] == facts
    assert json.loads(say("explain", "RUN", "lesion.png", "--json")[1])["model"] == facts
    assert digest[:12] in say("explain", "RUN", "lesion.png", "--out", str(tmp_path / "o.png"))[1]
    (home / "t.csv").write_text("image\nlesion.png\n")
    out = str(tmp_path / "o.csv")
    assert digest[:12] in say("predict", "RUN", "--csv", "t.csv", "--out", out)[1]
    again = say("predict", "RUN", "--csv", "t.csv", "--out", out, "--overwrite", "--json")[1]
    assert json.loads(again)["model"] == facts


def test_the_released_model_is_known_wherever_it_lies(tmp_path: Path, home: Path) -> None:
    shutil.copytree(released_bundle(), tmp_path / "copy")
    assert is_released(dermafuse.load(tmp_path / "copy").bundle)
    assert not is_released(dermafuse.load(home / "RUN").bundle)


# How it is said --------------------------------------------------------------------------------------------------


def test_piped_answers_are_the_csv_that_they_always_were(say: Said) -> None:
    _, out, _ = say("predict", "RUN", "lesion.png", "--age", "50", "--sex", "robot")
    (row,) = csv.DictReader(io.StringIO(out))
    assert list(row) == [
        "image",
        "predicted",
        *(f"p_{code}" for code in ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")),
        "malignant",
        "prediction_set",
        "out_of_distribution",
        "missing",
        "error",
    ]
    assert row["missing"] == "sex|localization"


def test_on_a_terminal_the_answer_is_for_reading(say: Said, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    expected = dermafuse.load(home / "RUN").predict(home / "lesion.png")
    status, out, _ = say("predict", "RUN", "lesion.png", "shots")
    assert status == 0
    head, *lines = out.split("\n\n")[0].splitlines()
    assert head.startswith(f"lesion.png: {expected.name} ({expected.label}), probability ")
    assert [line.split()[0] for line in lines[:7]] == sorted(
        expected.probabilities, key=lambda code: -expected.probabilities[code]
    )
    assert "Not known, which makes the answer less sure: age, sex, localization" in out
    assert "Model: RUN/model" in out
    assert out.count("probability") == 3  # the image and two of the folder


@pytest.mark.parametrize("minimum", [0.0, 1.0, None])
def test_what_cannot_be_excluded_is_said_only_where_it_says_something(tmp_path: Path, minimum: float | None) -> None:
    from dermafuse.commands.predict import answer_text

    found = dermafuse.load(tiny_bundle(tmp_path / "m")).explain(tiny_image(), what_if=False).prediction
    low = {code: 0.0 if code == found.label or minimum == 0.0 else 1.0 for code in found.probabilities}
    sets = PredictionSets(coverage=0.9, minimum_probability=list(low.values()) if minimum != 1.0 else [1.0] * 7)
    model = dermafuse.load(tiny_bundle(tmp_path / "n", prediction_set=sets))
    text = answer_text("x.png", model.predict(tiny_image()), model.bundle)
    if minimum == 0.0:
        assert "Cannot be excluded: " in text
    elif minimum == 1.0:
        assert "none of the classes fits" in text
    else:
        assert model.predict(tiny_image()).prediction_set == (found.label,)
        assert "Cannot be excluded" not in text


def test_a_folder_after_the_model_stands_for_its_images(say: Said, home: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(say("predict", "RUN", "shots", "lesion.png")[1])))
    assert [row["image"] for row in rows] == ["shots/a.png", "shots/deeper/b.png", "lesion.png"]
    assert all(row["predicted"] for row in rows)
    status, out, err = say("predict", "RUN", "empty")
    assert (status, out) == (2, "")
    assert "empty holds no image" in err
    assert say("explain", "RUN", "shots", "--json")[0] == 2


def test_a_table_of_which_nothing_is_predicted_is_no_success(say: Said, home: Path, tmp_path: Path) -> None:
    (home / "bad.csv").write_text("image\nnowhere.png\n")
    assert say("predict", "RUN", "--csv", "bad.csv", "--out", str(tmp_path / "o.csv"))[0] == 1
    assert say("predict", "RUN", "--csv", "bad.csv", "--out", str(tmp_path / "o.csv"), "--json", "--overwrite")[0] == 1
    (home / "half.csv").write_text("image\nnowhere.png\nlesion.png\n")
    assert say("predict", "RUN", "--csv", "half.csv", "--out", str(tmp_path / "p.csv"))[0] == 0


# What is known of the patient ------------------------------------------------------------------------------------


def test_metadata_for_images_is_not_lost_beside_a_table_nor_a_tables_column_beside_images(say: Said) -> None:
    status, _, err = say("predict", "RUN", "--csv", "t.csv", "--out", "o.csv", "--sex", "f")
    assert status == 2
    assert "--column sex=COLUMN" in err
    status, _, err = say("predict", "RUN", "lesion.png", "--column", "sex=gender")
    assert status == 2
    assert "--set-feature" in err


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_features_of_ones_own_are_given_by_name(say: Said, home: Path, verb: str) -> None:
    table = TABLE.assign(itch=["true", "false", "true", None, "true", "false"])
    encoder = MetadataEncoder.fit(table, numeric=["age"], categorical=["sex", "localization", "itch"])
    if not (home / "own").exists():
        tiny_bundle(home / "own", encoder=encoder, models=(tiny_network(width=encoder.width),))
    expected = dermafuse.load(home / "own", precision="f32").predict("lesion.png", age=50, itch=True)
    words = [verb, "own", "lesion.png", "--json", "--age", "50"]

    def answer(*more: str) -> Any:
        found = json.loads(say(*words, *more)[1])
        return found["prediction"] if verb == "explain" else found[0]

    for written in ("itch=yes", "itch=TRUE", "itch = 1"):
        found = answer("--set-feature", written)
        assert found["missing"] == ["sex", "localization"]
        assert found["probabilities"] == pytest.approx(expected.probabilities, abs=0.02)
    assert answer("--set-feature", "itch=maybe")["unknown"] == {"itch": "maybe"}
    for given, said in (
        ("itchh=1", "Did you mean 'itch'?"),
        ("itch", "takes NAME=VALUE"),
        ("=1", "takes NAME=VALUE"),
        ("age=60", "'age' is given twice"),
    ):
        status, out, err = say(*words, "--set-feature", given)
        assert (status, out) == (2, "")
        assert said in err


@pytest.mark.parametrize(
    ("option", "written", "plainly"),
    [
        ("--sex", "F", "female"),
        ("--sex", "Male", "male"),
        ("--sex", "woman", "female"),
        ("--localization", "head/neck", "face"),
        ("--localization", "Torso", "trunk"),
        ("--age", "55+", "55"),
        ("--age", " 55.0", "55"),
    ],
)
def test_words_mean_the_same_on_the_command_line_in_tables_and_in_python(
    say: Said, home: Path, tmp_path: Path, option: str, written: str, plainly: str
) -> None:
    field = option.removeprefix("--")
    model = dermafuse.load(home / "RUN", precision="f32", mode="throughput")
    expected = model.predict("lesion.png", **{field: plainly})
    assert model.predict("lesion.png", **{field: written}) == expected
    assert not expected.unknown
    row = json.loads(say("predict", "RUN", "lesion.png", option, written, "--precision", "f32", "--json")[1])[0]
    assert row["probabilities"] == pytest.approx(expected.probabilities, rel=1e-5)
    (tmp_path / "t.csv").write_text(f"image,{field}\n{(home / 'lesion.png').absolute()},{written}\n")
    done = predict_table(model, tmp_path / "t.csv", tmp_path / "o.csv")
    assert done.unknown == {}
    predicted = pd.read_csv(tmp_path / "o.csv").iloc[0]
    for code, chance in expected.probabilities.items():
        assert predicted[f"p_{code}"] == pytest.approx(chance, rel=1e-6)


def test_unknown_words_are_said_once_with_their_count_and_the_words_that_are_known(
    say: Said, home: Path, tmp_path: Path
) -> None:
    said = "Of 'localization' the model does not know 'moon' (in 1 of 1): taken as unknown. It knows the words abdomen,"
    for verb in ("predict", "explain"):
        status, _, err = say(verb, "RUN", "lesion.png", "--localization", "moon", "--json")
        assert status == 0
        assert err.count(said) == 1
    rows = ["moon"] * 3 + ["sun", "back", "", "unknown"]
    table = "image,localization\n" + "".join(f"lesion.png,{word}\n" for word in rows)
    (home / "moon.csv").write_text(table)
    words = ["predict", "RUN", "--csv", "moon.csv", "--out", str(tmp_path / "o.csv")]
    err = say(*words)[2]
    assert err.count("Of 'localization' the model does not know 'moon' 3, 'sun' 1 (in 4 of 7): taken as unknown.") == 1
    facts = json.loads(say(*words, "--overwrite", "--json")[1])
    assert facts["unknown"] == {"localization": {"moon": 3, "sun": 1}}


def test_a_column_of_free_text_is_counted_in_bounded_memory(home: Path) -> None:
    model = dermafuse.load(home / "RUN")
    base = model.predict(tiny_image())
    counted = UnknownWords(model.bundle.encoder)
    from dataclasses import replace

    for number in range(5000):
        counted.add(replace(base, unknown={"sex": f"word {number}"}))
    assert len(counted.counts["sex"]) <= 1001
    assert counted.counts["sex"].total() == 5000
    assert len(counted.sentences()[0]) < 400


PAD = """
table = "metadata.csv"
image = "img_id"
label = "diagnostic"
numeric = ["age"]
categorical = { sex = "gender", localization = "region", grade = "fitspatrick" }
labels = { NEV = "nv", MEL = "mel" }
[values.localization]
ARM = "upper extremity"
NOSE = "face"
"""


def pad(folder: Path) -> Records:
    rows = ["img_id,diagnostic,age,gender,region,fitspatrick"]
    regions = ("ARM", "NOSE", "BACK", "THIGH", "Nose ", "")
    for number in range(12):
        sex = ("FEMALE", "M", "")[number % 3]
        rows.append(
            f"p{number}.png,{'NEV' if number % 2 else 'MEL'},{40 + number},{sex},{regions[number % 6]},{number % 3}.0"
        )
        Image.fromarray(tiny_image(number)).save(folder / f"p{number}.png")
    (folder / "metadata.csv").write_text("\n".join(rows))
    (folder / "dermafuse.toml").write_text(PAD)
    return read_dataset(folder)


def isic(folder: Path) -> Records:
    sites = ("anterior torso", "posterior torso", "head/neck", "palms/soles", "oral/genital", "")
    codes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    (folder / "ISIC_2019_Training_Input").mkdir()
    truth, facts = ["image," + ",".join(codes)], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for number in range(12):
        truth.append(f"i{number}," + ",".join("1.0" if n == number % 7 else "0.0" for n in range(8)))
        facts.append(f"i{number},{number * 5}.0,{sites[number % 6]},,{('male', 'female', '')[number % 3]}")
        Image.fromarray(tiny_image(number)).save(folder / "ISIC_2019_Training_Input" / f"i{number}.png")
    (folder / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth))
    (folder / "ISIC_2019_Training_Metadata.csv").write_text("\n".join(facts))
    return read_dataset(folder)


@pytest.mark.parametrize(
    ("make", "name", "columns"),
    [
        (pad, "metadata.csv", {"sex": "gender", "localization": "region", "grade": "fitspatrick"}),
        (isic, "ISIC_2019_Training_Metadata.csv", {"age": "age_approx", "localization": "anatom_site_general"}),
    ],
)
@pytest.mark.parametrize("learned", ["these", "others"])
def test_evaluate_predict_and_a_table_agree_to_the_last_digit(
    tmp_path: Path, make: Callable[[Path], Records], name: str, columns: dict[str, str], learned: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    records = make(data)
    if learned == "these":
        encoder = MetadataEncoder.fit(
            records.table, numeric=records.numeric, categorical=records.categorical, values=records.values
        )
    else:  # a model of HAM10000's words
        encoder = MetadataEncoder.fit(TABLE, numeric=["age"], categorical=["sex", "localization"])
    folder = tiny_bundle(tmp_path / "m", encoder=encoder, models=(tiny_network(width=encoder.width),))
    model = dermafuse.load(folder, precision="f32", mode="throughput")
    judged = _predict(model, records, 1, Silent()).table
    own = {field: column for field, column in columns.items() if field in model.fields}
    predict_table(model, data / name, tmp_path / "o.csv", columns=own)
    written = pd.read_csv(tmp_path / "o.csv")
    assert written["error"].isna().all()
    chances = [f"p_{code}" for code in model.classes]
    np.testing.assert_allclose(written[chances], judged[chances], atol=1e-7)
    raw = pd.read_csv(data / name, dtype=str, keep_default_na=False)
    raw = raw.rename(columns={column: field for field, column in own.items()})
    for row, path in zip(raw.to_dict("records"), records.table["path"], strict=True):
        answer = model.predict_query(Query(path, {field: row[field] for field in model.fields}))
        if learned == "these":
            assert not answer.unknown
        expected = judged.iloc[list(records.table["path"]).index(path)]
        np.testing.assert_allclose(
            [answer.probabilities[code] for code in model.classes], expected[chances].astype(float), atol=1e-7
        )


# Misspelt verbs and options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predic", "x"], "unknown verb 'predic'. Did you mean 'predict'?"),
        (["xyzzy"], "unknown verb 'xyzzy'. There are "),
        (["predict", "lesion.png", "--agee", "5"], "unknown option '--agee'. Did you mean '--age'?"),
        (["predict", "lesion.png", "--agee=5"], "unknown option '--agee'. Did you mean '--age'?"),
        (["evaluate", "RUN", "--dta", "d"], "unknown option '--dta'. Did you mean '--data'?"),
        (["predict", "--zzzzzz"], "unknown option '--zzzzzz'. dermafuse predict --help lists them."),
        (["check", "d", "--split", "lesoin"], "invalid choice: 'lesoin'. Did you mean 'lesion'?"),
    ],
)
def test_a_misspelt_verb_or_option_is_answered_with_the_nearest(say: Said, words: list[str], said: str) -> None:
    status, out, err = say(*words)
    assert (status, out) == (2, "")
    assert said in err


def test_the_beginning_of_an_option_is_still_enough(say: Said) -> None:
    status, _, err = say("predict", "RUN", "lesion.png", "--local", "back", "--js")
    assert status == 0, err


def test_a_table_that_is_not_there_is_the_first_cause_named(say: Said) -> None:
    for words in (("--out", "o.csv"), ()):
        status, _, err = say("predict", "RUN", "--csv", "nothere.csv", *words)
        assert status == 2
        assert "nothere.csv does not exist" in err
