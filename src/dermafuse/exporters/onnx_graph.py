"""OpenVINO networks as ONNX graphs, operator by operator: whatever has a bundle has an ONNX file, without Keras.

OpenVINO reads ONNX and does not write it. The networks of bundles use some twenty operators, each of which is one to
six of ONNX's; an operator that is not among them is refused by name. Constants that are kept as float16 (or int8) and
converted in the graph are written as what they are converted to. The caller compares the answers.

Sources: the operator sets of OpenVINO (opset 13) and ONNX (opset 18), as their documentation defines them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import openvino as ov

from dermafuse.errors import ConfigError, OutputError

#: Version of the ONNX operator set that is written.
OPSET: Final = 18
#: Of the file format, the one that came with this operator set: newer ones keep older runtimes out.
_IR_VERSION: Final = 8

Array = npt.NDArray[Any]


def to_onnx(model: ov.Model, description: Mapping[str, str]) -> Any:
    """Return a network as ``onnx.ModelProto``: the same named inputs and outputs, the first axis ``batch``.

    Args:
        model: with named inputs and outputs of fixed size but for the first axis.
        description: what is written into the file's ``metadata_props``.

    Raises:
        ConfigError: the package ``onnx`` is not installed.
        OutputError: the network uses an operator that is not known here.
    """
    onnx = load_onnx()
    graph = _Graph(onnx)
    for node in model.get_ordered_ops():
        graph.add(node)
    made = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "dermafuse", graph.inputs, graph.outputs, list(graph.constants.values())),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="dermafuse",
    )
    onnx.helper.set_model_props(made, dict(description))
    onnx.checker.check_model(made, full_check=True)
    return made


def load_onnx() -> Any:
    """Import the package ``onnx``.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise ConfigError('Export to ONNX needs onnx; run: pip install "dermafuse[export]".') from error
    return onnx


@dataclass(eq=False)
class _Graph:
    """The ONNX graph so far; values are called by ``<node>:<port>``, constants stored once."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)
    _names: dict[tuple[str, int], str] = field(default_factory=dict)
    _folded: dict[str, Array] = field(default_factory=dict)

    def add(self, node: ov.Node) -> None:
        """Translate one node whose inputs are there."""
        kind = node.get_type_name()
        if kind == "Constant":
            self._folded[node.get_friendly_name()] = np.array(node.data)
        elif kind == "Convert" and (found := self.folded(node, 0)) is not None:
            self._folded[node.get_friendly_name()] = found.astype(_type(node))
        elif kind == "Parameter":
            self.inputs.append(self._port(node, self._name(node.output(0), _label(node.output(0)))))
        elif kind == "Result":
            self._end(node)
        elif kind in _OPERATORS:
            _OPERATORS[kind](self, node)
        else:
            raise OutputError(
                f"The network uses the operator '{kind}' ({node.get_friendly_name()}), for which there is no ONNX form "
                "here; use --format openvino."
            )

    def folded(self, node: ov.Node, position: int) -> Array | None:
        """Return the value of a constant input, ``None`` where it is computed."""
        return self._folded.get(node.input_value(position).get_node().get_friendly_name())

    def constant(self, node: ov.Node, position: int) -> Array:
        """Return the value of an input that must be constant.

        Raises:
            OutputError: it is computed.
        """
        found = self.folded(node, position)
        if found is None:
            raise OutputError(
                f"Input {position} of '{node.get_friendly_name()}' ({node.get_type_name()}) is computed, which has no "
                "ONNX form here; use --format openvino."
            )
        return found

    def value(self, node: ov.Node, position: int) -> str:
        """Return the name of an input's value."""
        source = node.input_value(position)
        found = self._folded.get(source.get_node().get_friendly_name())
        if found is not None:
            return self.store(found, source.get_node().get_friendly_name())
        return self._names[source.get_node().get_friendly_name(), source.get_index()]

    def values(self, node: ov.Node) -> list[str]:
        """Return the names of all inputs' values."""
        return [self.value(node, position) for position in range(node.get_input_size())]

    def store(self, array: Array, name: str) -> str:
        """Keep a constant under ``name``; return the name."""
        if name not in self.constants:
            array = np.ascontiguousarray(array.astype(np.float32) if array.dtype == np.float16 else array)
            self.constants[name] = self.onnx.numpy_helper.from_array(array, name)
        return name

    def put(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Add an ONNX node of one output; return the output's name."""
        name = f"onnx/{kind}_{len(self.nodes)}"  # apart from OpenVINO's names, under which constants are stored
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def give(self, node: ov.Node, name: str, port: int = 0) -> None:
        """Say which value is the output of a node."""
        self._names[node.get_friendly_name(), port] = name

    def _name(self, output: ov.Output, name: str) -> str:
        self.give(output.get_node(), name, output.get_index())
        return name

    def _end(self, node: ov.Node) -> None:
        name = _label(node.input_value(0))
        self.nodes.append(self.onnx.helper.make_node("Identity", [self.value(node, 0)], [name], name=f"output_{name}"))
        self.outputs.append(self._port(node, name))

    def _port(self, node: ov.Node, name: str) -> Any:
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(node.output(0).get_element_type().to_dtype()))
        _, *shape = node.output(0).get_partial_shape()
        return self.onnx.helper.make_tensor_value_info(name, kind, ["batch", *(size.get_length() for size in shape)])


def _label(output: ov.Output) -> str:
    return str(min(output.get_names()))


def _type(node: ov.Node) -> Any:
    return node.output(0).get_element_type().to_dtype()


Translate = Callable[[_Graph, ov.Node], None]


def _same(kind: str) -> Translate:
    """Return the translation of an operator that ONNX has alike: the same inputs, no attributes."""

    def translate(graph: _Graph, node: ov.Node) -> None:
        graph.give(node, graph.put(kind, graph.values(node)))

    return translate


def _with_axis(kind: str) -> Translate:
    def translate(graph: _Graph, node: ov.Node) -> None:
        graph.give(node, graph.put(kind, graph.values(node), axis=int(node.get_attributes()["axis"])))

    return translate


def _reduce_mean(graph: _Graph, node: ov.Node) -> None:
    axes = graph.constant(node, 1).astype(np.int64).reshape(-1)
    name = graph.store(axes, f"{node.get_friendly_name()}/axes")
    keep = int(bool(node.get_attributes()["keep_dims"]))
    graph.give(node, graph.put("ReduceMean", [graph.value(node, 0), name], keepdims=keep))


def _convert(graph: _Graph, node: ov.Node) -> None:
    kind = graph.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(_type(node)))
    graph.give(node, graph.put("Cast", [graph.value(node, 0)], to=kind))


def _transpose(graph: _Graph, node: ov.Node) -> None:
    order = [int(axis) for axis in graph.constant(node, 1)]
    graph.give(node, graph.put("Transpose", [graph.value(node, 0)], perm=order))


def _reshape(graph: _Graph, node: ov.Node) -> None:
    shape = graph.constant(node, 1).astype(np.int64)
    name = graph.store(shape, f"{node.get_friendly_name()}/shape")
    # Where OpenVINO takes 0 as "as it was", so does ONNX by default.
    other = {} if node.get_attributes()["special_zero"] else {"allowzero": 1}
    graph.give(node, graph.put("Reshape", [graph.value(node, 0), name], **other))


def _clamp(graph: _Graph, node: ov.Node) -> None:
    ends = [float(node.get_attributes()[end]) for end in ("min", "max")]
    names = [graph.store(np.array(end, np.float32), f"clip/{end!r}") for end in ends]
    graph.give(node, graph.put("Clip", [graph.value(node, 0), *names]))


def _swish(graph: _Graph, node: ov.Node) -> None:
    value = graph.value(node, 0)
    inner = value if node.get_input_size() == 1 else graph.put("Mul", [value, graph.value(node, 1)])
    graph.give(node, graph.put("Mul", [value, graph.put("Sigmoid", [inner])]))


def _squared_difference(graph: _Graph, node: ov.Node) -> None:
    apart = graph.put("Sub", graph.values(node))
    graph.give(node, graph.put("Mul", [apart, apart]))


def _matmul(graph: _Graph, node: ov.Node) -> None:
    names = []
    for position, turned in enumerate(("transpose_a", "transpose_b")):
        found = graph.folded(node, position)
        if not node.get_attributes()[turned]:
            names.append(graph.value(node, position))
        elif found is not None:
            names.append(graph.store(np.swapaxes(found, -1, -2), f"{node.get_friendly_name()}/{turned}"))
        else:
            rank = len(node.input(position).get_partial_shape())
            order = [*range(rank - 2), rank - 1, rank - 2]
            names.append(graph.put("Transpose", [graph.value(node, position)], perm=order))
    graph.give(node, graph.put("MatMul", names))


def _convolution(graph: _Graph, node: ov.Node) -> None:
    told = node.get_attributes()
    shape = [size.get_length() for size in node.input(1).get_partial_shape()]
    groups = 1
    if node.get_type_name() == "Convolution":
        kernel = graph.value(node, 1)
    else:  # (groups, out, in, h, w) is (groups * out, in, h, w) in ONNX
        groups, flat = shape[0], [shape[0] * shape[1], *shape[2:]]
        found, name = graph.folded(node, 1), f"{node.get_friendly_name()}/kernel"
        if found is not None:
            kernel = graph.store(found.reshape(flat), name)
        else:
            kernel = graph.put("Reshape", [graph.value(node, 1), graph.store(np.array(flat, np.int64), name)])
    made = graph.put(
        "Conv",
        [graph.value(node, 0), kernel],
        strides=list(told["strides"]),
        dilations=list(told["dilations"]),
        group=groups,
        # Whatever rule made them: shapes are fixed, so the numbers are known.
        pads=[*told["pads_begin"], *told["pads_end"]],
    )
    graph.give(node, made)


def _einsum(graph: _Graph, node: ov.Node) -> None:
    graph.give(node, graph.put("Einsum", graph.values(node), equation=str(node.get_attributes()["equation"])))


def _fake_quantize(graph: _Graph, node: ov.Node) -> None:
    """``round((clip(x) - low) / (high - low) * (levels - 1)) / (levels - 1) * (out_high - out_low) + out_low``."""
    steps = int(node.get_attributes()["levels"]) - 1
    low, high, out_low, out_high = (graph.constant(node, position).astype(np.float32) for position in range(1, 5))
    name = node.get_friendly_name()

    def stored(array: Array, part: str) -> str:
        return graph.store(np.asarray(array, np.float32), f"{name}/{part}")

    value = graph.put("Max", [graph.value(node, 0), stored(low, "low")])
    value = graph.put("Min", [value, stored(high, "high")])
    value = graph.put("Sub", [value, stored(low, "low")])
    value = graph.put("Round", [graph.put("Mul", [value, stored(steps / (high - low), "scale")])])
    value = graph.put("Mul", [value, stored((out_high - out_low) / steps, "step")])
    graph.give(node, graph.put("Add", [value, stored(out_low, "out_low")]))


_OPERATORS: Final[dict[str, Translate]] = {
    "Add": _same("Add"),
    "Clamp": _clamp,
    "Concat": _with_axis("Concat"),
    "Convert": _convert,
    "Convolution": _convolution,
    "Divide": _same("Div"),
    "Einsum": _einsum,
    "Erf": _same("Erf"),
    "FakeQuantize": _fake_quantize,
    "GroupConvolution": _convolution,
    "MatMul": _matmul,
    "Multiply": _same("Mul"),
    "Power": _same("Pow"),
    "ReduceMean": _reduce_mean,
    "Relu": _same("Relu"),
    "Reshape": _reshape,
    "Sigmoid": _same("Sigmoid"),
    "Softmax": _with_axis("Softmax"),
    "SquaredDifference": _squared_difference,
    "Subtract": _same("Sub"),
    "Swish": _swish,
    "Tanh": _same("Tanh"),
    "Transpose": _transpose,
}
