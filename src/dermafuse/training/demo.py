"""The demonstration: a small generated data set, trained, judged and shown, in about a minute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.records import SYNTHETIC_MARKER
from dermafuse.data.synthetic.dataset import write_synthetic
from dermafuse.errors import BundleError, OutputError
from dermafuse.files import check_output_folder, replace_folder
from dermafuse.progress import Reporter
from dermafuse.runtime.released import load
from dermafuse.temporaries import temporary_folder
from dermafuse.training.config import resolve
from dermafuse.training.start import check_packages, train

_LESIONS: Final = 400

#: In the run's folder: a generated lesion explained by the released model.
EXPLAINED: Final = "released-model-explained.png"


def run_demo(out: Path, *, seed: int, report: Reporter) -> Mapping[str, Any]:
    """Generate data, train Lite1 with the reference recipe on a leak-free split, and return the metrics.

    An earlier demo in ``out`` is replaced. The data are kept beside it, in ``<out>-data``: the report can be made
    again, and ``out/config.toml`` repeats the run.
    """
    check_packages()
    check_output_folder(out, overwrite=True)
    data = out.with_name(f"{out.name}-data").absolute()
    if data.exists() and not (data / SYNTHETIC_MARKER).exists():
        raise OutputError(f"{data} is in the way: the demo draws its data there; move it, or choose another --out.")
    report.warn("SYNTHETIC DATA: drawing lesions with a computer; the figures below say nothing about real ones.")
    with temporary_folder(data) as folder:
        write_synthetic(folder / "drawn", lesions=_LESIONS, seed=seed)
        replace_folder(folder / "drawn", data)
    options = {"data": str(data), "backbone": "efficientnet_lite1", "split": "lesion", "seed": seed}
    metrics = train(resolve("seed", options=options), out, resume=False, overwrite=True, report=report)
    explain_one(data, out / EXPLAINED, report)
    return metrics


def explain_one(data: Path, picture: Path, report: Reporter) -> None:
    """Explain one generated image with the model that comes with dermafuse, and write the picture.

    Where this installation has none, that is said and nothing is written.
    """
    from dermafuse.runtime.explain.overlay import save_overlay

    try:
        predictor = load()
    except BundleError as error:
        report.warn(f"Not shown: an explained prediction of the released model. {error}")
        return
    records = read_dataset(data)
    row = records.table[records.table["label"] == records.labels.critical].iloc[0]
    given = {name: row[name] for name in predictor.fields if name in row.index and row[name] == row[name]}
    save_overlay(row["path"], predictor.explain(row["path"], **given), picture)
