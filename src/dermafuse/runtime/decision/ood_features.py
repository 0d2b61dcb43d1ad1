"""What an out-of-distribution score should look at: statistics of a layer in the middle of the network.

Fine-tuning for seven diagnoses teaches the last layers to forget whatever does not tell them apart, and a photograph of
a cat then lands among the moles. The stage before still sees textures and colours: mean and standard deviation
over the positions of its narrowest layer tell strangers apart in frozen and in fine-tuned networks alike
(``benchmarks/ood_scores.py``), and are an eighth as long as the embedding. Statistics of both moments: Huang &
Belongie, ICCV 2017; earlier layers for this purpose: Lee et al., NeurIPS 2018, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov
import openvino.opset13 as op

from dermafuse.data.images import load_image
from dermafuse.errors import BundleError
from dermafuse.runtime.batch.ordered import ordered_map
from dermafuse.runtime.engine import Engine, Precision
from dermafuse.runtime.network import FEATURE_MAP, IMAGE_INPUT, OOD_FEATURES
from dermafuse.runtime.prediction import ImageSource

__all__ = ["OOD_FEATURES", "FeatureReader", "with_ood_features"]

#: Keeps the square root away from 0: a flat image has positions that are all alike.
_TINY: Final = 1e-6


def with_ood_features(model: ov.Model) -> ov.Model:
    """Return a copy of a bundle's network with a further output ``ood_features``, float32 (batch, 2 m).

    The first half are the means over the positions of a layer with m channels, the second half the standard
    deviations. The layer is the last of the fewest channels among those whose maps are twice as high and wide as
    the last feature map; where there is none, the last feature map itself. A copy that has the output is returned
    as it is.

    Raises:
        BundleError: the network has no output ``feature_map`` of fixed size.
    """
    copy = model.clone()
    if any(OOD_FEATURES in result.get_output_tensor(0).get_names() for result in copy.get_results()):
        return copy
    features = next((r for r in copy.get_results() if FEATURE_MAP in r.get_output_tensor(0).get_names()), None)
    shape = None if features is None else features.get_output_partial_shape(0)
    if features is None or shape is None or len(shape) != 4 or not shape[1].is_static:
        raise BundleError("The network has no output 'feature_map' of fixed size; export the model again.")
    layer = _narrowest(copy, shape[1].get_length())
    if layer is None:
        source, axes = features.input_value(0), [1, 2]  # (batch, h, w, c)
    else:
        source, axes = layer.output(0), [2, 3]  # (batch, c, h, w)
    positions = np.array(axes, dtype=np.int64)
    mean = op.reduce_mean(source, positions, keep_dims=True)
    apart = op.subtract(source, mean)
    spread = op.sqrt(op.add(op.reduce_mean(op.multiply(apart, apart), positions, keep_dims=False), np.float32(_TINY)))
    joined = op.concat([op.squeeze(mean, positions), spread], 1)
    result = op.result(joined)
    result.get_output_tensor(0).set_names({OOD_FEATURES})
    copy.add_results([result])
    copy.validate_nodes_and_infer_types()
    return copy


def _narrowest(model: ov.Model, side: int) -> Any:
    """Return the layer to look at, in the layout (batch, c, h, w) that OpenVINO's convolutions have, or ``None``."""
    best, fewest = None, 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Add" or node.get_output_size() != 1:
            continue
        shape = node.get_output_partial_shape(0)
        if len(shape) != 4 or not all(shape[axis].is_static for axis in (1, 2, 3)):
            continue
        channels, height, width = (shape[axis].get_length() for axis in (1, 2, 3))
        if height != width or height not in (2 * side - 1, 2 * side):
            continue
        if best is None or channels <= fewest:
            best, fewest = node, channels
    return best


class FeatureReader:
    """Computes the output ``ood_features`` of images, and nothing that lies behind it.

    Args:
        model: a network from `with_ood_features`.
        precision: arithmetic; a score belongs to a threshold of the same one.
    """

    def __init__(self, model: ov.Model, precision: Precision = "auto") -> None:
        copy = model.clone()
        result = next(r for r in copy.get_results() if OOD_FEATURES in r.get_output_tensor(0).get_names())
        entry = next(p for p in copy.get_parameters() if IMAGE_INPUT in p.get_output_tensor(0).get_names())
        single = ov.Model([result], [entry], "ood")
        shape = entry.get_partial_shape()
        shape[0] = 1
        single.reshape({0: shape})
        self._side = shape[1].get_length()
        self._engine = Engine(single, precision=precision)
        self.precision = self._engine.precision

    def read(
        self, images: Iterable[ImageSource], advance: Callable[[int], None] = lambda done: None
    ) -> npt.NDArray[np.float32]:
        """Return (n, 2 m) of n images, which all must be readable; ``advance`` is called with 1 after each.

        Raises:
            ImageError: an image cannot be read.
        """

        def look(image: ImageSource) -> npt.NDArray[np.float32]:
            features: npt.NDArray[np.float32] = self._engine.infer(load_image(image, self._side)[np.newaxis])[0][0]
            return features.copy()

        rows = []
        for features in ordered_map(images, look, workers=self._engine.streams + 2):
            rows.append(features)
            advance(1)
        return np.stack(rows)
