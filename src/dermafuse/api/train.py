"""``df.train``: what ``dermafuse train`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dermafuse.api.data import Data, path_of
from dermafuse.api.reporting import reporter
from dermafuse.api.run import Run
from dermafuse.parallel import Runner
from dermafuse.progress import Reporter


def train(
    data: Data,
    *,
    out: str | Path,
    recipe: str | None = None,
    folds: int | None = None,
    audits: Sequence[Literal["leakage", "metadata"]] = (),
    resume: bool = False,
    overwrite: bool = False,
    track: str | None = None,
    progress: bool | Reporter = True,
    **settings: Any,
) -> Run:
    """Train and evaluate a model, and leave a RUN folder.

    ``df.train(out="AGAIN", **run.config)`` repeats a run.

    Args:
        data: a path, or what `read_dataset` returned.
        out: the folder to make.
        recipe: ``standard`` (the default), ``seed``, ... (``dermafuse train --help`` lists them).
        folds: cross-validate: so many runs in ``out/fold-1`` ...
        audits: measure what leakage, or what metadata, adds with further trainings.
        resume: continue the unfinished run in ``out``, or start one where there is none.
        overwrite: replace the run in ``out``.
        track: also hand the finished run to ``tensorboard``, ``mlflow`` or a folder (`dermafuse.training.trackers`).
        progress: ``True``: told on stderr; ``False``: to ``logging`` alone; or a reporter of your own.
        settings: any setting of ``config.toml``, such as ``epochs=5``; ``unfreeze_from=None``: nothing is unfrozen.

    Raises:
        ConfigError: an unknown recipe or setting, or a value that is not possible.
        DataError: the data cannot be used. WeightsError: the backbone's weights are missing.
        OutputError: ``out`` is there already, or cannot be written.

    Example:
        >>> import dermafuse as df
        >>> small = dict(backbone="efficientnet_lite0", weights="random", image_size=64, epochs=1, report=False)
        >>> run = df.train(data, out=folder / "RUN", recipe="seed", progress=False, **small)
        >>> run.kind, list(run.history["epoch"]), 0.0 <= run.metrics["validation"]["accuracy"] <= 1.0
        ('run', [1], True)
    """
    # None is a value here ("nothing"), not an option that was left out.
    options = {name: "none" if value is None else value for name, value in settings.items()}
    options |= {"data": str(path_of(data).resolve()), "folds": folds}
    return train_as_asked(
        Path(out),
        {"recipe": recipe, "options": options},
        audits=audits,
        resume=resume,
        overwrite=overwrite,
        track=track,
        report=reporter(progress),
    )


def train_as_asked(
    out: Path,
    named: Mapping[str, Any],
    *,
    audits: Sequence[str],
    resume: bool,
    overwrite: bool,
    report: Reporter,
    track: str | None = None,
    runner: Runner | None = None,
) -> Run:
    """Train, or open the finished run that was to be resumed: ``df.train`` and ``dermafuse train``.

    Args:
        out: the RUN folder.
        named: what was named of the settings: arguments of `dermafuse.training.config.resolve`.
        audits: ``leakage``, ``metadata``.
        resume: continue the unfinished run in ``out``.
        overwrite: replace the run in ``out``.
        report: who is told the progress.
        track: ``tensorboard``, ``mlflow`` or a folder.
        runner: trains folds and members elsewhere (`dermafuse.cluster`); ``None``: here.

    Raises:
        DermafuseError: with one sentence that says what to do.
    """
    from dermafuse.training.claim import is_finished, resumed
    from dermafuse.training.config import asked, resolve
    from dermafuse.training.start import train as start
    from dermafuse.training.trackers import check_tracker
    from dermafuse.training.trackers import track as hand_over

    if track is not None:
        check_tracker(track)
    config = resumed(out, asked(**named)) if resume and not overwrite else None
    if config is not None and is_finished(out):
        report.say(f"{out} is finished already: there is nothing to resume.")
    else:
        start(
            config or resolve(**named),
            out,
            resume=resume,
            overwrite=overwrite,
            report=report,
            audits=audits,
            runner=runner,
        )
    run = Run.open(out)
    if track is not None:
        hand_over(run, track, report)
    return run
