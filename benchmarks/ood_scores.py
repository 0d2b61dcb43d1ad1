"""AUROC of the out-of-distribution scores: real lesions against photographs, noise, flat colours and synthetic lesions.

    python benchmarks/ood_scores.py --run RUN --data ../shared/ham10000 [--train 2000] [--validation 1000]

As in training: the scores are fitted on training rows, the run's tuning rows (RUN/predictions.csv) set the threshold
at 99 %, and its validation rows and all strangers are judged. Strangers: crops at four scales of the photographs that
scikit-image and scikit-learn bring along (no download), each at the size of the lesion images; four of them are
medical (a cell, stained tissue, two retinas) and counted a second time on their own.
"""

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import skimage
import sklearn
from PIL import Image
from sklearn.metrics import roc_auc_score

from dermafuse.data.images import load_image
from dermafuse.data.readers.read import read_dataset
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.runtime.batch.ordered import ordered_map
from dermafuse.runtime.bundle.folder import read_bundle
from dermafuse.runtime.bundle.schema import OutOfDistribution
from dermafuse.runtime.decision.ood_features import OOD_FEATURES, with_ood_features
from dermafuse.runtime.decision.out_of_distribution import (
    KEPT,
    FittedOod,
    fit_gaussian,
    fit_ood,
    fit_threshold,
    ood_scores,
)
from dermafuse.runtime.engine import Engine
from dermafuse.runtime.network import EMBEDDING, LOGITS, META_INPUT, inference_model

SIZE = (200, 150)
SCALES = (1.0, 0.75, 0.5, 0.33)
CROPS = 4
# Everything bundled that is a picture of something: no text page twice, no masks, no motion tests.
PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "cell.png",
    "chelsea.png",
    "china.jpg",
    "clock_motion.png",
    "coffee.png",
    "coins.png",
    "color.png",
    "flower.jpg",
    "grass.png",
    "gravel.png",
    "horse.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "microaneurysms.png",
    "moon.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
MEDICAL = ("cell.png", "ihc.png", "microaneurysms.png", "retina.jpg")


# Name, method, what it looks at (0 logits, 1 embedding, 2 middle features), directions (0: as a bundle has it).
SCORES = (
    ("knn, middle features", "knn", 2, 0),
    ("mahalanobis, middle features", "mahalanobis", 2, 0),
    ("knn, embedding", "knn", 1, 0),
    ("mahalanobis, embedding", "mahalanobis", 1, 0),
    ("mahalanobis, embedding, all directions", "mahalanobis", 1, 4096),
    ("energy, logits", "energy", 1, 0),
)


def photographs(rng: np.random.Generator, names: Iterable[str]) -> list[np.ndarray]:
    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.__file__).parent / "datasets" / "images")
    found = []
    for path in (folder / name for name in names for folder in folders):
        if not path.exists():
            continue
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        whole = min(image.width, image.height * 4 // 3)
        for scale in SCALES:
            for _ in range(1 if scale == 1.0 else CROPS):
                width, height = int(whole * scale), int(whole * scale * 0.75)
                left, top = rng.integers(0, image.width - width + 1), rng.integers(0, image.height - height + 1)
                found.append(np.asarray(image.crop((left, top, left + width, top + height)).resize(SIZE)))
    return found


def noise(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Half of it grain, half clouds of colour."""
    grain = [rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8) for _ in range(count // 2)]
    coarse = [Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)) for _ in range(count // 2)]
    return [*grain, *(np.asarray(image.resize(SIZE, Image.Resampling.BICUBIC)) for image in coarse)]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--run", type=Path, required=True, help="a RUN folder")
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--train", type=int, default=2000)
    options.add_argument("--validation", type=int, default=1000)
    options.add_argument("--threads", type=int, default=0)
    arguments = options.parse_args()

    bundle = read_bundle(arguments.run)
    model = with_ood_features(bundle.models[0])
    engine = Engine(inference_model(model, (LOGITS, EMBEDDING, OOD_FEATURES)), threads=arguments.threads)
    takes_meta = any(META_INPUT in port.get_names() for port in model.inputs)
    blank = bundle.encoder.absent()[np.newaxis]

    def look(image: object) -> tuple[np.ndarray, ...]:
        picture = load_image(image, bundle.image_size)[np.newaxis]  # type: ignore[arg-type]
        found = engine.infer(picture, blank) if takes_meta else engine.infer(picture)
        return tuple(part[0].copy() for part in found)

    def outputs(images: Iterable[object]) -> list[np.ndarray]:
        """Return logits, embeddings and middle features of images, one row each."""
        found = ordered_map(images, look, workers=engine.streams + 2)
        return [np.stack(parts) for parts in zip(*found, strict=True)]

    rng = np.random.default_rng(0)
    table = read_dataset(arguments.data).table
    predictions = pd.read_csv(arguments.run / "predictions.csv")
    split = table["image_id"].map(predictions.set_index("image_id")["split"])
    # Other images of validation lesions are left out of the fit: the question is about new lesions.
    held_lesions = set(table.loc[split.notna(), "lesion_id"])
    train_paths = table.loc[~table["lesion_id"].isin(held_lesions), "path"].to_numpy()
    held_paths = table.loc[split == "validation", "path"].to_numpy()
    tuning_paths = table.loc[split == "tuning", "path"].to_numpy()
    train_paths = rng.permutation(train_paths)[: arguments.train]
    held_paths = rng.permutation(held_paths)[: arguments.validation]
    if not len(tuning_paths):
        # Early stopping looked at all that was held out: the threshold takes every other row.
        tuning_paths, held_paths = held_paths[::2], held_paths[1::2]

    train, tuning, held = outputs(train_paths), outputs(tuning_paths), outputs(held_paths)
    with tempfile.TemporaryDirectory() as scratch:
        drawn = sorted(write_synthetic(Path(scratch) / "synthetic", lesions=150, seed=1).rglob("SYN_*.jpg"))
        strangers = {
            "photographs": outputs(photographs(rng, PHOTOGRAPHS)),
            "of them medical": outputs(photographs(rng, MEDICAL)),
            "noise": outputs(noise(rng, 100)),
            "flat colour": outputs([np.full((150, 200, 3), rng.integers(0, 256, 3), np.uint8) for _ in range(50)]),
            "synthetic lesions": outputs(drawn),
        }

    counts = f"{len(train[0]):,} training rows, {len(tuning[0]):,} for the threshold, {len(held[0]):,} judged"
    print(f"\n{arguments.run}: {counts}\n")
    names = [f"{name} (n={len(parts[0])})" for name, parts in strangers.items()]
    print(f"| score | {' | '.join(names)} | lesions flagged | kB |\n|---|{'---|' * (len(names) + 2)}")
    for label, method, look_at, rank in SCORES:
        if rank:  # for comparison only: all directions, which a bundle has no room for
            arrays = fit_gaussian(train[look_at], rank=rank)
            open_rule = OutOfDistribution(method="mahalanobis", threshold=0.0)
            scores = ood_scores(open_rule, arrays, tuning[0], tuning[look_at])
            rule = open_rule.model_copy(update={"threshold": fit_threshold(scores)})
            fitted = FittedOod(rule, arrays)
        else:
            fitted = fit_ood(train[look_at], tuning[look_at], tuning[0], method=method)
        inside = ood_scores(fitted.rule, fitted.arrays, held[0], held[look_at])
        cells = []
        for parts in strangers.values():
            outside = ood_scores(fitted.rule, fitted.arrays, parts[0], parts[look_at])
            truth = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
            auroc = roc_auc_score(truth, np.r_[inside, outside])
            cells.append(f"{auroc:.4f} ({np.mean(outside > fitted.rule.threshold):.0%} flagged)")
        size = sum(array.nbytes for array in fitted.arrays.values()) / 1000
        flagged = np.mean(inside > fitted.rule.threshold)
        print(f"| {label} | {' | '.join(cells)} | {flagged:.1%} | {size:.0f} |")
    print(f"\nAUROC, and the share flagged by a threshold that {KEPT:.0%} of held-out lesions stay under.")


if __name__ == "__main__":
    main()
