"""One factor at a time: recipe standard with one setting changed, on the same fold, against the recipe as it is.

    python benchmarks/ablation.py --out runs/ablation [--inside-fold 1] [--set unfreeze_from=block7 --set epochs=8]
        [--only weights sampling ...]

Each variant is a RUN under OUT; one that is there is not trained again, so an interrupted ablation goes on. The table
gives each variant's figures and its paired difference to the base, with 95 % cluster-bootstrap intervals. `--set` makes
the base cheaper; what holds there is taken to hold for the recipe.
"""

import argparse
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

import dermafuse
from dermafuse.data.random_views import VIEW_CHANGES
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.splits import make_folds
from dermafuse.evaluation.intervals import paired_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.robustness import queries
from dermafuse.labels import HAM10000
from dermafuse.training.config import resolve

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")

#: Name -> settings that differ from the base.
VARIANTS: dict[str, tuple[str, ...]] = {
    "no class sampling": ("sampling_power=0",),
    "inverse-square-root class weights instead of sampling": ("sampling_power=0", "class_weighting=inverse_sqrt"),
    "balanced class weights instead of sampling": ("sampling_power=0", "class_weighting=balanced"),
    "effective-number weights instead of sampling": ("sampling_power=0", "class_weighting=effective_number"),
    "classes equally often": ("sampling_power=1",),
    "focal loss, gamma 2": ("focal_gamma=2",),
    "logit adjustment 0.5 instead of sampling": ("sampling_power=0", "logit_adjustment=0.5"),
    "logit adjustment 1 (balanced softmax) instead of sampling": ("sampling_power=0", "logit_adjustment=1"),
    "LDAM, deferred weighting instead of sampling": (
        "sampling_power=0",
        "margin=0.5",
        "class_weighting=balanced",
        "deferred_weighting=0.7",
    ),
    "label smoothing 0.1": ("label_smoothing=0.1",),
    "FiLM": ("fusion=film",),
    "gated fusion": ("fusion=gated",),
    "MetaBlock": ("fusion=metablock",),
    "cross-attention": ("fusion=cross_attention",),
    "image only": ("fusion=image_only",),
    "metadata only": ("fusion=metadata_only", "unfreeze_from=none", "views=1", "random_views=0"),
    "frozen backbone": ("unfreeze_from=none",),
    "no metadata dropout": ("metadata_dropout=0", "field_dropout=0"),
    "no missing indicators": ("missing_indicators=false",),
    "no weight averaging": ("ema=0",),
    "longer weight averaging (0.998)": ("ema=0.998",),
    "no weight decay": ("weight_decay=0",),
    "constant rate": ("schedule=constant", "warmup_epochs=0"),
    "no warm-up": ("warmup_epochs=0",),
    "half the epochs": ("epochs={half}",),
    "depthwise kernels trained too": ("train_depthwise=true",),
    "no augmentation": ("views=1", "random_views=0"),
    "flips and turns only": ("views=8", "random_views=0"),
    "4 flips and 8 random views of each image, again and again": ("views=4", "random_views=8"),
    "mixup 0.2": ("mixup=0.2",),
    "CutMix 1": ("cutmix=1",),
    **{
        f"random views without {left}": (f"view_changes={[change for change in VIEW_CHANGES if change != left]}",)
        for left in VIEW_CHANGES
    },
}

#: Other uses of the base's model: nothing is trained.
USES = ("largest probability decides", "eight views averaged at prediction")


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", default="../shared/ham10000")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seed", type=int, default=0, help="of split and training")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the base")
    options.add_argument("--only", nargs="+", help="variants whose name contains one of these")
    options.add_argument(
        "--inside-fold",
        type=int,
        metavar="N",
        help="use only the training lesions of fold N of 5: choices then touch no image that the fold reports",
    )
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.inside_fold:
        arguments.data = str(training_lesions(Path(arguments.data), arguments.inside_fold, arguments.out / "data"))
    base = train(arguments, "base", ())
    names = [name for name in VARIANTS if not arguments.only or any(part in name for part in arguments.only)]
    print("| change | " + " | ".join(FIGURES) + " |\n|---|" + "---|" * len(FIGURES))
    base_figures = figures(validation_rows(base)).values()
    print("| none | " + " | ".join(f"{value:.3f}" for value in base_figures) + " |", flush=True)
    for name in USES if not arguments.only else ():
        print(row(name, used(name, base, arguments.data), validation_rows(base), arguments.seed), flush=True)
    for name in names:
        mine = validation_rows(train(arguments, name, VARIANTS[name]))
        print(row(name, mine, validation_rows(base), arguments.seed), flush=True)


def training_lesions(data: Path, fold: int, folder: Path) -> Path:
    """Leave the training lesions of a fold of `train --folds 5` as a data set of its own: a table, and links."""
    records = read_dataset(data)
    ids = set(records.subset(make_folds(records, by="lesion", k=5, seed=0)[fold - 1].train).table["image_id"])
    folder.mkdir(exist_ok=True)
    (table,) = data.glob("*metadata*.csv")
    rows = pd.read_csv(table, dtype=str, keep_default_na=False)
    rows[rows["image_id"].isin(ids)].to_csv(folder / table.name, index=False)
    for images in data.glob("*images*"):
        if not (folder / images.name).exists():
            (folder / images.name).symlink_to(images.resolve())
    return folder


def train(arguments: argparse.Namespace, name: str, settings: tuple[str, ...]) -> Path:
    """Train one variant unless its RUN is there; return the RUN."""
    out = arguments.out / re.sub("[^a-z0-9.]+", "-", name.lower())
    if (out / "metrics.json").exists():
        return out
    command = [sys.executable, "-c", "from dermafuse.cli import main; raise SystemExit(main())", "train"]
    command += [
        "--data",
        arguments.data,
        "--seed",
        str(arguments.seed),
        "--out",
        str(out),
        *(["--resume"] if out.exists() else []),
    ]
    chosen = (*arguments.set, *settings, "report=false", "uncertainty=false")
    for setting in chosen:
        command += ["--set", setting.format(half=resolve("standard", assignments=arguments.set).epochs // 2)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def validation_rows(run: Path) -> Scored:
    """Return the validation predictions of a RUN."""
    return read_rows(run / "predictions.csv", HAM10000.codes)["validation"]


def used(name: str, base: Path, data: str) -> Scored:
    """Return the validation predictions of the base's model under one of ``USES``."""
    rows = validation_rows(base)
    if name == USES[0]:
        return replace(rows, predicted=rows.probabilities.argmax(axis=1))
    records = read_dataset(Path(data))
    records = records.subset(pd.Index(records.table["image_id"]).get_indexer(pd.Index(rows.image_id)))
    model = dermafuse.load(base, mode="throughput")
    fields = [field for field in model.fields if field in records.table.columns]
    answers = list(model.stream(queries(records, fields), views=8))
    return replace(
        rows,
        probabilities=np.array([list(answer.probabilities.values()) for answer in answers]),
        predicted=np.array([HAM10000.codes.index(answer.label) for answer in answers]),
    )


def figures(rows: Scored) -> dict[str, float]:
    """Return the figures of some predictions."""
    block = evaluate_predictions(rows.true, rows.probabilities, rows.classes, predicted=rows.predicted)
    return {figure: block[figure] for figure in FIGURES}


def row(name: str, mine: Scored, theirs: Scored, seed: int) -> str:
    """Return a line of the table."""
    mine = mine.take(pd.Index(mine.image_id).get_indexer(pd.Index(theirs.image_id)))
    found = paired_bootstrap(
        theirs.true,
        mine.probabilities,
        theirs.probabilities,
        theirs.lesion_id,
        theirs.classes,
        seed=seed,
        predicted_a=mine.predicted,
        predicted_b=theirs.predicted,
    )
    cells = [
        f"{value:.3f}, {found[figure]['difference']:+.3f} ({found[figure]['low']:+.3f} to {found[figure]['high']:+.3f})"
        for figure, value in figures(mine).items()
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
