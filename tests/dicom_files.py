"""DICOM files as devices write them: in any coding that dermafuse reads, with identifiers that it must not read."""

from __future__ import annotations

import io
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

DERMOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.7"
PHOTOGRAPH = "1.2.840.10008.5.1.4.1.1.77.1.4"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
BASELINE, EXTENDED, LOSSLESS, LOSSLESS_1, JPEG_LS, NEAR_LOSSLESS, J2K_LOSSLESS, J2K = (
    f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)
)

#: What must appear nowhere.
IDENTIFIERS = {
    "PatientName": "Zyxwvu^Gertrud",
    "PatientID": "PID-7719403",
    "PatientBirthDate": "19581231",
    "PatientAddress": "Geheimweg 17",
    "OtherPatientIDs": "SSN-887-99-1234",
    "InstitutionName": "Klinik Verborgen",
    "InstitutionAddress": "Nirgendwo 4",
    "ReferringPhysicianName": "Referrer^Hidden",
    "OperatorsName": "Operator^Unseen",
    "AccessionNumber": "ACC5550001",
    "StudyDate": "20190823",
    "StudyDescription": "Mole of Mrs Zyxwvu",
    "StationName": "STATION-QQ",
    "DeviceSerialNumber": "SER-99887766",
    "StudyID": "STID-4242",
    "PatientComments": "comment on Gertrud",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.111222333444555",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.666777888999000",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.121212343434565",
}


def traces(text: str | bytes) -> list[str]:
    """Return the identifiers, or parts of them, that a text or a file holds."""
    data = text.encode() if isinstance(text, str) else text
    parts = {part for value in IDENTIFIERS.values() for part in (value, *value.replace("^", " ").split(" "))}
    return sorted(part for part in parts if len(part) > 4 and part.encode() in data)


def write_dicom(
    pixels: np.ndarray,
    syntax: str = EXPLICIT,
    *,
    kind: str = DERMOSCOPIC,
    age: str | None = "055Y",
    sex: str | None = "F",
    site: str | None = "Skin of back",
    **changes: Any,
) -> bytes:
    """Return a file of grey (h, w) or RGB (h, w, 3) pixels; ``changes`` are elements to set, ``None`` to remove."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    found = Dataset()
    found.update(IDENTIFIERS)
    for keyword, value in IDENTIFIERS.items():
        setattr(found, keyword, value)
    found.private_block(0x0011, "Hidden private", create=True).add_new(0x01, "LO", IDENTIFIERS["PatientID"])
    found.SOPClassUID = kind
    for keyword, value in (("PatientAge", age), ("PatientSex", sex)):
        if value is not None:
            setattr(found, keyword, value)
    if site is not None:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1234567", "SCT", site
        found.AnatomicRegionSequence = [code]
    found.Rows, found.Columns = pixels.shape[:2]
    found.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    found.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        found.PlanarConfiguration = 0
    bits = 8 * pixels.dtype.itemsize
    found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation = bits, bits, bits - 1, 0
    data = changes.pop("stream", None)
    if data is not None or syntax not in (IMPLICIT, EXPLICIT, BIG, DEFLATED):
        data = data if data is not None else _encoded(pixels, syntax, found)
        found.PixelData = encapsulate([data])
    else:
        found.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
        if len(found.PixelData) % 2:
            found.PixelData += b"\0"
    found["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in changes.items():
        if value is None:
            delattr(found, keyword)
        else:
            setattr(found, keyword, value)
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = syntax
    found.file_meta.SourceApplicationEntityTitle = "KLINIK_AE"
    found.file_meta.MediaStorageSOPInstanceUID = IDENTIFIERS["SOPInstanceUID"]
    found.file_meta.MediaStorageSOPClassUID = kind
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(content, found, enforce_file_format=True)
    return content.getvalue()


def _encoded(pixels: np.ndarray, syntax: str, found: Any) -> bytes:
    if syntax == RLE:
        return _rle(pixels)
    if syntax in (BASELINE, EXTENDED):
        found.PhotometricInterpretation = "YBR_FULL_422" if pixels.ndim == 3 else "MONOCHROME2"
        grey = pixels.ndim == 2
        data = simplejpeg.encode_jpeg(
            np.ascontiguousarray(pixels[:, :, None] if grey else pixels), 95, "GRAY" if grey else "RGB", "422"
        )
        return data.replace(b"\xff\xc0\x00", b"\xff\xc1\x00", 1) if syntax == EXTENDED else data
    if syntax in (LOSSLESS, LOSSLESS_1):
        return _lossless_jpeg(pixels)
    if syntax in (J2K, J2K_LOSSLESS):
        if pixels.ndim == 3:
            found.PhotometricInterpretation = "YBR_RCT" if syntax == J2K_LOSSLESS else "YBR_ICT"
        content = io.BytesIO()
        lossy = {"irreversible": True, "quality_mode": "rates", "quality_layers": [4]} if syntax == J2K else {}
        Image.fromarray(pixels).save(content, "JPEG2000", no_jp2=True, mct=1 if pixels.ndim == 3 else 0, **lossy)
        return content.getvalue()
    raise AssertionError(syntax)


def _rle(pixels: np.ndarray) -> bytes:
    """Return byte planes as literal runs, the high byte of a sample first (PS3.5, annex G)."""
    samples = pixels[:, :, None] if pixels.ndim == 2 else pixels
    planes = []
    for channel in range(samples.shape[2]):
        whole = samples[:, :, channel]
        for shift in range(8 * (whole.dtype.itemsize - 1), -1, -8):
            flat = (whole >> shift & 255).astype(np.uint8).tobytes()
            parts = [flat[n : n + 128] for n in range(0, len(flat), 128)]
            plane = b"".join(bytes([len(part) - 1]) + part for part in parts)
            planes.append(plane + b"\0" * (len(plane) % 2))
    starts = np.cumsum([64, *map(len, planes[:-1])])
    header = b"".join(int(n).to_bytes(4, "little") for n in (len(planes), *starts))
    return header.ljust(64, b"\0") + b"".join(planes)


def _lossless_jpeg(pixels: np.ndarray) -> bytes:
    """Return a lossless JPEG of 8-bit samples: predictor 1, all difference categories in codes of four bits."""
    samples = pixels[:, :, None] if pixels.ndim == 2 else pixels
    height, width, count = samples.shape
    part = bytes([*(value for n in range(1, count + 1) for value in (n, 0x11, 0))])
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([count]) + part
    table = bytes([0, *(9 if length == 4 else 0 for length in range(1, 17)), *range(9)])
    scan = bytes([count, *(value for n in range(1, count + 1) for value in (n, 0)), 1, 0, 0])
    wide = samples.astype(int)
    predicted = np.full_like(wide, 128)
    predicted[:, 1:] = wide[:, :-1]
    predicted[1:, 0] = wide[:-1, 0]
    bits = []
    for difference in (wide - predicted).ravel().tolist():
        category = abs(difference).bit_length()
        bits.append(f"{category:04b}")
        if category:
            bits.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    segments = ((0xC3, frame), (0xC4, table), (0xDA, scan))
    head = b"".join(bytes([0xFF, code]) + (len(body) + 2).to_bytes(2, "big") + body for code, body in segments)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def deflated_bomb(size: int) -> bytes:
    """Return a deflated file whose data set is ``size`` zeros."""
    whole = write_dicom(np.zeros((4, 4, 3), np.uint8), DEFLATED)
    start = whole.index(DEFLATED.encode())
    meta = whole[: 144 + int.from_bytes(whole[140:144], "little")]
    assert start < len(meta)
    deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = b"".join(deflater.compress(bytes(1 << 20)) for _ in range(size >> 20))
    return meta + zeros + deflater.flush()


def shipped(folder: str = "test_files") -> list[Path]:
    """Return the files that pydicom ships for its tests."""
    import pydicom.data

    return sorted(path for path in (Path(pydicom.data.__file__).parent / folder).rglob("*") if path.is_file())
