"""Fingerprints of small grey images, and how well the details of two of them fit when one is laid over the other.

A fingerprint is the low-frequency corner of an image's discrete cosine transform, whitened: each coefficient is
divided by its spread over the data set, so that what all images have in common (a dark blob in the middle) counts
little. It is the perceptual hash of Zauner ("Implementation and benchmarking of perceptual image hash functions",
2010) without the rounding to bits, which on lesions costs most of its power. Flips and quarter turns of an image
only change signs and places of its coefficients, and a zoom is one matrix product, so both cost almost nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

#: Side of the grey images, in pixels, and of the corner of their transform.
SIDE: Final = 64
CORNER: Final = 12

#: Zooms tried about the centre: re-photographed lesions mostly differ in magnification. 2 ** (i / 6).
ZOOMS: Final = tuple(2.0 ** (step / 6) for step in range(7))

#: Scale in pixels of the details that registration compares, and the side of the patch that is laid over.
_DETAIL: Final = 2.0
_PATCH: Final = 32
#: Grey levels below which local contrast counts as none: keeps noise of flat skin from being blown up.
_FLAT: Final = 2.0
#: Zooms around a candidate's own that registration tries after it, and the fit from which that is worth while: of 601
#: pairs of HAM10000 that reach 0.6 in the end, the least begins at 0.46.
_NEAR: Final = (0.92, 0.96, 1.04, 1.08)
_WORTH: Final = 0.4


def to_grey(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the luma (ITU-R BT.601) of RGB pixels (..., 3) as uint8."""
    weighted = pixels.astype(np.uint32) @ np.array([77, 150, 29], dtype=np.uint32)
    return (weighted >> 8).astype(np.uint8)


class Fingerprints:
    """Unit vectors, one an image, that lie close together for pictures of the same thing.

    Args:
        grey: (n, 64, 64) uint8.
    """

    def __init__(self, grey: npt.NDArray[np.uint8]) -> None:
        self._grey = grey
        upright = self._corner(1.0)
        spread = np.var(upright, axis=0)
        # The same for rows and columns, so that turning an image only moves its coefficients.
        self._spread = np.sqrt((spread + spread.T) / 2 + 1e-6).astype(np.float32)
        self._upright = upright
        self.vectors = self._unit(upright)

    def zoomed(self, zoom: float) -> Floats:
        """Return the vectors (n, 143) of the centres of the images, ``zoom`` times enlarged."""
        return self._unit(self._corner(zoom))

    def turned(self, view: int) -> Floats:
        """Return the vectors (n, 143) of view 0..7 of the images (numbered as `dermafuse.data.images.view`)."""
        corner = self._upright
        if view & 4:
            corner = corner.swapaxes(1, 2)
        sign = np.where(np.arange(CORNER) % 2, -1.0, 1.0).astype(np.float32)
        if view in (2, 3, 5, 7):
            corner = corner * sign[:, None]
        if view in (1, 3, 6, 7):
            corner = corner * sign
        return self._unit(corner)

    def _corner(self, zoom: float) -> Floats:
        basis = _cosines() @ zoom_matrix(zoom)  # (12, 64)
        corner = np.empty((len(self._grey), CORNER, CORNER), dtype=np.float32)
        for begin in range(0, len(corner), 1024):
            part = slice(begin, begin + 1024)
            corner[part] = basis @ self._grey[part].astype(np.float32) @ basis.T
        return corner

    def _unit(self, corner: npt.NDArray[Any]) -> Floats:
        flat = (corner / self._spread).reshape(len(corner), -1)[:, 1:]  # without the mean brightness
        length = np.linalg.norm(flat, axis=1, keepdims=True)
        unit: Floats = np.ascontiguousarray(flat / np.maximum(length, 1e-6), dtype=np.float32)
        return unit


def _cosines() -> Floats:
    """Return the first rows of the orthonormal DCT-II, (12, 64)."""
    angle = np.pi / SIDE * np.outer(np.arange(CORNER), np.arange(SIDE) + 0.5)
    basis = np.cos(angle) * np.sqrt(2.0 / SIDE)
    basis[0] /= np.sqrt(2.0)
    return np.asarray(basis, dtype=np.float32)


def zoom_matrix(zoom: float) -> Floats:
    """Return M (64, 64) such that ``M @ image @ M.T`` is the image enlarged about its centre (bilinear)."""
    centre = (SIDE - 1) / 2
    place = np.clip((np.arange(SIDE) - centre) / zoom + centre, 0, SIDE - 1)
    first = np.minimum(np.floor(place).astype(np.intp), SIDE - 2)
    part = place - first
    matrix = np.zeros((SIDE, SIDE), dtype=np.float32)
    matrix[np.arange(SIDE), first] = 1 - part
    matrix[np.arange(SIDE), first + 1] += part
    return matrix


def _blur_matrix(sigma: float) -> Floats:
    apart = np.arange(SIDE)[:, None] - np.arange(SIDE)[None, :]
    weights = np.exp(-0.5 * (apart / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def details(images: Floats) -> Floats:
    """Return images (n, 64, 64) without their coarse shapes and with equal local contrast."""
    fine, wide = _blur_matrix(_DETAIL), _blur_matrix(2 * _DETAIL)
    edges = images - fine @ images @ fine.T
    contrast = np.sqrt(wide @ np.square(edges) @ wide.T) + _FLAT
    result: Floats = edges / contrast
    return result


def fit(first: Floats, second: Floats, zoom: npt.NDArray[np.float64]) -> Floats:
    """Return how well the details of pairs of images fit, -1..1, the best over shifts and nearby zooms.

    Args:
        first: (m, 64, 64) images whose centres are enlarged by ``zoom`` and laid over ``second``.
        second: (m, 64, 64).
        zoom: (m,) about which zoom to try.

    The measure is the normalised cross-correlation (Lewis, "Fast normalized cross-correlation", 1995) of the
    central 32x32 pixels, shifted by up to 16 pixels each way.
    """
    import scipy.fft

    ground = details(second)
    best = np.full(len(first), -1.0, dtype=np.float32)
    sums, squares = (_window_sums(part) for part in (ground, np.square(ground)))
    area = _PATCH * _PATCH
    spread = np.sqrt(np.maximum(squares - np.square(sums) / area, 1e-6))
    there = scipy.fft.rfft2(ground)
    for factor in (1.0, *_NEAR):
        rows = np.flatnonzero(best >= _WORTH) if factor != 1.0 else np.arange(len(first))
        if not len(rows):
            break
        matrices = np.stack([zoom_matrix(value) for value in np.unique(zoom) * factor])
        matrix = matrices[np.searchsorted(np.unique(zoom), zoom[rows])]
        enlarged: Floats = np.asarray(matrix @ first[rows] @ matrix.swapaxes(1, 2), dtype=np.float32)
        margin = (SIDE - _PATCH) // 2
        patch = details(enlarged)[:, margin:-margin, margin:-margin]
        patch = patch - patch.mean(axis=(1, 2), keepdims=True)
        norm = np.sqrt(np.maximum(np.square(patch).sum(axis=(1, 2)), 1e-6))
        here = scipy.fft.rfft2(patch, s=(SIDE, SIDE))
        products = scipy.fft.irfft2(there[rows] * np.conj(here), s=(SIDE, SIDE))
        found = (products[:, : 2 * margin + 1, : 2 * margin + 1] / spread[rows]).max(axis=(1, 2)) / norm
        best[rows] = np.maximum(best[rows], found)
    return best


def _window_sums(values: Floats) -> npt.NDArray[np.float64]:
    """Return the sums over all 32x32 windows of (m, 64, 64): (m, 33, 33)."""
    total = np.zeros((len(values), SIDE + 1, SIDE + 1))
    total[:, 1:, 1:] = values.cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    windows: npt.NDArray[np.float64] = (
        total[:, _PATCH:, _PATCH:]
        - total[:, :-_PATCH, _PATCH:]
        - total[:, _PATCH:, :-_PATCH]
        + total[:, :-_PATCH, :-_PATCH]
    )
    return windows
