"""Starting a run: refuse what can be refused at once, before TensorFlow (seconds) is even loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermafuse.data.readers.read import read_training_data
from dermafuse.data.records import Records
from dermafuse.errors import ConfigError, DermafuseError
from dermafuse.files import cache_folder, check_output_folder, check_writable, nearest_path
from dermafuse.models.specs import spec
from dermafuse.models.weights import refuse_missing
from dermafuse.parallel import Part, Runner
from dermafuse.progress import Reporter
from dermafuse.runtime.engine import choose_precision
from dermafuse.training.claim import check_output, in_parts, is_finished, is_free, is_started, resumed, resumed_audits
from dermafuse.training.config import TrainConfig
from dermafuse.training.finished_folds import read_folds
from dermafuse.training.first_look import choose_split, draw_split, with_image_size
from dermafuse.training.partition import POOLED, front_path, plan_network
from dermafuse.training.tensorflow_setup import load_tensorflow, threads_of_a_part

if TYPE_CHECKING:
    from dermafuse.training.extract import Extracted


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    overwrite: bool,
    report: Reporter,
    audits: Sequence[str] = (),
    part: Part | None = None,
    runner: Runner | None = None,
) -> Mapping[str, Any]:
    """Check what is asked, then train; return the content of ``metrics.json``.

    Args:
        config: what to do.
        out: the RUN folder.
        resume: continue the unfinished run in ``out``, whose settings ``config`` may not contradict and whose audits
            are made too; where nothing is there, start. With ``overwrite``, start anew where no run is.
        overwrite: replace a run that is there.
        report: who is told the progress.
        audits: ``leakage`` and/or ``metadata``: measure that effect with further trainings of the recipe.
        part: train these folds of a cross-validation only, and return nothing; a call without joins all.
        runner: trains folds and members elsewhere (`dermafuse.cluster`); ``None``: here.

    Raises:
        DermafuseError: with one sentence that says what to do.
    """
    if part is not None or runner is not None:
        refuse_indivisible(config, part, overwrite=overwrite)
    # Parts are begun by whoever comes first; the same command goes on.
    resume = resume or (in_parts(out) and not overwrite) or (part is not None and is_started(out))
    if resume and not (overwrite and (is_finished(out) or not is_started(out))):
        config = resumed(out, config.model_dump()) or config
        audits = [*dict.fromkeys((*resumed_audits(out), *audits))]
        if is_free(out):
            report.say(f"{out} is not there yet: nothing to resume, starting.{nearest_path(out)}")
    _refuse_settings(config, out, audits)
    check_packages()
    check_output(out, resume=resume, overwrite=overwrite)
    config, records = readied(config, audits)
    if part is not None or runner is not None:
        from dermafuse.training.spread import begin_parts, train_elsewhere

        begin_parts(config, out, overwrite=overwrite)
        resume, overwrite = True, False
        if runner is not None:
            train_elsewhere(config, out, records, runner, report, threads=threads_of(config))
    load_tensorflow(threads=threads_of(config))
    if config.folds:
        from dermafuse.training.cross_validation import cross_validate

        return cross_validate(
            config, out, resume=resume, overwrite=overwrite, report=report, records=records, part=part
        )
    if config.members:
        from dermafuse.training.ensemble import train_ensemble

        return train_ensemble(config, out, resume=resume, overwrite=overwrite, report=report, records=records).metrics
    from dermafuse.training.experiment import train_run

    return train_run(
        config, out, resume=resume, overwrite=overwrite, report=report, audits=audits, records=records
    ).metrics


def _refuse_settings(config: TrainConfig, out: Path | None, audits: Sequence[str] = ()) -> None:
    """Refuse what can be refused without looking at the data."""
    if not config.data:
        raise ConfigError("No data named; add --data DATA (a folder with images and table).")
    if not Path(config.data).exists():
        raise ConfigError(f"The data {config.data} does not exist; check the path.{nearest_path(Path(config.data))}")
    # Both are written into the RUN's files, as text.
    for name, path in (("data", config.data), ("output", str(out or ""))):
        if any("\udc80" <= character <= "\udcff" for character in path):
            raise ConfigError(f"The name of the {name} folder {path} is not UTF-8; rename it.")
    if config.folds and audits:
        raise ConfigError("An audit belongs to a single run; leave out --folds.")
    if config.members and audits:
        raise ConfigError("An audit belongs to a single network; add --set members=[].")
    if config.teacher and config.folds:
        raise ConfigError("A teacher held out the lesions of one split, not those of every fold; leave out --folds.")
    if config.teacher:
        from dermafuse.training.teacher import check_teacher

        check_teacher(Path(config.teacher))
    for backbone in config.members or (config.backbone,):
        known = spec(backbone)
        if config.unfreeze_from not in (None, "all"):
            known.stage_index(str(config.unfreeze_from))


def refuse_indivisible(config: TrainConfig, part: Part | None, *, overwrite: bool) -> None:
    """Refuse to divide or spread a training that is one piece (``part``: none of several was asked for).

    Raises:
        ConfigError: with one sentence that says what to do.
    """
    if part is not None and config.folds < 2:
        raise ConfigError("--shard divides the folds of a cross-validation; add --folds K (extract divides images).")
    if part is not None and overwrite:
        raise ConfigError("--overwrite would throw away the parts that others have finished; remove the folder first.")
    if part is None and config.folds < 2 and not config.members:
        raise ConfigError("--cluster spreads folds or members of an ensemble; add --folds K, or --recipe best.")


def readied(config: TrainConfig, audits: Sequence[str] = ()) -> tuple[TrainConfig, Records]:
    """Return the configuration with everything decided that ``auto`` left open, and the data, which can be split so.

    Raises:
        DermafuseError: the cache cannot be written, weights are missing, or the data cannot be used.
    """
    check_writable(cache_folder(), "set DERMAFUSE_CACHE to a folder you can write to")
    _check_weights(config)
    records = read_training_data(Path(config.data))
    choose_split(records, config, 0 if config.folds else None)
    if "leakage" in audits:
        for split in ("image", "lesion"):
            draw_split(records, config.model_copy(update={"split": split}))
    return with_image_size(config, records).model_copy(
        update={"precision": choose_precision(config.precision)}
    ), records


def extract(
    config: TrainConfig, *, report: Reporter, part: Part | None = None, runner: Runner | None = None
) -> Extracted:
    """Check what is asked, then fill the activation store for a training (`dermafuse.training.extract`).

    Raises:
        DermafuseError: with one sentence that says what to do.
    """
    _refuse_settings(config, None)
    check_packages()
    config, records = readied(config)
    from dermafuse.training.extract import extract_features

    return extract_features(config, records, report, part=part, runner=runner)


def release_bundle(cross_validation: Path, out: Path, *, overwrite: bool, report: Reporter) -> None:
    """Check what is asked, then train the recipe of a cross-validation on all lesions (``training.release``).

    Raises:
        DermafuseError: with one sentence that says what to do.
    """
    check_output_folder(out, overwrite=overwrite)
    finished = read_folds(cross_validation)
    check_packages()
    _check_weights(finished.config)
    load_tensorflow(threads=threads_of_a_part())
    from dermafuse.training.release import release

    release(finished, out, overwrite=overwrite, report=report)


def threads_of(config: TrainConfig) -> int:
    """Return on how many threads one operation of TensorFlow runs best; 0: TensorFlow's choice."""
    if not config.cache or config.unfreeze_from == "all":
        return 0
    # The operations of a head on pooled features are too small to share: one thread each is 1.5 times faster.
    return 1 if config.unfreeze_from is None else threads_of_a_part()


def _check_weights(config: TrainConfig) -> None:
    """Refuse weights that are needed and missing; a converted front in the cache needs none where nothing else does."""
    for backbone in config.members or (config.backbone,):
        size = 0 if config.image_size == "auto" else config.image_size  # the images have not been looked at yet
        one = config.model_copy(update={"backbone": backbone, "image_size": size})
        plan = plan_network(one)
        if plan.cut != POOLED or not front_path(plan).is_file():
            refuse_missing(backbone, config.weights)


def check_packages() -> None:
    """Refuse to train without the packages that training needs; loads none of them.

    Raises:
        DermafuseError: says how to install them.
    """
    for package in ("tensorflow", "keras"):
        if importlib.util.find_spec(package) is None:
            raise DermafuseError(f'Training needs {package}; run: pip install "dermafuse[train]".')
