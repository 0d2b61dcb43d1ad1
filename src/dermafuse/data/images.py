"""One way from an image, wherever it comes from, to the square of RGB pixels that a model sees.

Training, the activation cache, prediction and serving all call `load_image`, so a picture looks the same to
the model everywhere. The image is stretched to a square, as the published recipe does. Decoders and resizers
were chosen by measuring (``benchmarks/decode_speed.py``): simplejpeg for JPEG, Pillow for the rest; for
enlarging, a separable bilinear resize in NumPy integers, which takes half the time of Pillow's and differs
from it by at most one grey level on photographs (two on noise); for shrinking, Pillow's antialiased one.
"""

from __future__ import annotations

import collections
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.image_formats import Pixels, check_pixels, decode, exif_orientation, high_bytes, stored_size, to_rgb
from dermafuse.errors import ConfigError, ImageError
from dermafuse.files import open_regular

if TYPE_CHECKING:
    from PIL import Image

#: Raised whenever `load_image` may return other pixels than before: part of cache keys and of the bundle.
PREPROCESSING_VERSION: Final[int] = 1

#: Largest image that is decoded, in pixels (192 MB as RGB), and largest file that is read, in bytes.
MAX_PIXELS: Final[int] = 64_000_000
MAX_BYTES: Final[int] = 128 * 1024**2
MAX_SIZE: Final[int] = 4096

#: EXIF orientation 1..8 -> the view (see `view`) that turns the stored pixels upright.
_UPRIGHT: Final = (0, 0, 1, 3, 2, 4, 6, 7, 5)
#: Above this side the scratch memory of the NumPy resize (10 bytes a value) no longer fits the caches.
_NUMPY_RESIZE_MAX: Final = 640


def load_image(
    source: str | Path | bytes | Image.Image | npt.NDArray[Any],
    size: int,
    *,
    max_pixels: int = MAX_PIXELS,
    max_bytes: int = MAX_BYTES,
    name: str | None = None,
) -> Pixels:
    """Return any image as an upright uint8 RGB square of (size, size, 3). Safe to call from many threads.

    Args:
        source: a path; the bytes of a file; a Pillow image; or an array (height, width), (height, width, 1),
            (height, width, 3) RGB or (height, width, 4) RGBA of uint8 or uint16 (of which the high byte
            counts; refused where none reaches a quarter of the range, as 12-bit data do not). Files may be JPEG,
            PNG, BMP, TIFF, WebP or DICOM, told by content whatever their name; of several frames the first is used
            (DICOM: refused); EXIF orientation is applied; transparency is laid over white.
        size: side of the square, 1..4096. Both axes are stretched to it (bilinear; antialiased where they
            shrink).
        max_pixels: refuse images with more pixels than this, before decoding them.
        max_bytes: refuse files with more bytes than this, before reading them.
        name: what to call the image in errors; the path, or "the image", if not given.

    Raises:
        ImageError: the image is missing, empty, not of these formats, damaged, cut short or too large.
        ConfigError: ``size`` is not usable.
    """
    if not (isinstance(size, (int, np.integer)) and 1 <= size <= MAX_SIZE):
        raise ConfigError(f"The image size is {size!r}; it must be a whole number from 1 to {MAX_SIZE}.")
    size = int(size)
    orientation = 1
    if isinstance(source, (str, Path)):
        label = name or str(source)
        pixels, orientation = decode(_read(source, max_bytes, label), size, max_pixels, label)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        label = name or "The image"
        if len(source) > max_bytes:
            raise ImageError(_too_heavy(label, len(source), max_bytes))
        pixels, orientation = decode(bytes(source), size, max_pixels, label)
    elif isinstance(source, np.ndarray):
        pixels = _from_array(source, max_pixels, name or "The image array")
    else:
        pixels, orientation = _from_pillow(source, max_pixels, name or "The image")
    square = resize(pixels, size)
    # Turned after resizing: stretching to a square and turning may change places, and the square is small.
    return square if orientation == 1 else view(square, _UPRIGHT[orientation])


def read_pixels(path: str | Path) -> Pixels:
    """Return an image file as it is, upright: uint8 (height, width, 3), RGB.

    Raises:
        ImageError: as `load_image`.
    """
    pixels, orientation = decode(_read(path, MAX_BYTES, str(path)), MAX_SIZE, MAX_PIXELS, str(path))
    return pixels if orientation == 1 else view(pixels, _UPRIGHT[orientation])


def size_of(path: str | Path) -> tuple[int, int]:
    """Return width and height of an image file as stored, whatever its format.

    Raises:
        ImageError: it cannot be read, or its header is damaged.
    """
    return stored_size(_read(path, MAX_BYTES, str(path)), str(path))


def _read(path: str | Path, max_bytes: int, name: str) -> bytes:
    try:
        with open_regular(path) as stream:
            count = os.fstat(stream.fileno()).st_size
            if count > max_bytes:
                raise ImageError(_too_heavy(name, count, max_bytes))
            return stream.readall()
    except FileNotFoundError as error:
        raise ImageError(f"{name} does not exist; check the path.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder; name an image file.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{name} cannot be read ({reason}); check the path and its permissions.") from error


def _too_heavy(name: str, count: int, max_bytes: int) -> str:
    return f"{name} has {count:,} bytes, more than the {max_bytes:,} allowed; make it smaller."


def _from_array(array: npt.NDArray[Any], max_pixels: int, name: str) -> Pixels:
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} has shape {shape}; (height, width) or (height, width, 1, 3 or 4) is expected.")
    if array.dtype == np.uint16:
        array = high_bytes(array, name)
    elif array.dtype != np.uint8:
        raise ImageError(f"{name} has values of type {array.dtype}; uint8 (0..255) or uint16 is expected.")
    check_pixels(shape[1], shape[0], max_pixels, name)
    pixels: Pixels = array.astype(np.uint8, copy=False).reshape(shape[0], shape[1], -1)
    if pixels.shape[2] == 4:
        from PIL import Image

        return to_rgb(Image.fromarray(pixels), name)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _from_pillow(image: Image.Image, max_pixels: int, name: str) -> tuple[Pixels, int]:
    from PIL import Image

    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise ImageError(f"{name} is a {kind}; a path, bytes, a Pillow image or a NumPy array is expected.")
    check_pixels(*image.size, max_pixels, name)
    try:
        pixels = to_rgb(image, name)
    except ImageError:
        raise
    except Exception as error:  # a lazily opened file fails here, in whatever way its decoder does
        raise ImageError(f"{name} is damaged or cut short ({error}); replace it.") from error
    return pixels, exif_orientation(image)


def resize(pixels: Pixels, size: int) -> Pixels:
    """Stretch RGB pixels (height, width, 3) to (size, size, 3): bilinear, antialiased where an axis shrinks.

    Enlarging uses 8-bit weights and integers only, so it gives the same bits on every machine.
    """
    height, width = pixels.shape[:2]
    if height == width == size:
        return np.ascontiguousarray(pixels)
    if height <= size and width <= size and size <= _NUMPY_RESIZE_MAX:
        return _enlarge(pixels, size)
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(pixels))
    # reducing_gap: a large image is first averaged over whole blocks, to no less than twice the size.
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0))


@functools.lru_cache(maxsize=64)
def _taps(length: int, size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint16]]:
    """Return, for each of ``size`` output pixels, its two source pixels (2, size) and weights of 256 (2, size).

    Pixel centres are half-way: output i lies at (i + 0.5) * length / size - 0.5; edges repeat.
    """
    centre = (np.arange(size) + 0.5) * length / size - 0.5
    first = np.floor(centre).astype(np.intp)
    second = np.rint((centre - first) * 256).astype(np.uint16)
    index = np.clip(np.stack([first, first + 1]), 0, length - 1)
    return index, np.stack([256 - second, second]).astype(np.uint16)


class _Scratch:
    """Working memory of `_enlarge` for one pair of sizes: fresh pages every image would double the time."""

    def __init__(self, height: int, width: int, size: int) -> None:
        self.shape = (height, width, size)
        channel = np.arange(3)
        columns, weights = _taps(width, size)
        self.columns = [(row[:, None] * 3 + channel).ravel() for row in columns]  # 2 x (3 * size,)
        self.column_weights = [np.repeat(row, 3) for row in weights]
        rows, weights = _taps(height, size)
        self.rows = list(rows)
        self.row_weights = [row[:, None].copy() for row in weights]
        self.source = np.empty((height, 3 * width), np.uint16)
        self.wide = [np.empty((height, 3 * size), np.uint16) for _ in range(2)]
        self.tall = [np.empty((size, 3 * size), np.uint16) for _ in range(2)]


#: Scratches that nobody uses now, the one used last on top: it still lies in the processor's cache, which one for
#: each thread would not (1.7 MB each for 240 px).
_idle: Final[collections.deque[_Scratch]] = collections.deque(maxlen=16)


def _enlarge(pixels: Pixels, size: int) -> Pixels:
    height, width = pixels.shape[:2]
    try:
        scratch = _idle.pop()  # atomic, as is append
    except IndexError:
        scratch = _Scratch(height, width, size)
    if scratch.shape != (height, width, size):
        scratch = _Scratch(height, width, size)
    np.copyto(scratch.source, pixels.reshape(height, 3 * width))
    across = _blend(scratch.source, 1, scratch.columns, scratch.column_weights, scratch.wide)
    down = _blend(across, 0, scratch.rows, scratch.row_weights, scratch.tall)
    enlarged = down.astype(np.uint8).reshape(size, size, 3)
    _idle.append(scratch)
    return enlarged


def _blend(
    source: npt.NDArray[np.uint16],
    axis: int,
    index: list[npt.NDArray[np.intp]],
    weights: list[npt.NDArray[np.uint16]],
    out: list[npt.NDArray[np.uint16]],
) -> npt.NDArray[np.uint16]:
    """Write the rounded weighted mean of two selections of ``source`` to ``out[0]``: 255 * 256 fits uint16."""
    for part, chosen, weight in zip(out, index, weights, strict=True):
        # mode="clip": the default one copies through a buffer when there is an out (indices are in range).
        np.take(source, chosen, axis=axis, out=part, mode="clip")
        np.multiply(part, weight, out=part)
    total = out[0]
    np.add(total, out[1], out=total)
    np.add(total, 128, out=total)
    return np.right_shift(total, 8, out=total)


def view(image: npt.NDArray[Any], index: int) -> npt.NDArray[Any]:
    """Return flip or rotation ``index`` of an image (height, width, ...), C-contiguous, of the same dtype.

    0 as it is; 1 left-right flip; 2 up-down flip; 3 half turn; 4 transpose (main diagonal); 5 quarter turn
    anticlockwise; 6 quarter turn clockwise; 7 transpose along the other diagonal.

    Raises:
        ConfigError: ``index`` is not 0..7.
    """
    if not 0 <= index < 8:
        raise ConfigError(f"There is no view {index}; views are numbered 0 to 7.")
    # Bits: 4 transposes first, then 2 flips up-down and 1 flips left-right.
    turned = image.swapaxes(0, 1) if index & 4 else image
    turned = turned[::-1] if index in (2, 3, 5, 7) else turned
    turned = turned[:, ::-1] if index in (1, 3, 6, 7) else turned
    return np.ascontiguousarray(turned)


def dihedral_views(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the 8 flips and rotations of a square image (s, s, c) as (8, s, s, c), in the order of `view`."""
    return np.stack([view(image, index) for index in range(8)])
