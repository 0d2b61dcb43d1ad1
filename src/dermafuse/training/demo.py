"""The demonstration: a small generated data set, trained, judged and shown, in about a minute."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dermafuse.data.synthetic import write_synthetic
from dermafuse.files import check_output_folder
from dermafuse.progress import Reporter
from dermafuse.training.config import resolve
from dermafuse.training.start import train

_LESIONS: Final = 400


def run_demo(out: Path, *, seed: int, report: Reporter) -> Mapping[str, Any]:
    """Generate data, train Lite1 with the reference recipe on a leak-free split, and return the metrics.

    An earlier demo in ``out`` is replaced.
    """
    check_output_folder(out, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="dermafuse-demo-") as folder:
        report.warn("SYNTHETIC DATA: drawing lesions with a computer; the figures below say nothing about real ones.")
        data = write_synthetic(Path(folder) / "synthetic", lesions=_LESIONS, seed=seed)
        config = resolve(
            "seed",
            options={"data": str(data), "backbone": "efficientnet_lite1", "split": "lesion", "seed": seed},
        )
        return train(config, out, resume=False, overwrite=True, report=report)
