"""DICOM: the one picture in a file, and the three facts about the patient that a model may use. Nothing else is read.

* Dermoscopic Photography, VL Photographic and Secondary Capture; one frame; uncompressed, deflated, RLE, JPEG
  (baseline, extended, lossless), JPEG-LS and JPEG 2000. Others are refused in a sentence.
* The parser is told which elements to read; it passes over all others. Names, ids, dates and UIDs therefore never
  become values in this process, and no text of a file and no message of the parser becomes part of an error.
* What a file says of its size is compared with its data before these are decoded.

Needs the extra ``dermafuse[dicom]`` (pydicom and its decoders), which is imported with the first file.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt

from dermafuse.data.dicom_pixels import check_pixel_format, decoded
from dermafuse.errors import ImageError
from dermafuse.files import open_regular

#: Metadata fields that a DICOM file may fill.
FIELDS: Final = ("age", "sex", "localization")

_CLASSES: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.77.1.7",  # Dermoscopic Photography
        "1.2.840.10008.5.1.4.1.1.77.1.4",  # VL Photographic
        "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture
    }
)
_DEFLATED: Final = "1.2.840.10008.1.2.1.99"
_EXPLICIT: Final = "1.2.840.10008.1.2.1"
_NATIVE: Final = frozenset({"1.2.840.10008.1.2", _EXPLICIT, "1.2.840.10008.1.2.2"})
_ENCODED: Final = frozenset(
    {"1.2.840.10008.1.2.5", *(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91))}
)
_FACT_TAGS: Final = ("PatientAge", "PatientSex", "AnatomicRegionSequence")
_TAGS: Final = (
    "SOPClassUID",
    "NumberOfFrames",
    "EncryptedAttributesSequence",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PlanarConfiguration",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "PixelData",
)
#: A deflated file of a few kilobytes can hold gigabytes.
_MOST_INFLATED: Final = 64 * 1024**2
#: The facts stand before the pixels: so much is read for them.
_HEAD_BYTES: Final = 1024**2
#: Value representations of file meta information that have a length of four bytes.
_LONG: Final = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"SQ", b"UC", b"UN", b"UR", b"UT"})
_YEARS: Final = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}

_reading = threading.local()
_importing = threading.Lock()
# What pydicom has to say of a file quotes it.
warnings.filterwarnings("ignore", module=r"pydicom\b|dermafuse\.data\.dicom")


def is_dicom(data: bytes) -> bool:
    """Whether a file is DICOM (PS3.10: 128 bytes of anything, then ``DICM``)."""
    return data[128:132] == b"DICM"


def require(name: str) -> None:
    """Raise an ``ImageError`` where the extra that reads DICOM is not installed."""
    if not _installed():
        raise ImageError(f'{name} is a DICOM file, which needs pydicom; run: pip install "dermafuse[dicom]".')


@cache
def _installed() -> bool:
    return importlib.util.find_spec("pydicom") is not None


@dataclass(frozen=True)
class DicomImage:
    """A file that was checked as far as its header goes.

    Attributes:
        size: width and height in pixels.
        name: what to call it in errors.
        data: pydicom's data set, of the elements that are needed alone.
    """

    size: tuple[int, int]
    name: str
    data: Any

    def channels(self) -> npt.NDArray[Any]:
        """Decode the picture: (height, width, 3) RGB or (height, width) grey with 0 as black.

        Returns:
            uint8; or uint16, of more than 8 stored bits, spread over the whole range.

        Raises:
            ImageError: damaged, cut short, or not what the header says.
        """
        with _careful(self.name):
            return decoded(self.data, self.size, self.name)


def read(data: bytes, name: str, *, pixels: bool = True) -> DicomImage:
    """Read the header of a DICOM file, and its pixels still encoded.

    Args:
        data: the whole file.
        name: what to call it in errors.
        pixels: whether `DicomImage.channels` will be asked for.

    Raises:
        ImageError: another kind of object, several frames, encrypted, a form that cannot be read, or damaged.
    """
    with _careful(name):
        syntax, body = _take_apart(data, name)
        found = _parse(syntax, body, _TAGS, stop=not pixels)
        _check_kind(found, name)
        check_pixel_format(found, name)
        return DicomImage((int(found.Columns), int(found.Rows)), name, found)


def facts(source: object) -> dict[str, object]:
    """Return what a DICOM file says of `FIELDS`, as a table would have it: years, ``male``, the words of a code.

    Files that are no DICOM, or cannot be read, say nothing: whoever decodes them says why. Without pydicom likewise.

    Args:
        source: a path, the bytes of a file, or anything else (which says nothing).
    """
    if not _installed():
        return {}
    try:
        if isinstance(source, str | Path):
            with open_regular(source) as stream:
                start = stream.read(132)
                head = start + stream.read(_HEAD_BYTES) if is_dicom(start) else start
        else:
            head = bytes(source[:_HEAD_BYTES]) if isinstance(source, bytes) else b""
        if not is_dicom(head):
            return {}
        with _careful(""):
            found = _parse(*_take_apart(head, ""), _FACT_TAGS, stop=True)
            said = {"age": _age(found), "sex": _sex(found), "localization": _region(found)}
    except (OSError, ValueError, ImageError):
        return {}
    return {field: value for field, value in said.items() if value is not None}


@contextlib.contextmanager
def _careful(name: str) -> Iterator[None]:
    """Let pydicom say nothing, and turn whatever it raises into an error that quotes nothing of the file."""
    _library()
    _reading.now = True
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Exception:  # a dozen unrelated types, with texts of the file in their messages
        raise ImageError(f"{name} is a DICOM file that is damaged or cut short; replace the file.") from None
    finally:
        _reading.now = False


def _library() -> Any:
    """Import pydicom, once and by one thread, and let its loggers drop what they say while we read."""
    with _importing:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels

        _hush()
        return pydicom


@cache
def _hush() -> None:
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("pydicom", "pylibjpeg", "libjpeg", "openjpeg"):
            logging.getLogger(name).addFilter(lambda record: not getattr(_reading, "now", False))


def _take_apart(data: bytes, name: str) -> tuple[str, bytes]:
    """Return the transfer syntax and what follows the file meta information, inflated.

    Raises:
        ImageError: a syntax that is not read.
        ValueError: damaged.
    """
    position, syntax = 132, ""
    while data[position : position + 2] == b"\x02\x00":
        long = data[position + 4 : position + 6] in _LONG
        start = position + (12 if long else 8)
        length = int.from_bytes(data[start - (4 if long else 2) : start], "little")
        if start + length > len(data):
            raise ValueError("a length that lies")
        if data[position + 2 : position + 4] == b"\x10\x00":
            syntax = data[start : start + length].decode("ascii", "replace").rstrip("\0 ")
        position = start + length
    body = data[position:]
    if syntax == _DEFLATED:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        body = inflater.decompress(body, _MOST_INFLATED)
        if inflater.unconsumed_tail:
            raise ImageError(f"{name} is a deflated DICOM file of over 64 MiB; save it with JPEG or uncompressed.")
        return _EXPLICIT, body
    if syntax not in _NATIVE | _ENCODED:
        raise ImageError(
            f"{name} is a DICOM file {_called(syntax, 'coded as ', 'in an unknown coding')}, which is not read; save "
            "it uncompressed, or with JPEG, JPEG-LS, JPEG 2000 or RLE, one frame a file."
        )
    return syntax, body


def _called(uid: str, before: str, otherwise: str) -> str:
    """Return the name that the standard gives a UID; never the text of a file."""
    from pydicom.uid import UID_dictionary

    return f"{before}{UID_dictionary[uid][0]}" if uid in UID_dictionary else otherwise


def _parse(syntax: str, body: bytes, tags: tuple[str, ...], *, stop: bool) -> Any:
    """Return the data set of a few elements; the file meta information, which has ids, is left behind."""
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    element = b"\x02\x00\x10\x00UI" + len(value).to_bytes(2, "little") + value
    length = b"\x02\x00\x00\x00UL\x04\x00" + len(element).to_bytes(4, "little")
    stream = io.BytesIO(bytes(128) + b"DICM" + length + element + body)
    return _library().dcmread(stream, specific_tags=list(tags), stop_before_pixels=stop)


def _check_kind(found: Any, name: str) -> None:
    kind = str(found.get("SOPClassUID", ""))
    if kind not in _CLASSES:
        raise ImageError(
            f"{name} is a DICOM file of another kind ({_called(kind, '', 'unknown')}); Dermoscopic Photography, "
            "VL Photographic and Secondary Capture images are read."
        )
    if found.get("EncryptedAttributesSequence"):
        raise ImageError(f"{name} is a DICOM file with encrypted attributes; decrypt or remove them first.")
    frames = found.get("NumberOfFrames", 1)
    if frames is not None and int(frames) != 1:
        raise ImageError(f"{name} is a DICOM file of {int(frames):,} frames; write each to a file of its own.")


def _age(found: Any) -> float | None:
    text = re.fullmatch(r"(\d{1,3})([YMWD])", str(found.get("PatientAge", "")).strip(), re.ASCII)
    if text is None or int(text[1]) == 0:  # devices write 000Y where nobody typed an age
        return None
    years = round(int(text[1]) * _YEARS[text[2]], 2)
    return years if years <= 120 else None


def _sex(found: Any) -> str | None:
    return {"F": "female", "M": "male", "O": "other"}.get(str(found.get("PatientSex", "")).strip())


def _region(found: Any) -> str | None:
    """Return the meaning of the one code that names the body site."""
    regions: Any = found.get("AnatomicRegionSequence") or ()
    meaning = str(regions[0].get("CodeMeaning", "")).strip() if len(regions) == 1 else ""
    return meaning[:64] or None
