"""From the bytes of one image file to upright-or-not RGB pixels: which formats, which limits, which dialects.

What is decided here, once, for training, caching, prediction and serving alike:

* The format is told by content, never by the file's name: JPEG, PNG, BMP, TIFF, WebP and DICOM are read.
* The pixel ceiling is checked in the header, before any pixel is decoded.
* Animated and multi-page files: the first frame is the image.
* Transparent pixels are laid over white. Colour profiles are ignored. 16-bit channels keep their high byte, and are
  refused where they hold fewer bits than that (12-bit data would be nearly black).
* A JPEG whose data libjpeg finds fault with is refused: a damaged lesion must not be diagnosed.
"""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

# All of Pillow that is needed, here and not in the functions: two threads that import it at the same moment can
# deadlock (seen on CPython 3.11).
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from dermafuse.data import dicom
from dermafuse.data.jpeg import ORIENTATION_TAG, jpeg_orientation, refuse_many_scans, strict_pixels
from dermafuse.errors import ImageError

# What Pillow has to say about a damaged file becomes part of our error, or does not matter.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

Pixels = npt.NDArray[np.uint8]

#: How secure DICOM (PS3.15, annex B) and S/MIME begin, behind 2 to 6 bytes of length: the id of enveloped data.
_ENVELOPED = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03"

#: What a file that is refused for its format is, by how it begins: (offset, bytes, what it is).
_REFUSED = (
    (0, b"GIF8", "a GIF"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftyp", "a HEIC or video"),
    (0, b"%PDF", "a PDF"),
    (0, b"PK\x03\x04", "a ZIP"),
    (0, b"\x1f\x8b", "a gzip"),
    (0, b"\x00\x00\x00\x0cjP", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    *((offset, _ENVELOPED, "an encrypted (CMS)") for offset in (2, 3, 4, 5, 6)),
)
_PHOTOMETRIC_TAG = 0x0106
_QUARTER = 1 << 14


def sniff(data: bytes, name: str) -> str:
    """Return the format of ``data``: ``"jpeg"``, ``"png"``, ``"bmp"``, ``"tiff"``, ``"webp"`` or ``"dicom"``.

    Raises:
        ImageError: empty, or none of these; or DICOM, and what reads it is not installed.
    """
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if dicom.is_dicom(data):  # before TIFF, which some have in front for other programs
        dicom.require(name)
        return "dicom"
    if data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"):
        return "tiff"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:2] == b"BM":
        return "bmp"
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); replace the file.")
    for offset, start, what in _REFUSED:
        if data[offset : offset + len(start)] == start:
            raise ImageError(f"{name} is {what} file; convert it to JPEG, PNG, BMP, TIFF or WebP.")
    raise ImageError(f"{name} is not an image (JPEG, PNG, BMP, TIFF, WebP or DICOM expected); replace the file.")


def check_pixels(width: int, height: int, max_pixels: int, name: str) -> None:
    """Refuse an image with more than ``max_pixels`` pixels, or with none.

    Raises:
        ImageError: with the size it has and the size that is allowed.
    """
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels ({width}x{height}); replace the file.")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width:,}x{height:,} pixels, more than the {max_pixels:,} allowed; make it smaller."
        )


def decode(data: bytes, size: int, max_pixels: int, name: str) -> tuple[Pixels, int]:
    """Decode an image file to RGB, no smaller than needed for ``size``.

    Args:
        data: the whole file.
        size: side of the square the pixels will be resized to. A JPEG that is more than twice as large in
            both directions is decoded at 1/2, 1/4 or 1/8 (in the DCT, which averages: no aliasing).
        max_pixels: ceiling for width times height.
        name: what to call the image in errors.

    Returns:
        uint8 RGB (height, width, 3) as stored, and the EXIF orientation 1..8 that is still to be applied.

    Raises:
        ImageError: not one of the formats, damaged, cut short or too large.
    """
    kind = sniff(data, name)
    if kind == "dicom":
        return _decode_dicom(data, max_pixels, name), 1
    try:
        if kind == "jpeg":
            return _decode_jpeg(data, size, max_pixels, name)
        return _decode_other(kind, data, max_pixels, name)
    except ImageError:
        raise
    except Exception as error:  # decoders raise a dozen unrelated types on damaged files
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ImageError(f"{name} is damaged or cut short ({reason[:120]}); replace the file.") from error


def _decode_jpeg(data: bytes, size: int, max_pixels: int, name: str) -> tuple[Pixels, int]:
    height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    check_pixels(width, height, max_pixels, name)
    refuse_many_scans(data, name)
    orientation = jpeg_orientation(data)
    if colours in ("CMYK", "YCCK"):  # turbojpeg does not turn these into RGB
        return to_rgb(JpegImagePlugin.JpegImageFile(io.BytesIO(data)), name), orientation
    # Factors below 2 (7/8 ... 5/8) are slower than a full decode and alias: only 1/2, 1/4, 1/8 are used.
    return strict_pixels(data, min_height=size, min_width=size, min_factor=2), orientation


def _decode_dicom(data: bytes, max_pixels: int, name: str) -> Pixels:
    found = dicom.read(data, name)
    check_pixels(*found.size, max_pixels, name)
    channels = found.channels()
    pixels: Pixels = high_bytes(channels, name) if channels.dtype == np.uint16 else channels.astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def _decode_other(kind: str, data: bytes, max_pixels: int, name: str) -> tuple[Pixels, int]:
    if kind == "webp":
        check_pixels(*webp_size(data), max_pixels, name)  # its class allocates the canvas when it opens
        image: Image.Image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
    else:
        image = _opened(kind, data)
    with image:
        check_pixels(*image.size, max_pixels, name)
        pixels = to_rgb(image, name)
        return pixels, exif_orientation(image)  # after loading: Pillow turns a TIFF upright while it loads


def _opened(kind: str, data: bytes) -> Image.Image:
    """Return a PNG, BMP or TIFF of which only the header is read."""
    # The format's own class rather than Image.open: no other plugin is imported or tried.
    if kind == "png":
        return PngImagePlugin.PngImageFile(io.BytesIO(data))
    if kind == "bmp":
        return BmpImagePlugin.BmpImageFile(io.BytesIO(data))
    return TiffImagePlugin.TiffImageFile(io.BytesIO(data))


def stored_size(data: bytes, name: str) -> tuple[int, int]:
    """Return width and height of an image file as stored, from its header alone.

    Raises:
        ImageError: not one of the formats, or its header is damaged.
    """
    kind = sniff(data, name)
    if kind == "dicom":
        return dicom.read(data, name, pixels=False).size
    try:
        if kind == "jpeg":
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            return width, height
        if kind == "webp":
            return webp_size(data)
        with _opened(kind, data) as image:
            return image.size
    except Exception as error:  # as in `decode`
        raise ImageError(f"{name} is damaged or cut short; replace the file.") from error


def to_rgb(image: Image.Image, name: str) -> Pixels:
    """Turn a Pillow image of any mode into uint8 RGB (height, width, 3): transparency over white.

    Of 16 bits a channel the high byte counts (so Pillow does with colour), of 12 bits the high eight.

    Raises:
        ImageError: the mode has no defined range (32-bit integer or float) or no way to RGB (LAB); or 16-bit
            channels of which only the low bits are used.
    """
    stored = str([part[3] for part in getattr(image, "tile", [])[:1]])  # how a file has its channels; gone once loaded
    image.load()
    if image.mode.startswith("I;16"):
        bits = 12 if "I;12" in stored else 16
        grey = np.asarray(image)
        high = high_bytes(grey, name) if bits == 16 else (grey >> 4).astype(np.uint8)
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == 0:  # a TIFF in which 0 is white: Pillow leaves it so
            high = 255 - high
        return np.repeat(high[:, :, None], 3, axis=2)
    if image.mode in ("I", "F", "LAB"):
        what = "LAB" if image.mode == "LAB" else "32-bit or signed" if ";16" in stored else "32-bit"
        raise ImageError(f"{name} has {what} pixels; save it with 8-bit RGB pixels.")
    if ";16" in stored and image.mode.startswith("RGB"):
        _refuse_dark(np.asarray(image), _QUARTER >> 8, name)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def high_bytes(channels: npt.NDArray[np.uint16], name: str) -> Pixels:
    """Return the high byte of 16-bit channels, of the same shape.

    Raises:
        ImageError: none reaches a quarter of the range. No lit photograph is so dark: these are a camera's 10, 12 or
            14 bits (or eight) in 16, of which the range is not known, and they would be read as nearly black.
    """
    _refuse_dark(channels, _QUARTER, name)
    return (channels >> 8).astype(np.uint8)


def _refuse_dark(channels: npt.NDArray[np.integer[Any]], quarter: int, name: str) -> None:
    """Refuse an image (height, width) or (height, width, channels) that nowhere reaches ``quarter`` but in alpha."""
    if channels.ndim == 3 and channels.shape[2] == 4:
        channels = channels[channels[:, :, 3] > 0][:, :3]
    if channels.size and int(channels.max()) < quarter:
        raise ImageError(
            f"{name} has 16 bits a channel but no value above a quarter of their range, as 10-, 12- or 14-bit data "
            "have, and would be read as nearly black; spread its values over the whole range, or save it with 8 bits."
        )


def webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height of a WebP file (of its canvas, where it has one), read from its first chunk.

    Raises:
        ValueError: no chunk that says so. Source: RFC 9649, sections 2.5 to 2.7.
    """
    chunk, body = data[12:16], data[20:30]
    if chunk == b"VP8X" and len(body) == 10:
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if chunk == b"VP8 " and len(body) == 10:
        return (
            int.from_bytes(body[6:8], "little") & 0x3FFF,
            int.from_bytes(body[8:10], "little") & 0x3FFF,
        )
    if chunk == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ValueError("no image header")


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation 1..8 of a Pillow image; 1 where there is none or EXIF is unreadable."""
    try:
        value: Any = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # EXIF is an annotation: where it cannot be read the pixels are taken as upright
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
