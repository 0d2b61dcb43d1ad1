"""One model, one table, four ways to ask: evaluate, predict --csv, predict one by one, the exported ONNX file.

The tables have the real headers and habits of ISIC 2019, PAD-UFES-20 and a hospital's export of patients with benign
and malignant lesions: spellings, gaps, numbers as text, words that the model never saw. Rows and images are generated.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dermafuse.cli import main
from dermafuse.data.metadata import MetadataEncoder
from dermafuse.data.readers.read import read_dataset
from dermafuse.exporters.export import export
from dermafuse.labels import LabelSet
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.predictor import Predictor
from stranger import metadata_vector
from tiny_bundle import SIZE, tiny_bundle, tiny_encoder, tiny_image, tiny_network

ROWS = 16
PAD_HEADER = (
    "patient_id,lesion_id,smoke,drink,background_father,background_mother,age,pesticide,gender,skin_cancer_history,"
    "cancer_history,has_piped_water,has_sewage_system,fitspatrick,region,diameter_1,diameter_2,diagnostic,itch,grew,hurt,"
    "changed,bleed,elevation,img_id,biopsed"
)
PAD_TOML = """
table = "metadata.csv"
images = "images"
image = "img_id"
label = "diagnostic"
lesion = "patient_id"
numeric = ["age", "diameter_1"]
categorical = { sex = "gender", localization = "region", itch = "itch", skin_type = "fitspatrick" }
[labels]
ACK = "akiec"
NEV = "nv"
SEK = "bkl"
[values.localization]
ARM = "upper extremity"
NOSE = "face"
"""
BINARY_TOML = """
table = "export.csv"
image = "Bild"
label = "Befund"
lesion = "Patient"
numeric = { age = "Alter" }
categorical = { sex = "Geschlecht", localization = "Ort" }
classes = ["benign", "malignant"]
malignant = ["malignant"]
critical = "malignant"
[labels]
0 = "benign"
1 = "malignant"
[values.sex]
w = "female"
"""


@dataclass(frozen=True)
class Asked:
    """A labelled table: what to evaluate, what to predict, where each row's image is, its columns by field."""

    data: Path
    table: Path
    image: str
    fields: Mapping[str, str]
    find: Callable[[str], Path]


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(tiny_image(seed, SIZE, SIZE)).save(path)  # as large as the network's input: nothing is resized


def isic2019(root: Path) -> Asked:
    codes = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
    sites = ("anterior torso", "head/neck", "upper extremity", "palms/soles", "", "posterior torso", "oral/genital")
    truth, metadata = [f"image,{','.join(codes)}"], ["image,age_approx,anatom_site_general,lesion_id,sex"]
    for row in range(ROWS):
        name = f"ISIC_{row:07d}" + "_downsampled" * (row % 3 == 0)
        picture(root / "ISIC_2019_Training_Input" / f"{name}.png", row)
        truth.append(",".join([name, *("1.0" if place == row % 8 else "0.0" for place in range(len(codes)))]))
        sex = ("male", "female", "")[row % 3]
        age, site = "" if row % 5 == 4 else 5.0 * row, sites[row % len(sites)]
        metadata.append(f"{name},{age},{site},HAM_{row // 2:07d},{sex}")
    (root / "ISIC_2019_Training_GroundTruth.csv").write_text("\n".join(truth) + "\n")
    table = root / "ISIC_2019_Training_Metadata.csv"
    table.write_text("\n".join(metadata) + "\n")
    fields = {"age": "age_approx", "localization": "anatom_site_general", "sex": "sex"}
    return Asked(root, table, "image", fields, lambda name: root / "ISIC_2019_Training_Input" / f"{name}.png")


def pad_ufes(root: Path) -> Asked:
    columns = PAD_HEADER.split(",")
    regions = ("ARM", "NOSE", "BACK", "THIGH", "FACE", "CHEST")
    rows = []
    for row in range(ROWS):
        name = f"PAT_{row // 2}_{row}_{7 * row}.png"
        picture(root / "images/imgs_part_1" / name, row)
        told = {
            "patient_id": f"PAT_{row // 2}",
            "lesion_id": str(row),
            "age": str(30 + row),
            "img_id": name,
            "region": regions[row % len(regions)],
            "diagnostic": ("ACK", "BCC", "MEL", "NEV", "SEK")[row % 5],
            "itch": ("True", "False", "UNK")[row % 3],
            "biopsed": "True",
        }
        if row % 3:  # PAD-UFES-20 leaves half of its columns empty where no biopsy was taken
            told |= {"gender": ("FEMALE", "MALE")[row % 2], "fitspatrick": ("1.0", "2.0", "3.0")[row % 3]}
            told |= {"diameter_1": ("6.0", "10.0")[row % 2]}
        rows.append([told.get(column, "") for column in columns])
    with (root / "metadata.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])
    (root / "dermafuse.toml").write_text(PAD_TOML)
    fields = {
        "age": "age",
        "diameter_1": "diameter_1",
        "sex": "gender",
        "localization": "region",
        "itch": "itch",
        "skin_type": "fitspatrick",
    }
    return Asked(root, root / "metadata.csv", "img_id", fields, lambda name: root / "images/imgs_part_1" / name)


def binary(root: Path) -> Asked:
    lines = ["Patient,Bild,Alter,Geschlecht,Ort,Befund"]
    for row in range(ROWS):
        picture(root / f"{row}.png", row)
        sex, site = ("w", "M", "female", "")[row % 4], ("Upper_Extremity", "torso", "", "left leg", "foot")[row % 5]
        lines.append(f"P{row // 4},{row}.png,{'' if row % 6 == 5 else 20 + 3 * row},{sex},{site},{row % 2}")
    (root / "export.csv").write_text("\n".join(lines) + "\n")
    (root / "dermafuse.toml").write_text(BINARY_TOML)
    fields = {"age": "Alter", "sex": "Geschlecht", "localization": "Ort"}
    return Asked(root, root / "export.csv", "Bild", fields, lambda name: root / name)


@pytest.mark.parametrize(
    ("make", "own", "indicators"),
    [(isic2019, True, False), (isic2019, False, True), (pad_ufes, True, True), (binary, True, False)],
    ids=["isic2019", "isic2019-asked-of-a-ham10000-model", "pad-ufes-20", "binary"],
)
def test_a_row_has_one_answer_however_it_is_asked_for(
    make: Callable[[Path], Asked], own: bool, indicators: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    asked = make(tmp_path / "data")
    records = read_dataset(asked.data)
    encoder = tiny_encoder(indicators=indicators)
    if own:  # as training fits it
        encoder = MetadataEncoder.fit(
            records.table.iloc[: ROWS // 2],
            numeric=records.numeric,
            categorical=records.categorical,
            missing_indicators=indicators,
            values=records.values,
        )
    labels: LabelSet = records.labels
    network = tiny_network(7, classes=len(labels), width=encoder.width)
    model = tiny_bundle(
        tmp_path / "model", labels=labels, encoder=encoder, models=(network,), prediction_set=None, ood=None
    )

    whole = pd.read_csv(asked.table, dtype=str, keep_default_na=False)
    rows = [{field: row[column] for field, column in asked.fields.items()} for row in whole.to_dict("records")]
    images = [asked.find(name) for name in whole[asked.image]]

    precise = ["--precision", "f32"]
    assert main(["evaluate", str(model), "--data", str(asked.data), "--out", str(tmp_path / "ev"), *precise]) == 0
    evaluated = table_of(tmp_path / "ev/predictions.csv", labels)
    columns = [word for field, column in asked.fields.items() for word in ("--column", f"{field}={column}")]
    out = tmp_path / "out.csv"
    command = ["predict", str(model), "--csv", str(asked.table), "--out", str(out), "--image-column", asked.image]
    assert main([*command, *columns, *precise]) == 0
    by_table = table_of(out, labels)
    predictor = Predictor(read_bundle(model), precision="f32")
    given = [{field: cell for field, cell in row.items() if cell} for row in rows]
    found = [predictor.predict(image, **row) for image, row in zip(images, given, strict=True)]
    one_by_one = np.array([list(one.probabilities.values()) for one in found])
    exported = by_onnx(model, asked.data, tmp_path / "onnx", images, rows)

    np.testing.assert_allclose(by_table, one_by_one, rtol=0, atol=1e-6)
    np.testing.assert_allclose(evaluated, one_by_one, rtol=0, atol=1e-6)
    np.testing.assert_allclose(exported, one_by_one, rtol=0, atol=1e-5)
    assert one_by_one.std(axis=0).max() > 1e-2  # the rows do differ
    assert_said_alike(model, images[1], given[1], one_by_one[1], labels, capsys)
    if labels.malignant:
        sums = one_by_one[:, [code in labels.malignant for code in labels.codes]].sum(axis=1)
        np.testing.assert_allclose(pd.read_csv(out)["malignant"], sums, atol=1e-6)


def table_of(path: Path, labels: LabelSet) -> np.ndarray:
    return pd.read_csv(path)[[f"p_{code}" for code in labels.codes]].to_numpy()


def by_onnx(model: Path, data: Path, to: Path, images: list[Path], rows: list[dict[str, str]]) -> np.ndarray:
    """The answers of somebody who has the file alone."""
    export(model, "onnx", to, data=data)
    import onnxruntime

    session = onnxruntime.InferenceSession((to / "model.onnx").read_bytes())
    told = json.loads(session.get_modelmeta().custom_metadata_map["inputs"])
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in images])
    meta = np.stack([metadata_vector(told["meta_input"], row) for row in rows])
    (found,) = session.run(["probabilities"], {"image_input": pictures, "meta_input": meta})
    return np.asarray(found)


def assert_said_alike(
    model: Path,
    image: Path,
    given: dict[str, str],
    wanted: np.ndarray,
    labels: LabelSet,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command line, one image: the same again."""
    words = [word for name in ("age", "sex", "localization") if name in given for word in (f"--{name}", given[name])]
    others = [name for name in given if name not in ("age", "sex", "localization")]
    words += [word for name in others for word in ("--set-feature", f"{name}={given[name]}")]
    capsys.readouterr()
    assert main(["predict", str(model), str(image), *words, "--json", "--precision", "f32"]) == 0
    answer = json.loads(capsys.readouterr().out)[0]
    assert [answer["probabilities"][code] for code in labels.codes] == pytest.approx(wanted.tolist(), abs=1e-6)
