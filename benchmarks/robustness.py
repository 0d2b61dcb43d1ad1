"""How much worse a trained model gets on other cameras and without metadata, on the validation rows of its RUN.

    python benchmarks/robustness.py RUN [RUN ...] --data ../shared/ham10000 [--without-metadata]

Several RUNs (the folds of a cross-validation) are measured each on its own rows; the table shows their mean.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd

import dermafuse
from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.metric_table import shown
from dermafuse.evaluation.robustness import measure_robustness
from dermafuse.progress import Terminal

FIGURES = [metric.key for metric in shown("change")]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("runs", nargs="+", type=Path)
    options.add_argument("--data", type=Path, default=Path("../shared/ham10000"))
    options.add_argument("--without-metadata", action="store_true", help="corrupted images come without metadata")
    options.add_argument("--json", type=Path, help="write the figures of every RUN here")
    arguments = options.parse_args()
    records = read_dataset(arguments.data)
    found = []
    for run in arguments.runs:
        table = pd.read_csv(run / "predictions.csv")
        held = set(table.loc[table["split"] == "validation", "image_id"])
        rows = records.subset(records.table["image_id"].isin(held).to_numpy())
        predictor = dermafuse.load(run, mode="throughput")
        found.append(measure_robustness(predictor, rows, metadata=not arguments.without_metadata, report=Terminal()))
        print(json.dumps({"run": str(run), "mean_change": found[-1]["mean_change"]}), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(dict(zip(map(str, arguments.runs), found, strict=True)), indent=2))
    print(f"\n{len(found)} RUN(s), mean\n\n| images | " + " | ".join(FIGURES) + " |\n|---|" + "---|" * len(FIGURES))
    names = ["clean", *found[0]["change"]]
    for name in names:
        figures = " | ".join(f"{np.mean([each[name][figure] for each in found]):.3f}" for figure in FIGURES)
        print(f"| {name} | {figures} |")
    changes = " | ".join(f"{np.mean([each['mean_change'][figure] for each in found]):+.3f}" for figure in FIGURES)
    print(f"| mean change under corruption | {changes} |")


if __name__ == "__main__":
    main()
