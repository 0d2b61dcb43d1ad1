"""The pixels of a DICOM file: compared with what the header says before they are decoded, then grey or RGB."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dermafuse.data.jpeg import refuse_many_scans, strict_pixels
from dermafuse.errors import ImageError

_RLE: Final = "1.2.840.10008.1.2.5"
_BASELINE: Final = "1.2.840.10008.1.2.4.50"
_JPEG_2000: Final = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
#: Markers of a JPEG frame: SOF0 to SOF15 without DHT, JPG and DAC, and SOF55 of JPEG-LS.
_FRAMES: Final = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_COLOUR: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
_GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2"})
_PALETTE: Final = "PALETTE COLOR"


def check_pixel_format(found: Any, name: str) -> None:
    """Raise an ``ImageError`` for what has no defined way to 8-bit RGB."""
    colours = str(found.get("PhotometricInterpretation", ""))
    samples, allocated, stored = (int(found[key].value) for key in ("SamplesPerPixel", "BitsAllocated", "BitsStored"))
    if colours not in _COLOUR | _GREY | {_PALETTE} or samples != (3 if colours in _COLOUR else 1):
        raise ImageError(
            f"{name} is a DICOM file whose colours are not read (RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT, "
            "MONOCHROME1, MONOCHROME2 and PALETTE COLOR are); save it as RGB."
        )
    if allocated not in (8, 16) or not 8 <= stored <= allocated or int(found.get("HighBit", stored - 1)) != stored - 1:
        raise ImageError(
            f"{name} is a DICOM file with {stored} of {allocated} bits a sample; 8 to 16 bits in 8 or 16 are read."
        )
    if int(found.get("PixelRepresentation", 0)) != 0:
        raise ImageError(f"{name} is a DICOM file with signed pixels, as scanners write; photographs are unsigned.")
    if found.get("ModalityLUTSequence") or found.get("VOILUTSequence"):
        raise ImageError(f"{name} is a DICOM file with a lookup table for grey values; save it as RGB.")
    if colours == _PALETTE and "RedPaletteColorLookupTableData" not in found:
        raise ImageError(f"{name} is a DICOM file with a segmented palette, or without one; save it as RGB.")


def decoded(found: Any, size: tuple[int, int], name: str) -> npt.NDArray[Any]:
    """Return the picture as `dermafuse.data.dicom.DicomImage.channels` does.

    Raises:
        ImageError: no pixels, or grey values of no stated range.
        Exception: whatever the decoders raise on damaged data, and a ``ValueError`` where they are not what is stated.
    """
    from pydicom import pixels

    if not found.get("PixelData"):
        raise ImageError(f"{name} is a DICOM file without pixels; replace the file.")
    _check_frame(found, size, name)
    array: npt.NDArray[Any] = pixels.pixel_array(found, index=0)
    stored, colours = int(found.BitsStored), str(found.PhotometricInterpretation)
    wanted = (size[1], size[0], 3) if colours in _COLOUR else (size[1], size[0])
    if array.shape != wanted or array.dtype.kind != "u" or int(array.max()) >> stored:
        raise ValueError("not what the header says")
    if colours == _PALETTE:
        coloured: npt.NDArray[Any] = pixels.apply_color_lut(array, found)
        return coloured
    if colours in _GREY:
        array, stored = _windowed(array, stored, found, name)
        array = (1 << stored) - 1 - array if colours == "MONOCHROME1" else array
    return array.astype(np.uint16) << (16 - stored) if stored > 8 else array.astype(np.uint8)


def _windowed(array: npt.NDArray[Any], stored: int, found: Any, name: str) -> tuple[npt.NDArray[Any], int]:
    """Return grey values as the file says they are shown, and their bits (PS3.3, C.11.1 and C.11.2.1.2.1).

    Raises:
        ImageError: rescaled to units of which no window says what is black and white.
    """
    slope, intercept = float(found.get("RescaleSlope", 1)), float(found.get("RescaleIntercept", 0))
    centre, width = (_first(found.get(key)) for key in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        if (slope, intercept) != (1.0, 0.0):
            raise ImageError(f"{name} is a DICOM file with rescaled grey values and no window; save it as RGB.")
        return array, stored
    if width <= 1:
        raise ValueError("an empty window")
    shown = (array * slope + intercept - (centre - 0.5)) / (width - 1) + 0.5
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint16), 8


def _first(value: Any) -> float | None:
    if value is None or isinstance(value, str):
        return None
    values = list(value) if hasattr(value, "__iter__") else [value]
    return float(values[0]) if values else None


def _check_frame(found: Any, size: tuple[int, int], name: str) -> None:
    """Compare the pixel data with rows, columns, samples and bits.

    Args:
        found: pydicom's data set.
        size: width and height as the header has them.
        name: what to call the file in errors.

    Raises:
        ImageError, ValueError: too few or far too many bytes, or a code stream of another size, damaged or cut short.
    """
    syntax = str(found.file_meta.TransferSyntaxUID)
    width, height = size
    samples, allocated = int(found.SamplesPerPixel), int(found.BitsAllocated)
    planes = samples * allocated // 8
    if not found.file_meta.TransferSyntaxUID.is_encapsulated:
        expected = width * height * planes
        if str(found.PhotometricInterpretation) == "YBR_FULL_422":
            expected = (width + width % 2) * height * 2 * allocated // 8
        if not expected <= len(found.PixelData) < 2 * expected + 2:
            raise ValueError("another number of bytes")
        return
    from pydicom.encaps import get_frame

    stream = get_frame(found.PixelData, 0, number_of_frames=1)
    if syntax == _RLE:
        _check_rle(stream, width * height, planes)
        return
    stated = _jpeg_2000_frame(stream) if syntax in _JPEG_2000 else _jpeg_frame(stream)
    if stated[:3] != (width, height, samples) or not stream.rstrip(b"\0\xff").endswith(b"\xff\xd9"):
        raise ValueError("another picture, or cut short")
    if syntax not in _JPEG_2000:
        refuse_many_scans(stream, name)
    if syntax == _BASELINE and stated[3] == 8:
        strict_pixels(stream, "GRAY")  # libjpeg finds faults that the decoders of pydicom pass over


def _jpeg_frame(stream: bytes) -> tuple[int, int, int, int]:
    """Return width, height, components and precision of a JPEG or JPEG-LS code stream (ISO 10918-1, B.2.2)."""
    position = 2
    while stream[:2] == b"\xff\xd8" and position + 10 <= len(stream) and stream[position] == 0xFF:
        code = stream[position + 1]
        if code == 0xFF:  # a fill byte
            position += 1
            continue
        body = stream[position + 4 : position + 10]
        if code in _FRAMES:
            return int.from_bytes(body[3:5], "big"), int.from_bytes(body[1:3], "big"), body[5], body[0]
        length = int.from_bytes(stream[position + 2 : position + 4], "big")
        if code == 0xDA or length < 2:
            break
        position += 2 + length
    raise ValueError("no JPEG frame")


def _jpeg_2000_frame(stream: bytes) -> tuple[int, int, int, int]:
    """Return width, height, components and precision of a JPEG 2000 code stream (ISO 15444-1, A.5.1), boxed or not."""
    start = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    words = [int.from_bytes(stream[start + 8 + 4 * n : start + 12 + 4 * n], "big") for n in range(8)]
    if start < 0 or len(stream) < start + 43:
        raise ValueError("no JPEG 2000 image")
    components = int.from_bytes(stream[start + 40 : start + 42], "big")
    return words[0] - words[2], words[1] - words[3], components, (stream[start + 42] & 0x7F) + 1


def _check_rle(stream: bytes, pixels: int, planes: int) -> None:
    """Walk the runs of each byte plane without writing them (PS3.5, annex G): two bytes can stand for 128."""
    count = int.from_bytes(stream[:4], "little")
    starts = [int.from_bytes(stream[4 * n : 4 * n + 4], "little") for n in range(1, min(count, 15) + 1)]
    if count != planes or starts != sorted(starts) or not starts or starts[0] < 64 or starts[-1] >= len(stream):
        raise ValueError("no RLE frame")
    for start, stop in zip(starts, (*starts[1:], len(stream)), strict=True):
        position, length = start, 0
        while position < stop and length < pixels:
            header = stream[position]
            length += header + 1 if header < 128 else 257 - header if header > 128 else 0
            position += header + 2 if header < 128 else 2 if header > 128 else 1
        if length < pixels or stop - position > 2 + pixels // 64:
            raise ValueError("another number of pixels")
