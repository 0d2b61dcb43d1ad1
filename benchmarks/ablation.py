"""One factor at a time: recipe standard with one setting changed, on the same fold, against the recipe as it is.

    python benchmarks/ablation.py --out runs/ablation [--set unfreeze_from=block7 --set epochs=8]
        [--only weights sampling ...]

Each variant is a RUN under OUT; one that is there is not trained again, so an interrupted ablation goes on. The table
gives each variant's figures and its paired difference to the base, with 95 % cluster-bootstrap intervals. `--set` makes
the base cheaper; what holds there is taken to hold for the recipe.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import pandas as pd

from dermafuse.diagnoses import CODES
from dermafuse.evaluation.intervals import paired_bootstrap
from dermafuse.evaluation.metrics import evaluate_predictions
from dermafuse.evaluation.prediction_rows import read_rows

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")

#: Name -> settings that differ from the base.
VARIANTS: dict[str, tuple[str, ...]] = {
    "no class sampling": ("sampling_power=0",),
    "inverse-square-root class weights instead of sampling": ("sampling_power=0", "class_weighting=inverse_sqrt"),
    "balanced class weights instead of sampling": ("sampling_power=0", "class_weighting=balanced"),
    "effective-number weights instead of sampling": ("sampling_power=0", "class_weighting=effective_number"),
    "balanced sampling": ("sampling_power=1",),
    "focal loss, gamma 2": ("focal_gamma=2",),
    "logit adjustment instead of sampling": ("sampling_power=0", "logit_adjustment=0.5"),
    "LDAM, deferred weighting instead of sampling": (
        "sampling_power=0", "margin=0.5", "class_weighting=balanced", "deferred_weighting=0.7",
    ),
    "label smoothing 0.1": ("label_smoothing=0.1",),
    "mixup 0.2": ("mixup=0.2",),
    "no augmentation": ("views=1", "random_views=0"),
    "flips and turns only": ("views=8", "random_views=0"),
    "random views only": ("views=1",),
    "FiLM": ("fusion=film",),
    "gated fusion": ("fusion=gated",),
    "MetaBlock": ("fusion=metablock",),
    "cross-attention": ("fusion=cross_attention",),
    "image only": ("fusion=image_only",),
    "no metadata dropout": ("metadata_dropout=0", "field_dropout=0"),
    "no weight averaging": ("ema=0",),
    "no weight decay": ("weight_decay=0",),
    "constant rate": ("schedule=constant",),
    "argmax decision": ("decision=argmax",),
}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", default="../shared/ham10000")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seed", type=int, default=0, help="of split and training")
    options.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the base")
    options.add_argument("--only", nargs="+", help="variants whose name contains one of these")
    arguments = options.parse_args()
    base = train(arguments, "base", ())
    names = [name for name in VARIANTS if not arguments.only or any(part in name for part in arguments.only)]
    print("| change | " + " | ".join(FIGURES) + " |\n|---|" + "---|" * len(FIGURES))
    print("| none | " + " | ".join(f"{value:.3f}" for value in figures(base).values()) + " |", flush=True)
    for name in names:
        print(row(name, train(arguments, name, VARIANTS[name]), base, arguments.seed), flush=True)


def train(arguments: argparse.Namespace, name: str, settings: tuple[str, ...]) -> Path:
    """Train one variant unless its RUN is there; return the RUN."""
    out = arguments.out / name.replace(" ", "-").replace(",", "")
    if (out / "metrics.json").exists():
        return out
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", "from dermafuse.cli import main; raise SystemExit(main())", "train"]
    command += ["--data", arguments.data, "--seed", str(arguments.seed), "--out", str(out), "--resume"]
    for setting in (*arguments.set, *settings, "report=false", "uncertainty=false"):
        command += ["--set", setting]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def figures(run: Path) -> dict[str, float]:
    """Return the figures of the validation rows."""
    rows = read_rows(run / "predictions.csv", CODES)["validation"]
    block = evaluate_predictions(rows.true, rows.probabilities, rows.classes, predicted=rows.predicted)
    return {figure: block[figure] for figure in FIGURES}


def row(name: str, run: Path, base: Path, seed: int) -> str:
    """Return a line of the table."""
    mine, theirs = (read_rows(each / "predictions.csv", CODES)["validation"] for each in (run, base))
    order = pd.Index(mine.image_id).get_indexer(theirs.image_id)
    mine = mine.take(order)
    found = paired_bootstrap(
        theirs.true, mine.probabilities, theirs.probabilities, theirs.lesion_id, theirs.classes,
        seed=seed, predicted_a=mine.predicted, predicted_b=theirs.predicted,
    )  # fmt: skip
    cells = [
        f"{value:.3f}, {found[figure]['difference']:+.3f} ({found[figure]['low']:+.3f} to {found[figure]['high']:+.3f})"
        for figure, value in figures(run).items()
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
