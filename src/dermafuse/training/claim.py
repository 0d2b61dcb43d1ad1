"""Whether a run may be written to a folder: asked before TensorFlow is loaded and the data are read."""

from __future__ import annotations

from pathlib import Path

from dermafuse.errors import OutputError
from dermafuse.files import check_output_folder, check_writable

#: Folder of partial work inside RUN.
CHECKPOINTS = "checkpoints"


def check_output(out: Path, *, resume: bool, overwrite: bool) -> bool:
    """Return whether ``out`` holds an unfinished run (or cross-validation) that is to be continued or replaced.

    Raises:
        OutputError: a finished run is there and may not be replaced, or an unfinished one and neither
            ``resume`` nor ``overwrite`` says what to do with it, or nothing can be written there.
    """
    started = (out / CHECKPOINTS).is_dir() or any(out.glob("fold-*"))
    unfinished = started and not (out / "metrics.json").exists()
    if unfinished and not resume and not overwrite:
        raise OutputError(f"{out} holds an unfinished run; add --resume to continue it, or --overwrite to start again.")
    if unfinished:
        check_writable(out.absolute().parent)
        check_writable(out)
    else:
        check_output_folder(out, overwrite=overwrite)
    return unfinished
