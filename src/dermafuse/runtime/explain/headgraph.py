"""The head of a network, from feature map and metadata to logits, as a differentiable function in NumPy.

The head is read from the network itself (the OpenVINO graph between ``feature_map`` and ``logits``), so it is the
head that predicts, whatever the fusion, and needs no second copy of its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino.passes import ConstantFolding, Manager

from dermafuse.errors import BundleError
from dermafuse.runtime.explain.differentiable import RULES, Backward
from dermafuse.runtime.network import FEATURE_MAP, IMAGE_INPUT, LOGITS, META_INPUT, inference_model

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Step:
    """One operation: what it is, where its inputs come from (names of values), and its own name."""

    name: str
    kind: str
    sources: tuple[str, ...]
    attributes: Mapping[str, Any]


class HeadGraph:
    """The function from feature map (h, w, c) and metadata vector (width,) to logits (k,), in float64.

    Args:
        model: a network of a bundle; it is left as it is.

    Raises:
        BundleError: the head uses an operation that is not known here, or its logits depend on the image in
            another way than through the feature map.
    """

    def __init__(self, model: ov.Model) -> None:
        single = inference_model(model, (LOGITS, FEATURE_MAP))
        manager = Manager()
        manager.register_pass(ConstantFolding())  # shapes become constants, float16 weights float32
        manager.run_passes(single)
        logits, features = (result.input_value(0) for result in single.get_results())
        self.map_shape: tuple[int, int, int] = tuple(features.get_shape())[1:]
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._steps: list[_Step] = []
        # The feature map is usually a transposed copy that only serves as an output: the head starts from
        # what was transposed. All tensors of that chain are the feature map in some order of axes.
        self._entrances: dict[str, tuple[int, ...]] = {}
        order = tuple(range(4))  # axes of the tensor at hand, as axes of the feature map
        node, port = features.get_node(), features
        while True:
            self._entrances[_value(port)] = order
            if node.get_type_name() != "Transpose" or node.input_value(1).get_node().get_type_name() != "Constant":
                break
            turned = [int(axis) for axis in node.input_value(1).get_node().get_data()]
            order = tuple(order[turned.index(axis)] for axis in range(4))
            port = node.input_value(0)
            node = port.get_node()
        self._logits = _value(logits)
        self._collect(logits)

    def __call__(self, features: npt.NDArray[Any], meta: npt.NDArray[Any] | None = None) -> Floats:
        """Return the logits (k,) of a feature map (h, w, c) and a metadata vector (width,)."""
        logits: Floats = self._forward(features, meta)[0][self._logits][0]
        return logits

    def gradient(self, features: npt.NDArray[Any], meta: npt.NDArray[Any] | None, target: int) -> tuple[Floats, Floats]:
        """Return the logits (k,) and the derivative of logit ``target`` by the feature map, (h, w, c)."""
        values, backward = self._forward(features, meta)
        seed = np.zeros_like(values[self._logits])
        seed[0, target] = 1.0
        gradients: dict[str, Floats] = {self._logits: seed}
        total = np.zeros((1, *self.map_shape))
        for step in reversed(self._steps):
            gradient = gradients.pop(step.name, None)
            if gradient is None:
                continue
            for source, part in zip(step.sources, backward[step.name](gradient), strict=True):
                if part is None or source in self._constants:
                    continue
                if source in self._entrances:
                    total += part.transpose(np.argsort(self._entrances[source]))
                else:
                    gradients[source] = gradients[source] + part if source in gradients else part
        return values[self._logits][0], total[0]

    def _forward(
        self, features: npt.NDArray[Any], meta: npt.NDArray[Any] | None
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Backward]]:
        whole = np.asarray(features, dtype=np.float64)[np.newaxis]
        values: dict[str, npt.NDArray[Any]] = dict(self._constants)
        values |= {name: whole.transpose(order) for name, order in self._entrances.items()}
        if meta is not None:
            values[META_INPUT] = np.asarray(meta, dtype=np.float64)[np.newaxis]
        backward: dict[str, Backward] = {}
        for step in self._steps:
            inputs = [values[source] for source in step.sources]
            try:
                values[step.name], backward[step.name] = RULES[step.kind](inputs, step.attributes)
            except (NotImplementedError, KeyError, ValueError, TypeError, IndexError) as error:
                raise BundleError(f"The head of this model cannot be explained: {step.kind} ({error}).") from error
        return values, backward

    def _collect(self, logits: ov.Output) -> None:
        """List the operations between entrances and logits, inputs first."""
        done: set[str] = set(self._entrances)
        pending: list[tuple[ov.Output, bool]] = [(logits, False)]
        while pending:
            port, ready = pending.pop()
            name = _value(port)
            if name in done:
                continue
            node = port.get_node()
            kind = node.get_type_name()
            sources = [node.input_value(index) for index in range(node.get_input_size())]
            if kind == "Constant":
                data = node.get_data()
                self._constants[name] = data.astype(np.float64) if data.dtype.kind == "f" else np.array(data)
            elif kind == "Parameter":
                self._check_parameter(port)
            elif ready:
                names = tuple(_value(source) for source in sources)
                self._steps.append(_Step(name, kind, names, node.get_attributes()))
            elif kind not in RULES or node.get_output_size() != 1:
                raise BundleError(
                    f"The head of this model cannot be explained: no derivative of '{kind}' is known; "
                    "use another fusion."
                )
            else:
                pending.append((port, True))
                pending += [(source, False) for source in sources]
                continue
            done.add(name)

    def _check_parameter(self, port: ov.Output) -> None:
        if IMAGE_INPUT in port.get_names():
            raise BundleError(
                "The head of this model cannot be explained: its logits depend on the image in another way than "
                "through the feature map."
            )


def _value(port: ov.Output) -> str:
    """Return the name of a value: that of the metadata input, else of the node (unique in a graph)."""
    if port.get_node().get_type_name() == "Parameter" and META_INPUT in port.get_names():
        return META_INPUT
    return str(port.get_node().get_name())
