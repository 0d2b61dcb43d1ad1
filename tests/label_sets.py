"""Four label sets on generated images: HAM10000's, benign and malignant, nine classes, and none that is malignant."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pandas as pd
import tomli_w

from dermafuse.data.synthetic.dataset import write_synthetic

MALIGNANT: Final = ("akiec", "bcc", "mel")
LABEL_SETS: Final = ("ham10000", "benign_malignant", "nine", "no_malignant")


def write_label_set(name: str, folder: Path, *, lesions: int, seed: int) -> Path:
    """Write a generated data set under one of `LABEL_SETS` and return its folder.

    All but the first are HAM10000's folder with a ``dermafuse.toml``, and a table of its own where there are more
    classes than HAM10000 has.
    """
    write_synthetic(folder, lesions=lesions, seed=seed, size=(120, 90))
    if name == "ham10000":
        return folder
    table = pd.read_csv(folder / "HAM10000_metadata.csv")
    description = {
        "table": "table.csv",
        "image": "image_id",
        "lesion": "lesion_id",
        "label": "class",
        "numeric": ["age"],
        "categorical": ["sex", "localization"],
    }
    if name == "benign_malignant":
        table["class"] = table["dx"].isin(MALIGNANT).map({True: "malignant", False: "benign"})
        description |= {"classes": ["benign", "malignant"], "malignant": ["malignant"], "critical": "malignant"}
    elif name == "nine":
        age = pd.cut(table["age"].fillna(50), [-1, 40, 55, 200], labels=["young", "middle", "old"]).astype(str)
        age = age.groupby(table["lesion_id"]).transform("first")
        table["class"] = table["dx"].where(table["dx"] != "nv", "nv_" + age)
        description |= {
            "classes": sorted(table["class"].unique()),
            "malignant": ["bcc", "mel"],
            "names": {"nv_young": "nevus of the young", "nv_old": "nevus <of the old> & long in its name"},
        }
    else:
        table = table[~table["dx"].isin(MALIGNANT)].assign(**{"class": table["dx"]})
        description |= {"classes": ["bkl", "df", "nv", "vasc"], "malignant": []}
    table.to_csv(folder / "table.csv", index=False)
    (folder / "dermafuse.toml").write_text(tomli_w.dumps(description), encoding="utf-8")
    return folder
