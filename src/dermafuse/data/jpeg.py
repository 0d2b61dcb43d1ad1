"""JPEG: decoded strictly, and which way up it is."""

from __future__ import annotations

import re
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from dermafuse.errors import ImageError

#: A progressive JPEG costs one pass over the image a scan; ordinary ones have about ten.
_MAX_SCANS: Final = 100
#: Junk between the last scan and the end marker, which some cameras write: every pixel was read by then.
_HARMLESS: Final = re.compile(r"extraneous bytes before marker 0xd9")
ORIENTATION_TAG: Final = 0x0112


def refuse_many_scans(data: bytes, name: str) -> None:
    """Raise an ``ImageError`` where decoding would take long for the size of the image."""
    scans = data.count(b"\xff\xda")
    if scans > _MAX_SCANS:
        raise ImageError(f"{name} is a JPEG of {scans:,} scans (at most {_MAX_SCANS}); save it again as baseline.")


def strict_pixels(data: bytes, colours: str = "RGB", **scaled: Any) -> npt.NDArray[np.uint8]:
    """Decode a JPEG; ``colours`` and ``scaled`` as ``simplejpeg.decode_jpeg`` takes them.

    Raises:
        ValueError: libjpeg finds fault with the data.
    """
    try:
        pixels = simplejpeg.decode_jpeg(data, colours, **scaled)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise
        pixels = simplejpeg.decode_jpeg(data, colours, strict=False, **scaled)
    return np.asarray(pixels)


def jpeg_orientation(data: bytes) -> int:
    """Return the EXIF orientation 1..8 of a JPEG file; 1 where there is none or EXIF is unreadable.

    Walks the segments before the first scan: microseconds, where Pillow's parser takes a tenth of a
    millisecond.
    """
    position = 2
    for _ in range(1000):  # far more segments than any real file has: a crafted one cannot hold us up
        if data[position : position + 1] != b"\xff" or position + 4 > len(data):
            return 1
        code = data[position + 1]
        if code == 0xFF:  # a fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if code == 0xDA or length < 2:
            return 1
        if code == 0xE1 and data[position + 4 : position + 10] == b"Exif\0\0":
            return _tiff_orientation(data[position + 10 : position + 2 + length])
        position += 2 + length
    return 1


def _tiff_orientation(tiff: bytes) -> int:
    """Return the orientation in the first directory of an EXIF block (TIFF 6.0, section 2); 1 if none."""
    if tiff[:4] == b"II*\0":
        order: Any = "little"
    elif tiff[:4] == b"MM\0*":
        order = "big"
    else:
        return 1
    start = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[start : start + 2], order)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[entry : entry + 2], order) == ORIENTATION_TAG:
            value = int.from_bytes(tiff[entry + 8 : entry + 10], order)
            return value if 1 <= value <= 8 else 1
    return 1
