"""The arrays of a bundle (``head.safetensors``): read, and refused where no fit could have made them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy

from dermafuse.errors import BundleError
from dermafuse.runtime.bundle.files import printable
from dermafuse.runtime.bundle.schema import OutOfDistribution

Array = np.ndarray[Any, Any]

#: Beyond this no weight, mean or whitening of a network lies; float32 sums of its products stay finite.
_LARGEST: Final = 1e8

#: How far the length of a vector kept as float16 may be from 1.
_NEAR_ONE: Final = 0.02


def read_arrays(content: bytes, path: Path) -> dict[str, Array]:
    """Return the arrays by name, all of finite numbers of a possible size.

    Raises:
        BundleError: not a safetensors file, or other values.
    """
    try:
        arrays = safetensors.numpy.load(content)
    except Exception as error:  # SafetensorError, or KeyError for a type that NumPy lacks
        reason = printable(str(error))
        raise BundleError(f"{path} is not a safetensors file ({reason}); copy the bundle again.") from error
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise BundleError(f"{path}: '{printable(name)}' does not hold finite floating-point numbers.")
        if array.size and float(np.abs(array).max()) > _LARGEST:
            raise BundleError(f"{path}: '{printable(name)}' holds numbers beyond {_LARGEST:g}; copy the bundle again.")
    return arrays


def check_ood_arrays(rule: OutOfDistribution, head: Mapping[str, Array], width: int, where: str) -> None:
    """Refuse arrays by which the rule could not tell anything apart: ``ood/means`` (m, c), ``ood/whitening`` (c, r),
    ``ood/bank`` (n, c) of rows of length 1, none of them empty.
    """
    needed = {"mahalanobis": ("ood/means", "ood/whitening"), "knn": ("ood/bank",)}
    for name in needed.get(rule.method, ()):
        array = head.get(name)
        side = 0 if name == "ood/whitening" else 1
        if array is None or array.ndim != 2 or array.shape[side] != width or array.shape[1 - side] < 1:
            raise BundleError(
                f"In {where}, '{name}' is not usable (expected two dimensions, {width} wide); train the model again."
            )
        values = array.astype(np.float64)
        if name == "ood/whitening" and not values.any():
            raise BundleError(f"In {where}, '{name}' is not usable (it is all zero); train the model again.")
        if name == "ood/bank" and np.abs(np.linalg.norm(values, axis=1) - 1).max() > _NEAR_ONE:
            raise BundleError(
                f"In {where}, '{name}' is not usable (its rows are not of length 1); train the model again."
            )
        if name == "ood/bank" and rule.neighbours > len(array):
            raise BundleError(
                f"In {where}, '{name}' is not usable ({rule.neighbours} neighbours of {len(array)}); train it again."
            )
