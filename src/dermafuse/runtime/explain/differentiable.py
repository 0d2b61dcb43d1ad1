"""The operations of a classifier's head in NumPy, each with its derivative.

A rule takes the values of a node's inputs and its attributes and returns the value of the output and a function
from the gradient of the output to the gradients of the inputs (``None`` for an input that is a setting, such as
axes). Everything is float64. To support one more operation of OpenVINO, add one more rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Gradients: TypeAlias = "list[Array | None]"
Backward: TypeAlias = Callable[[Array], Gradients]
Rule: TypeAlias = Callable[[Sequence[Array], Mapping[str, Any]], tuple[Array, Backward]]


def _fold(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Sum a gradient over the axes along which its input was broadcast to the output."""
    extra = gradient.ndim - len(shape)
    folded = gradient.sum(axis=tuple(range(extra))) if extra else gradient
    stretched = tuple(axis for axis, size in enumerate(shape) if size == 1 and folded.shape[axis] != 1)
    return folded.sum(axis=stretched, keepdims=True) if stretched else folded


def _unary(function: Callable[[Array], Array], slope: Callable[[Array, Array], Array]) -> Rule:
    """Return the rule of an elementwise function; ``slope(x, y)`` is its derivative."""

    def rule(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
        x = inputs[0]
        y = function(x)
        rest: Gradients = [None] * (len(inputs) - 1)
        return y, lambda gradient: [gradient * slope(x, y), *rest]

    return rule


def _binary(function: Callable[[Array, Array], Array], slopes: Callable[[Array, Array], tuple[Any, Any]]) -> Rule:
    """Return the rule of an elementwise function of two arrays that broadcast; ``slopes`` its two derivatives."""

    def rule(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
        a, b = inputs

        def backward(gradient: Array) -> Gradients:
            by_a, by_b = slopes(a, b)
            return [_fold(gradient * by_a, a.shape), _fold(gradient * by_b, b.shape)]

        return function(a, b), backward

    return rule


def _sigmoid(x: Array) -> Array:
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * x))  # never overflows
    return result


def _swish(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x = inputs[0]
    beta = float(inputs[1]) if len(inputs) > 1 else 1.0
    gate = _sigmoid(beta * x)
    rest: Gradients = [None] * (len(inputs) - 1)
    return x * gate, lambda gradient: [gradient * (gate + beta * x * gate * (1.0 - gate)), *rest]


def _gelu(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x = inputs[0]
    density = np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    if str(attributes.get("approximation_mode", "ERF")).upper() == "TANH":
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)
        below = 0.5 * (1.0 + np.tanh(inner))
        slope = math.sqrt(2.0 / math.pi) * (1.0 + 3 * 0.044715 * x * x)
        return x * below, lambda gradient: [gradient * (below + 2.0 * x * below * (1.0 - below) * slope)]
    below = 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))
    return x * below, lambda gradient: [gradient * (below + x * density)]


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _power(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    base, exponent = inputs

    def backward(gradient: Array) -> Gradients:
        return [_fold(gradient * exponent * np.power(base, exponent - 1.0), base.shape), None]

    return np.power(base, exponent), backward


def _matmul(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    a, b = inputs
    left = a.swapaxes(-1, -2) if attributes.get("transpose_a") else a
    right = b.swapaxes(-1, -2) if attributes.get("transpose_b") else b
    if left.ndim < 2 or right.ndim < 2:
        raise NotImplementedError("MatMul of a vector")

    def backward(gradient: Array) -> Gradients:
        by_left = _fold(gradient @ right.swapaxes(-1, -2), left.shape)
        by_right = _fold(left.swapaxes(-1, -2) @ gradient, right.shape)
        return [
            by_left.swapaxes(-1, -2) if attributes.get("transpose_a") else by_left,
            by_right.swapaxes(-1, -2) if attributes.get("transpose_b") else by_right,
        ]

    return left @ right, backward


def _einsum(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    equation = str(attributes["equation"]).replace(" ", "")
    terms, _, output = equation.partition("->")
    labels = terms.split(",")
    if len(labels) != 2 or "." in equation or any(len(set(term)) < len(term) for term in labels):
        raise NotImplementedError(equation)
    if not (set(labels[0]) <= set(labels[1] + output) and set(labels[1]) <= set(labels[0] + output)):
        raise NotImplementedError(equation)  # an axis summed over one input alone

    def backward(gradient: Array) -> Gradients:
        return [
            np.einsum(f"{output},{labels[1]}->{labels[0]}", gradient, inputs[1]),
            np.einsum(f"{labels[0]},{output}->{labels[1]}", inputs[0], gradient),
        ]

    return np.einsum(equation, *inputs), backward


def _softmax(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    axis = int(attributes.get("axis", -1))
    powers = np.exp(inputs[0] - inputs[0].max(axis=axis, keepdims=True))
    y = powers / powers.sum(axis=axis, keepdims=True)
    return y, lambda gradient: [y * (gradient - (gradient * y).sum(axis=axis, keepdims=True))]


def _axes(values: Array, rank: int) -> tuple[int, ...]:
    return tuple(sorted(int(axis) % rank for axis in np.atleast_1d(values)))


def _reduce(mean: bool) -> Rule:
    def rule(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
        x = inputs[0]
        axes = _axes(inputs[1], x.ndim)
        y = x.sum(axis=axes, keepdims=bool(attributes.get("keep_dims")))
        count = math.prod(x.shape[axis] for axis in axes) if mean else 1

        def backward(gradient: Array) -> Gradients:
            wide = gradient if attributes.get("keep_dims") else np.expand_dims(gradient, axes)
            return [np.broadcast_to(wide / count, x.shape), None]

        return y / count, backward

    return rule


def _concat(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    axis = int(attributes["axis"])
    edges = np.cumsum([part.shape[axis] for part in inputs])[:-1]
    return np.concatenate(list(inputs), axis=axis), lambda gradient: list(np.split(gradient, edges, axis=axis))


def _reshaped(change: Callable[[Sequence[Array], Mapping[str, Any]], Array]) -> Rule:
    """Return the rule of an operation that only changes the shape."""

    def rule(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
        shape = inputs[0].shape
        rest: Gradients = [None] * (len(inputs) - 1)
        return change(inputs, attributes), lambda gradient: [gradient.reshape(shape), *rest]

    return rule


def _reshape(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    x, wanted = inputs[0], [int(size) for size in inputs[1]]
    if attributes.get("special_zero"):
        wanted = [x.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return x.reshape(wanted)


def _squeeze(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    return np.squeeze(inputs[0], _axes(inputs[1], inputs[0].ndim) if len(inputs) > 1 else None)


def _unsqueeze(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    return np.expand_dims(inputs[0], _axes(inputs[1], inputs[0].ndim + np.size(inputs[1])))


def _transpose(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    order = [int(axis) for axis in inputs[1]]
    return inputs[0].transpose(order), lambda gradient: [gradient.transpose(np.argsort(order)), None]


def _slice(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x, start, stop, step = inputs[:4]
    axes = inputs[4] if len(inputs) > 4 else np.arange(len(start))
    index = [slice(None)] * x.ndim
    for axis, first, last, stride in zip(axes, start, stop, step, strict=True):
        index[int(axis)] = slice(int(first), int(last), int(stride))
    return _indexed(x, tuple(index), len(inputs))


def _strided_slice(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x, begin, end = inputs[:3]
    strides = inputs[3] if len(inputs) > 3 else np.ones(len(begin))
    if any(any(attributes.get(mask, ())) for mask in ("new_axis_mask", "ellipsis_mask")):
        raise NotImplementedError("StridedSlice with new axes")
    open_begin, open_end, drop = (
        [*attributes.get(mask, ()), *[0] * len(begin)] for mask in ("begin_mask", "end_mask", "shrink_axis_mask")
    )
    index: list[slice | int] = []
    for axis in range(len(begin)):
        first = None if open_begin[axis] else int(begin[axis])
        last = None if open_end[axis] else int(end[axis])
        index.append(int(begin[axis]) if drop[axis] else slice(first, last, int(strides[axis])))
    return _indexed(x, tuple(index), len(inputs))


def _indexed(x: Array, index: tuple[slice | int, ...], count: int) -> tuple[Array, Backward]:
    def backward(gradient: Array) -> Gradients:
        whole = np.zeros(x.shape)
        whole[index] = gradient
        return [whole, *[None] * (count - 1)]

    return x[index], backward


def _gather(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x, indices, axis = inputs[0], inputs[1].astype(np.int64), int(inputs[2]) % inputs[0].ndim
    if attributes.get("batch_dims"):
        raise NotImplementedError("Gather with batch dimensions")

    def backward(gradient: Array) -> Gradients:
        whole = np.zeros(x.shape)
        moved = np.moveaxis(whole, axis, 0)
        spread = gradient.reshape(*x.shape[:axis], indices.size, *x.shape[axis + 1 :])
        np.add.at(moved, indices.ravel(), np.moveaxis(spread, axis, 0))
        return [whole, None, None]

    return np.take(x, indices, axis=axis), backward


def _broadcast(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    x, wanted = inputs[0], tuple(int(size) for size in inputs[1])
    shape = np.broadcast_shapes(x.shape, wanted)
    rest: Gradients = [None] * (len(inputs) - 1)
    return np.broadcast_to(x, shape), lambda gradient: [_fold(gradient, x.shape), *rest]


def _clamp(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    low, high = float(attributes["min"]), float(attributes["max"])
    x = inputs[0]
    return np.clip(x, low, high), lambda gradient: [gradient * ((x > low) & (x < high))]


def _fake_quantize(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> tuple[Array, Backward]:
    """Round to levels; the derivative is that of the range alone (straight-through estimator)."""
    x, low, high, out_low, out_high = inputs
    levels = int(attributes["levels"])
    step = np.rint((np.clip(x, low, high) - low) / (high - low) * (levels - 1)) / (levels - 1)
    slope = (out_high - out_low) / (high - low) * ((x > low) & (x < high))
    return step * (out_high - out_low) + out_low, lambda gradient: [_fold(gradient * slope, x.shape), *[None] * 4]


_identity: Final = _unary(lambda x: x, lambda x, y: np.ones(()))

RULES: Final[dict[str, Rule]] = {
    "Convert": _identity,
    "Relu": _unary(lambda x: np.maximum(x, 0.0), lambda x, y: (x > 0).astype(np.float64)),
    "Sigmoid": _unary(_sigmoid, lambda x, y: y * (1.0 - y)),
    "Tanh": _unary(np.tanh, lambda x, y: 1.0 - y * y),
    "Exp": _unary(np.exp, lambda x, y: y),
    "Log": _unary(np.log, lambda x, y: 1.0 / x),
    "Sqrt": _unary(np.sqrt, lambda x, y: 0.5 / y),
    "Negative": _unary(np.negative, lambda x, y: -np.ones(())),
    "SoftPlus": _unary(lambda x: np.logaddexp(x, 0.0), lambda x, y: _sigmoid(x)),
    "Erf": _unary(_erf, lambda x, y: 2.0 / math.sqrt(math.pi) * np.exp(-x * x)),
    "Swish": _swish,
    "Gelu": _gelu,
    "Clamp": _clamp,
    "Add": _binary(np.add, lambda a, b: (1.0, 1.0)),
    "Subtract": _binary(np.subtract, lambda a, b: (1.0, -1.0)),
    "Multiply": _binary(np.multiply, lambda a, b: (b, a)),
    "Divide": _binary(np.divide, lambda a, b: (1.0 / b, -a / (b * b))),
    "Maximum": _binary(np.maximum, lambda a, b: (a >= b, a < b)),
    "Minimum": _binary(np.minimum, lambda a, b: (a <= b, a > b)),
    "SquaredDifference": _binary(lambda a, b: (a - b) ** 2, lambda a, b: (2.0 * (a - b), 2.0 * (b - a))),
    "Power": _power,
    "MatMul": _matmul,
    "Einsum": _einsum,
    "Softmax": _softmax,
    "ReduceMean": _reduce(mean=True),
    "ReduceSum": _reduce(mean=False),
    "Concat": _concat,
    "Reshape": _reshaped(_reshape),
    "Squeeze": _reshaped(_squeeze),
    "Unsqueeze": _reshaped(_unsqueeze),
    "Transpose": _transpose,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "Gather": _gather,
    "Broadcast": _broadcast,
    "FakeQuantize": _fake_quantize,
}
