"""Which diagnoses a cross-validated recipe confuses, and where: the tables of "What it confuses" in docs/results.md.

    python benchmarks/confusions.py RUN --data ../shared/ham10000

RUN is the folder of a cross-validation (``dermafuse train --folds K``); every figure is of its pooled out-of-fold
predictions, except the sensitivities for melanoma at specificity 0.90, which are by fold. Tables are Markdown.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.explanation_quality import find_masks, load_mask
from dermafuse.evaluation.operating_points import threshold_at_specificity
from dermafuse.progress import Terminal

AREAS = [0, 0.03, 0.08, 0.16, 0.30, 1]
AGES = [0, 40, 55, 70, 200]
#: Columns of whole numbers; the others are shares.
COUNTS = {"images", "melanomas", "akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"}


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("run", type=Path)
    options.add_argument("--data", type=Path, default=Path("../shared/ham10000"))
    arguments = options.parse_args()
    file = arguments.run / "predictions.csv"
    table = pd.read_csv(file) if file.is_file() else pd.DataFrame()
    if "fold" not in table:
        options.error(f"{arguments.run} is no cross-validation: give the folder of a `dermafuse train --folds K`.")
    known = read_dataset(arguments.data).table.set_index("image_id")
    table = table.join(known[["age", "localization", "dx_type"]].astype({"age": float}), on="image_id")

    print("Confusion matrix (rows: truth)\n")
    show(pd.crosstab(table["true"], table["predicted"]))
    print("\nSensitivity for melanoma at specificity 0.90, by fold\n")
    found = {fold: melanoma_sensitivity(rows) for fold, rows in table.groupby("fold")}
    show(pd.DataFrame({"sensitivity": found}).rename_axis("fold"))
    print(f"\nmean {np.mean(list(found.values())):.3f}, sd {np.std(list(found.values()), ddof=1):.3f}")

    melanoma = table[table["true"] == "mel"]
    print("\nMelanomas named, by age (years)\n")
    show(shares(melanoma, pd.cut(melanoma["age"], AGES, right=False), ["mel", "nv", "bkl"]))
    print("\nMelanomas named, by localization\n")
    show(shares(melanoma, melanoma["localization"], ["mel", "nv", "bkl"]))
    nevi, keratoses = table[table["true"] == "nv"], table[table["true"] == "bkl"]
    print("\nNevi, by how they were confirmed\n")
    show(shares(nevi, nevi["dx_type"], ["nv", "mel"]))
    print("\nBenign keratoses, by localization\n")
    show(shares(keratoses, keratoses["localization"], ["bkl", "mel"]))

    masks = find_masks(arguments.data)
    if not masks:
        print(f"\nNo lesion masks in {arguments.data}: the table by lesion area is left out.")
        return
    table = table[table["image_id"].isin(masks)].copy()
    with Terminal().bar("Lesion masks", len(table), "images") as advance:
        areas = []
        for image in table["image_id"]:
            areas.append(load_mask(masks[image]).mean())
            advance(1)
    table["area"] = areas
    print(f"\nBy the share of the frame that the lesion covers ({len(table):,} images with a mask)\n")
    show(pd.DataFrame({str(area): by_area(rows) for area, rows in table.groupby(pd.cut(table["area"], AREAS))}).T)


def melanoma_sensitivity(rows: pd.DataFrame) -> float:
    """Return the sensitivity at the lowest threshold on P(mel) with specificity 0.90 on the same rows."""
    positive = (rows["true"] == "mel").to_numpy()
    score = rows["p_mel"].to_numpy()
    return float((score[positive] >= threshold_at_specificity(positive, score, 0.90)).mean())


def shares(rows: pd.DataFrame, by: pd.Series, called: list[str]) -> pd.DataFrame:
    """Return for each group the number of images and the share that was called each of ``called``."""
    groups = rows.groupby(by, observed=True)["predicted"]
    columns = {f"called {code}": groups.agg(lambda column, code=code: (column == code).mean()) for code in called}
    return pd.DataFrame({"images": groups.size(), **columns})


def by_area(rows: pd.DataFrame) -> dict[str, float]:
    """Return what becomes of melanomas and nevi among ``rows``."""
    melanoma, nevus = rows[rows["true"] == "mel"], rows[rows["true"] == "nv"]
    return {
        "images": len(rows),
        "accuracy": (rows["true"] == rows["predicted"]).mean(),
        "melanomas": len(melanoma),
        "named": (melanoma["predicted"] == "mel").mean(),
        "called nv": (melanoma["predicted"] == "nv").mean(),
        "nevi called mel": (nevus["predicted"] == "mel").mean(),
        "AUROC melanoma": roc_auc_score(rows["true"] == "mel", rows["p_mel"]),
    }


def show(table: pd.DataFrame) -> None:
    """Print a Markdown table."""
    print(f"| {table.index.name or ''} | " + " | ".join(map(str, table.columns)) + " |")
    print("|---|" + "---|" * table.shape[1])
    for name, row in table.iterrows():
        cells = (f"{value:,.0f}" if column in COUNTS else f"{value:.3f}" for column, value in row.items())
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
