"""The Croissant description: it says what the data are, and a reader that follows it finds the images."""

from __future__ import annotations

import hashlib
import io
import json
from fnmatch import fnmatch
from pathlib import Path

import pandas as pd
import pytest

from dermafuse.data.readers.croissant import Publication, croissant, records_csv, write_croissant
from dermafuse.data.readers.read import read_dataset
from dermafuse.labels import HAM10000


def test_following_the_description_leads_to_the_table_and_every_image(synthetic: Path, tmp_path: Path) -> None:
    records = read_dataset(synthetic)
    path = write_croissant(records, tmp_path / "described")
    told = json.loads(path.read_text(encoding="utf-8"))
    file = next(entry for entry in told["distribution"] if entry["@type"] == "cr:FileObject")
    content = (path.parent / file["contentUrl"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert file["contentSize"] == f"{len(content)} B"
    table = pd.read_csv(io.BytesIO(content), keep_default_na=False)
    assert list(table["image_id"]) == list(records.table["image_id"])
    patterns = [p for entry in told["distribution"] if entry["@type"] == "cr:FileSet" for p in entry["includes"]]
    for written in table["path"]:
        assert (synthetic / written).is_file()
        assert any(fnmatch(written, pattern) for pattern in patterns)
    images = next(part for part in told["recordSet"] if part["name"] == "images")
    columns = {field["name"]: field["source"]["extract"]["column"] for field in images["field"]}
    assert set(columns.values()) <= set(table.columns)
    assert {"image_id", "label", "path", "age", "sex", "localization"} <= set(columns)


def test_every_identifier_is_unique_and_every_reference_leads_somewhere(synthetic: Path) -> None:
    told = croissant(read_dataset(synthetic))
    named: list[str] = []
    used: list[str] = []

    def walk(part: object, key: str = "") -> None:
        if isinstance(part, dict):
            if "@id" in part and key != "@context":
                (named if "@type" in part else used).append(part["@id"])
            for name, value in part.items():
                if name != "@context":
                    walk(value, name)
        elif isinstance(part, list):
            for value in part:
                walk(value, key)

    walk(told)
    assert len(named) == len(set(named))
    assert set(used) <= set(named)
    assert told["@type"] == "sc:Dataset"
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.0"


def test_generated_data_say_so_and_claim_no_publication(synthetic: Path) -> None:
    told = croissant(read_dataset(synthetic))
    assert told["description"].startswith("SYNTHETIC")
    assert "citeAs" not in told
    assert "creator" not in told


def test_classes_are_an_enumeration_in_the_order_of_the_outputs(synthetic: Path) -> None:
    classes = next(part for part in croissant(read_dataset(synthetic))["recordSet"] if part["name"] == "classes")
    assert [row["classes/code"] for row in classes["data"]] == list(HAM10000.codes)
    assert classes["dataType"] == "sc:Enumeration"


def test_what_is_given_about_the_publication_is_said(synthetic: Path) -> None:
    told = croissant(read_dataset(synthetic), Publication("Mine", "Ours.", license="https://example.org/licence"))
    assert (told["name"], told["description"], told["license"]) == ("Mine", "Ours.", "https://example.org/licence")
    assert "url" not in told


@pytest.mark.ham10000
def test_ham10000_is_described_with_its_licence_and_citation(ham10000: Path) -> None:
    records = read_dataset(ham10000)
    told = croissant(records)
    assert told["license"] == "https://creativecommons.org/licenses/by-nc/4.0/"
    assert "180161" in told["citeAs"]
    assert records_csv(records).count("\n") == 10_016
