"""Networks in 8-bit integers (NNCF post-training quantization), refused where they lose accuracy.

Weights and activations of the convolutions become int8; ranges of activations are measured on training images.
The stem, the first depthwise convolution and the dense layers behind the pooled features stay as they are.
Measured on a trained Lite1: with all convolutions in int8, 8 % of the images get another class than in float32
(mean cosine of the features 0.982); with the first two in float and exact bias correction, 4 % (0.997), and it is
no slower. Where the plain result loses too much on the validation rows, layers go back to floating point
one by one (NNCF's accuracy control) until it does not; where that does not help, there is no int8 model.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov

from dermafuse.data.images import load_image
from dermafuse.errors import ConfigError, OutputError
from dermafuse.exporters.quantize_gate import Decider, LabelledImages, Scores, drop, figures, scores_of, side_of
from dermafuse.progress import Reporter
from dermafuse.runtime.bundle.folder import Bundle
from dermafuse.runtime.decision.rule import choose_labels
from dermafuse.runtime.decision.temperature import apply
from dermafuse.runtime.network import IMAGE_INPUT, LOGITS, META_INPUT

#: How much of either measure int8 may cost, as a share (0.01: one point).
MAX_DROP: Final = 0.01

#: Training images that the ranges of the activations are measured on (NNCF's own default).
CALIBRATION_IMAGES: Final = 300

#: Convolutions at the start of a network that stay in floating point: stem and first depthwise one.
FLOAT_CONVOLUTIONS: Final = 2


@dataclass(frozen=True, eq=False)
class Quantized:
    """An int8 model that passed the gate.

    Attributes:
        models: one network a member, same inputs and outputs as before.
        before: scores of the model in f32 on the validation rows.
        after: of the int8 model.
        report: the same and how it came about, as plain JSON.
    """

    models: tuple[ov.Model, ...]
    before: Scores
    after: Scores
    report: dict[str, Any]


def quantize(
    bundle: Bundle, calibration: LabelledImages, validation: LabelledImages, report: Reporter, *, subset: int = 300
) -> Quantized:
    """Return the bundle's networks in int8 where the validation rows lose at most one point by it.

    Args:
        bundle: the model.
        calibration: training rows; an even sample of them is used.
        validation: rows that the model did not learn from.
        report: who is told the progress.
        subset: validation rows that accuracy control ranks the layers on.

    Raises:
        ConfigError: NNCF is not installed.
        OutputError: balanced accuracy or the critical class's sensitivity drops by more than a point whatever is
            tried; says the figures.
        ImageError: a row's image cannot be read.
    """
    load_nncf()
    before = Decider(bundle, bundle.models).scores(validation)
    rows = _calibration_rows(calibration)
    report.say(f"int8: measuring activations on {len(rows)} training images.")
    models = to_int8(bundle, calibration)
    after = Decider(bundle, models).scores(validation)
    controlled = drop(before, after) > MAX_DROP
    if controlled:
        report.say(f"int8: {figures(before, after, bundle.labels)}; looking for the layers that cost most.")
        models = tuple(
            _with_control(bundle, index, calibration, validation, before, subset) for index in range(len(bundle.models))
        )
        after = Decider(bundle, models).scores(validation)
    if drop(before, after) > MAX_DROP:
        raise OutputError(
            f"No int8 model was written: {figures(before, after, bundle.labels)} on {len(validation):,} validation "
            f"rows, and more than {100 * MAX_DROP:g} point is too much; export without --int8."
        )
    report.say(f"int8: {figures(before, after, bundle.labels)} on {len(validation):,} validation rows.")
    return Quantized(
        models,
        before,
        after,
        {
            "calibration_images": len(rows),
            "validation_rows": len(validation),
            "before": before.to_json(bundle.labels),
            "after": after.to_json(bundle.labels),
            "largest_drop_allowed": MAX_DROP,
            "accuracy_control": controlled,
        },
    )


def to_int8(bundle: Bundle, calibration: LabelledImages) -> tuple[ov.Model, ...]:
    """Return the bundle's networks in int8, unjudged: `quantize` is for models that are to be used.

    Raises:
        ConfigError: NNCF is not installed.
        ImageError: a row's image cannot be read.
    """
    nncf = load_nncf()
    rows = _calibration_rows(calibration)
    models = []
    for model in bundle.models:
        items = nncf.Dataset(rows, _feeder(model, calibration))
        with _own_progress():
            models.append(nncf.quantize(model.clone(), items, subset_size=len(rows), **_settings(nncf, model)))
    return tuple(models)


def load_nncf() -> Any:
    """Import NNCF, quiet and without its telemetry.

    Raises:
        ConfigError: it is not installed.
    """
    # NNCF reports its use to a foreign server unless told otherwise before it is imported. This is how.
    os.environ.setdefault("NNCF_CI", "1")
    try:
        import nncf
    except ModuleNotFoundError as error:
        raise ConfigError('int8 needs NNCF; run: pip install "dermafuse[export]".') from error
    nncf.set_log_level(logging.ERROR)
    return nncf


def _calibration_rows(calibration: LabelledImages) -> list[int]:
    chosen = np.linspace(0, len(calibration) - 1, CALIBRATION_IMAGES).astype(np.int64)
    return [int(row) for row in np.unique(chosen)]


def _settings(nncf: Any, model: ov.Model) -> dict[str, Any]:
    convolutions = [
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() in ("Convolution", "GroupConvolution")
    ]
    return {
        # Symmetric throughout: faster than asymmetric activations, and as accurate on every network measured.
        "preset": nncf.QuantizationPreset.PERFORMANCE,
        "fast_bias_correction": False,
        # All matrix products belong to the head.
        "ignored_scope": nncf.IgnoredScope(names=convolutions[:FLOAT_CONVOLUTIONS], types=["MatMul"], validate=False),
    }


def _with_control(
    bundle: Bundle,
    index: int,
    calibration: LabelledImages,
    validation: LabelledImages,
    before: Scores,
    subset: int,
) -> ov.Model:
    """Return a member with as many layers in int8 as the gate allows, judged on its own."""
    nncf = load_nncf()
    rows = _calibration_rows(calibration)
    model = bundle.models[index]
    feed = _feeder(model, validation)
    alone = before if len(bundle.models) == 1 else Decider(bundle, [model]).scores(validation)

    def judge(compiled: Any, items: Any) -> tuple[float, list[list[npt.NDArray[Any]]]]:
        """Return 1 minus the larger drop of the two measures, and the logits, by which NNCF ranks the layers."""
        chosen = list(items)
        logits = [np.array(compiled(feed(row))[LOGITS]) for row in chosen]
        decided = choose_labels(apply(np.concatenate(logits), bundle.temperature), bundle.offsets)
        found = scores_of(validation.labels[chosen], decided, bundle.labels)
        return 1.0 - drop(alone, found), [[one] for one in logits]  # NNCF divides by that of the model itself

    ranking = nncf.AdvancedAccuracyRestorerParameters(ranking_subset_size=min(subset, len(validation)))
    with _own_progress():
        return nncf.quantize_with_accuracy_control(
            model.clone(),
            calibration_dataset=nncf.Dataset(rows, _feeder(model, calibration)),
            validation_dataset=nncf.Dataset(list(range(len(validation))), feed),
            validation_fn=judge,
            max_drop=MAX_DROP,
            drop_type=nncf.DropType.ABSOLUTE,
            subset_size=len(rows),
            advanced_accuracy_restorer_parameters=ranking,
            **_settings(nncf, model),
        )


def _feeder(model: ov.Model, rows: LabelledImages) -> Any:
    """Return the function from a row's number to the inputs of ``model``."""
    side, takes_metadata = side_of(model), len(model.inputs) == 2

    def feed(row: int) -> dict[str, npt.NDArray[Any]]:
        inputs: dict[str, npt.NDArray[Any]] = {IMAGE_INPUT: load_image(rows.paths[row], side)[np.newaxis]}
        if takes_metadata:
            inputs[META_INPUT] = rows.meta[row : row + 1]
        return inputs

    return feed


@contextlib.contextmanager
def _own_progress() -> Iterator[None]:
    """Keep NNCF's progress bars off stdout, which is for results: to the terminal's stderr, or nowhere."""
    with contextlib.redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        yield
