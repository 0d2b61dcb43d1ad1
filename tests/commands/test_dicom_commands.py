"""DICOM from end to end: commands and server answer as for the same pixels, and no identifier comes out anywhere."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

pytest.importorskip("pydicom", reason='DICOM is not tested: pip install "dermafuse[dicom]"')

from dermafuse.cli import main
from dermafuse.data.readers.read import read_dataset
from dermafuse.runtime.released import load
from dicom_files import traces, write_dicom
from tiny_bundle import tiny_bundle, tiny_image
from tiny_run import FAST

GIVEN = {"age": 55, "sex": "female", "localization": "back"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("dicom") / "tiny")


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    folder = tmp_path / "clinic"
    (folder / "photos").mkdir(parents=True)
    lines = ["image,finding,sex"]
    for number in range(12):
        data = write_dicom(tiny_image(number), age=f"{20 + number:03}Y", sex="FM"[number % 2], site="Skin of back")
        (folder / "photos" / f"a{number}.dcm").write_bytes(data)
        lines.append(f"a{number}.dcm,{('naevus', 'melanoma')[number % 2]},{'female' if number == 0 else ''}")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    (folder / "dermafuse.toml").write_text(
        'table = "table.csv"\nimages = ["photos"]\nimage = "image"\nlabel = "finding"\n'
        'classes = ["naevus", "melanoma"]\nmalignant = ["melanoma"]\n'
        '[categorical]\nsex = "sex"\n'
    )
    return folder


def test_the_answer_is_that_of_the_same_pixels_with_the_same_values_and_says_where_they_came_from(bundle: Path) -> None:
    model = load(bundle)
    data = write_dicom(tiny_image(1))
    plain = model.predict(tiny_image(1), **GIVEN)
    found = model.predict(data)
    assert found.probabilities == plain.probabilities
    assert found.to_dict()["from_file"] == {"age": 55.0, "sex": "female", "localization": "back"}
    assert "from_file" not in plain.to_dict()
    own = model.predict(data, age=20, sex="male")
    assert own.from_file == {"localization": "back"}
    assert own.probabilities == model.predict(tiny_image(1), age=20, sex="male", localization="back").probabilities
    assert model.explain(data).prediction.from_file == found.from_file
    strange = model.predict(write_dicom(tiny_image(1), site="Zyxwvu of Gertrud"))
    assert strange.missing == ("localization",)
    assert not traces(json.dumps(strange.to_dict()))


def test_no_identifier_comes_out_of_predict_explain_and_errors(
    bundle: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = tmp_path / "a.dcm", tmp_path / "b.dcm"
    good.write_bytes(write_dicom(tiny_image(1)))
    bad.write_bytes(write_dicom(tiny_image(1))[:-99])
    (tmp_path / "t.csv").write_text("image\na.dcm\nb.dcm\n")
    with caplog.at_level(logging.DEBUG):
        assert main(["predict", str(bundle), str(good), str(bad), "--json"]) == 1
        table = ["predict", str(bundle), "--csv", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out.csv")]
        assert main(table) == 0
        assert main(["explain", str(bundle), str(good), "--out", str(tmp_path / "why.png"), "--json"]) == 0
    out, err = capfd.readouterr()
    assert "taken from the DICOM file: age" in err
    assert "b.dcm is a DICOM file that is damaged or cut short" in out + err
    for text in (out, err, caplog.text):
        assert not traces(text)
    for path in tmp_path.iterdir():
        if path.suffix != ".dcm":
            assert not traces(path.read_bytes()), path


def test_a_table_gains_what_its_files_say_and_keeps_what_it_gives(
    clinic: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    records = read_dataset(clinic / "dermafuse.toml")
    assert records.numeric == ("age",)
    assert records.categorical == ("sex", "localization")
    assert records.table["age"].tolist() == [20.0 + number for number in range(12)]
    assert records.table["sex"].tolist() == ["female", "male"] * 6
    assert set(records.table["localization"]) == {"back"}
    assert any("taken from DICOM files: age of 12, localization of 12, sex of 11" in note for note in records.notes)
    main(["check", str(clinic / "dermafuse.toml")])
    out, err = capfd.readouterr()
    assert "12" in out
    assert not traces(out + err)


def test_the_server_takes_an_upload_and_says_what_it_took(bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx2")
    from starlette.testclient import TestClient

    sys.path.append(str(Path(__file__).parents[1] / "serving"))
    from at_once import AtOnce

    from dermafuse.serving.app import make_app
    from dermafuse.serving.limits import Access, Limits
    from dermafuse.serving.model import ServedModel

    limits = Limits()
    serving = make_app(AtOnce(ServedModel(load(bundle), limits)), limits, Access(None))
    with caplog.at_level(logging.DEBUG), TestClient(serving.guard, base_url="http://localhost") as client:
        answer = client.post("/v1/predict", files={"image": write_dicom(tiny_image(1))}, data={"age": "30"}).json()
        assert answer["from_file"] == {"sex": "female", "localization": "back"}
        assert any("taken from the DICOM file" in note for note in answer["notes"])
        several = client.post("/v1/predict", files={"image": write_dicom(tiny_image(1), NumberOfFrames=2)})
        assert several.status_code == 422
        assert "2 frames" in several.json()["detail"]
        assert not traces(json.dumps(answer) + several.text + caplog.text)


def test_a_training_leaves_no_identifier_in_its_run_or_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("DERMAFUSE_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "data"
    for number in range(40):
        folder = data / ("naevus", "melanoma")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"a{number}.dcm").write_bytes(write_dicom(tiny_image(number), age=f"{20 + number:03}Y"))
    told = 'images = ["."]\nfolders = ["finding"]\nlabel = "finding"\nclasses = ["naevus", "melanoma"]\n'
    (data / "dermafuse.toml").write_text(told + 'malignant = ["melanoma"]\n')
    assert main(["train", "--data", str(data / "dermafuse.toml"), "--out", str(tmp_path / "RUN"), *FAST]) == 0
    encoder = load(tmp_path / "RUN").bundle.encoder
    assert [*encoder.numeric, *encoder.categorical] == ["age", "sex", "localization"]
    out, err = capfd.readouterr()
    assert not traces(out + err)
    written = [path for top in ("RUN", "cache") for path in (tmp_path / top).rglob("*") if path.is_file()]
    assert len(written) > 10
    for path in written:
        assert not traces(path.read_bytes()), path
