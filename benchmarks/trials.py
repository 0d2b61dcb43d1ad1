"""Trials for recipes standard and strong at real size, inside the training lesions of one fold, against the recipe.

    python benchmarks/trials.py --out runs/trials [--inside-fold 1] [--only NAME ...]

Each trial is a RUN under OUT; one that is there is not trained again, so an interrupted series goes on. The table gives
figures, paired differences to the recipe (bootstrap over lesions), the AUROC for melanoma by the share of the frame
that the lesion covers (from the masks), and the seconds of extraction and training. One training each: a difference
within its interval says nothing. `dermafuse compare OUT/base OUT/NAME` shows a pair in full.
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

import dermafuse
from ablation import row, train, training_lesions, validation_rows
from dermafuse.data.readers.read import read_dataset
from dermafuse.evaluation.explanation_quality import find_masks, load_mask
from dermafuse.evaluation.prediction_rows import read_rows
from dermafuse.evaluation.predictions import Scored
from dermafuse.evaluation.robustness import queries
from dermafuse.runs import read_metrics
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.decision.temperature import apply, fit_temperature
from dermafuse.training.decision_rule import fit_offsets

#: Name -> settings that differ from recipe standard.
TRIALS: dict[str, tuple[str, ...]] = {
    "px260": ("image_size=260",),
    "px240e20": ("image_size=240", "epochs=20", "patience=20"),
    "last": ("monitor=last",),
    "e18 last": ("epochs=18", "monitor=last"),
    "e24": ("epochs=24", "patience=24"),
    "e40": ("epochs=40", "patience=40"),
    "e24 mixup": ("epochs=24", "patience=24", "mixup=0.2"),
    "lite2": ("backbone=efficientnet_lite2",),
}

#: Nothing is trained: the base's probabilities averaged over flips and turns, temperature and offsets fitted to them.
EIGHT_VIEWS = "eight views, temperature and offsets refitted"

#: Shares of the frame between which the AUROC for melanoma is given.
AREAS = (0.0, 0.08, 0.30, 1.0)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--data", default="../shared/ham10000")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--inside-fold", type=int, default=1)
    options.add_argument("--only", nargs="*", help="trials of these names; none: the base and its eight views")
    arguments = options.parse_args()
    arguments.set = []
    masks = find_masks(Path(arguments.data))
    arguments.out.mkdir(parents=True, exist_ok=True)
    arguments.data = str(training_lesions(Path(arguments.data), arguments.inside_fold, arguments.out / "data"))
    base = train(arguments, "base", ())
    theirs = validation_rows(base)
    areas = np.array([load_mask(masks[image]).mean() for image in theirs.image_id])
    bands = [f"mel {low:.0%} to {high:.0%}" for low, high in itertools.pairwise(AREAS)]
    heads = ("accuracy", "balanced accuracy", "macro F1", "macro AUROC", *bands, "seconds")
    print("| trial | " + " | ".join(heads) + " |\n|---|" + "---|" * len(heads))
    print(line("none", theirs, theirs, areas, base, arguments.seed), flush=True)
    print(line(EIGHT_VIEWS, eight_views(base, arguments.data), theirs, areas, None, arguments.seed), flush=True)
    for name, settings in TRIALS.items():
        if arguments.only is None or name in arguments.only:
            run = train(arguments, name, settings)
            print(line(name, validation_rows(run), theirs, areas, run, arguments.seed), flush=True)


def line(name: str, mine: Scored, theirs: Scored, areas: np.ndarray, run: Path | None, seed: int) -> str:
    """Return a line of the table; ``areas`` belong to the rows of ``theirs``."""
    mine = mine.take(pd.Index(mine.image_id).get_indexer(pd.Index(theirs.image_id)))
    melanoma = mine.classes.index("mel")
    cells = []
    for low, high in itertools.pairwise(AREAS):
        inside = (areas > low) & (areas <= high)
        positive = mine.true[inside] == melanoma
        cells.append(f"{roc_auc_score(positive, mine.probabilities[inside, melanoma]):.3f} ({positive.sum()})")
    taken = {} if run is None else read_metrics(run)["seconds"]
    cells.append(f"{taken['extract']:.0f} + {taken['train']:.0f}" if taken else "")
    return f"{row(name, mine, theirs, seed)} {' | '.join(cells)} |"


def eight_views(run: Path, data: str) -> Scored:
    """Return the validation rows of a RUN, averaged over eight views, with temperature and offsets fitted to that."""
    records = read_dataset(Path(data))
    model = dermafuse.load(run, mode="throughput")
    fields = [field for field in model.fields if field in records.table.columns]
    index = pd.Index(records.table["image_id"])
    answers = {}
    sides = read_rows(run / "predictions.csv", tuple(model.bundle.classes))
    for name, rows in sides.items():
        chosen = records.subset(index.get_indexer(pd.Index(rows.image_id)))
        found = list(model.stream(queries(chosen, fields), views=8))
        answers[name] = np.log([list(answer.probabilities.values()) for answer in found]).astype(np.float32)
    tuning, validation = sides["tuning"], sides["validation"]
    temperature = fit_temperature(answers["tuning"], tuning.true)
    held_out = {*tuning.image_id, *validation.image_id}
    counts = records.table["label"][~records.table["image_id"].isin(held_out)].value_counts()
    priors = np.array([counts[code] for code in tuning.classes]) / counts.sum()
    offsets = fit_offsets(apply(answers["tuning"], temperature), priors)
    probabilities = apply(answers["validation"], temperature)
    return replace(validation, probabilities=probabilities, predicted=choose_labels(probabilities, offsets))


if __name__ == "__main__":
    main()
