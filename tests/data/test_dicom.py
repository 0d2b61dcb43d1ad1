"""DICOM: every coding is read right, everything else is refused in a sentence, and nobody is named."""

from __future__ import annotations

import logging
import random
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason='DICOM is not tested: pip install "dermafuse[dicom]"')

import dicom_files as files
from dermafuse.data import dicom
from dermafuse.data.image_formats import sniff, stored_size
from dermafuse.data.images import read_pixels
from dermafuse.data.words import BODY_SITES, Words
from dermafuse.errors import ImageError
from dicom_files import write_dicom
from tiny_bundle import tiny_image

EXACT = (
    files.IMPLICIT,
    files.EXPLICIT,
    files.BIG,
    files.DEFLATED,
    files.RLE,
    files.LOSSLESS,
    files.LOSSLESS_1,
    files.J2K_LOSSLESS,
)
LOSSY = (files.BASELINE, files.EXTENDED, files.J2K)
PICTURE = tiny_image(3, height=46, width=62)


def read(data: bytes) -> np.ndarray:
    from dermafuse.data.image_formats import decode

    pixels, orientation = decode(data, 4096, 10_000_000, "x.dcm")
    assert orientation == 1
    return pixels


@pytest.mark.parametrize("syntax", EXACT)
@pytest.mark.parametrize("kind", [files.DERMOSCOPIC, files.PHOTOGRAPH, files.CAPTURE])
def test_colours_come_out_as_they_went_in(syntax: str, kind: str) -> None:
    data = write_dicom(PICTURE, syntax, kind=kind)
    assert sniff(data, "x") == "dicom"
    assert stored_size(data, "x") == (62, 46)
    assert np.array_equal(read(data), PICTURE)


@pytest.mark.parametrize("syntax", LOSSY)
def test_lossy_codings_come_close(syntax: str) -> None:
    found = read(write_dicom(PICTURE, syntax)).astype(int)
    assert np.abs(found - PICTURE).mean() < 6
    assert np.abs(found.mean((0, 1)) - PICTURE.mean((0, 1))).max() < 2  # no other colour space


@pytest.mark.parametrize("syntax", [*EXACT, *LOSSY])
@pytest.mark.parametrize("inverted", [False, True])
def test_grey_of_eight_bits_and_its_inverse(syntax: str, inverted: bool) -> None:
    grey = np.ascontiguousarray(PICTURE[:, :, 1])
    changes = {"PhotometricInterpretation": "MONOCHROME1"} if inverted else {}
    found = read(write_dicom(255 - grey if inverted else grey, syntax, **changes))
    assert np.abs(found.astype(int) - grey[:, :, None]).max() <= (0 if syntax in EXACT else 40)


def test_jpeg_ls_is_read_as_its_decoder_reads_it() -> None:
    import pydicom
    from pydicom.encaps import get_frame

    (path,) = (path for path in files.shipped() if path.name == "MR_small_jpeg_ls_lossless.dcm")
    (twin,) = (path for path in files.shipped() if path.name == "MR_small.dcm")
    stream = get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    values = pydicom.dcmread(twin).pixel_array.astype(np.uint16)
    window = {"WindowCenter": "600", "WindowWidth": "1200"}
    wrapped = read(write_dicom(values, files.JPEG_LS, stream=stream, kind=files.CAPTURE, **window))
    plain = read(write_dicom(values, files.EXPLICIT, kind=files.CAPTURE, **window))
    assert np.array_equal(wrapped, plain)
    assert len(np.unique(plain)) > 50


@pytest.mark.parametrize("syntax", [files.EXPLICIT, files.BIG, files.RLE])
@pytest.mark.parametrize("stored", [10, 12, 16])
def test_more_bits_are_spread_over_the_range_that_the_file_states(syntax: str, stored: int) -> None:
    deep = PICTURE.astype(np.uint16) << (stored - 8)
    data = write_dicom(deep, syntax, BitsStored=stored, HighBit=stored - 1)
    assert np.array_equal(read(data), PICTURE)


def test_planes_palettes_and_windows() -> None:
    planar = np.ascontiguousarray(PICTURE.transpose(2, 0, 1)).tobytes()
    assert np.array_equal(read(write_dicom(PICTURE, PlanarConfiguration=1, PixelData=planar)), PICTURE)
    grey = np.ascontiguousarray(PICTURE[:, :, 0])
    tables = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    ramp = np.arange(256, dtype="<u2") * 257
    tables |= {
        f"{name}PaletteColorLookupTableData": entries.astype("<u2").tobytes()
        for name, entries in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", ramp // 2))
    }
    found = read(write_dicom(grey, PhotometricInterpretation="PALETTE COLOR", **tables))
    assert np.array_equal(found, np.stack([grey, 255 - grey, grey // 2], 2))
    deep = np.linspace(0, 4095, 600).reshape(20, 30).astype(np.uint16)
    shown = read(
        write_dicom(
            deep,
            BitsStored=12,
            HighBit=11,
            WindowCenter="1000",
            WindowWidth="1000",
            RescaleSlope="1",
            RescaleIntercept="0",
            kind=files.CAPTURE,
        )
    )
    assert shown[deep < 500].max() == 0
    assert shown[deep > 1500].min() == 255
    assert 120 < shown[np.abs(deep - 1000.0) < 8].mean() < 136


def test_every_file_that_pydicom_ships_is_read_as_it_reads_them_or_refused_in_a_sentence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import pydicom

    good = []
    with caplog.at_level(logging.DEBUG):
        for path in files.shipped():
            dicom.facts(path)
            try:
                found = read_pixels(path)
                good.append(path.name)
            except ImageError as error:
                assert str(error).startswith(f"{path} "), error
                assert str(error).endswith("."), error
                continue
            assert not caplog.records, path
            whole = pydicom.dcmread(path)
            theirs = pydicom.pixels.pixel_array(whole) >> max(0, whole.BitsStored - 8)
            assert np.array_equal(found, theirs if theirs.ndim == 3 else np.repeat(theirs[:, :, None], 3, 2)), path
            caplog.clear()
    assert len(good) >= 27, good


REFUSED = {
    "frames": (write_dicom(PICTURE, NumberOfFrames=3), "of 3 frames"),
    "another kind": (write_dicom(PICTURE, kind="1.2.840.10008.5.1.4.1.1.2"), "CT Image Storage"),
    "an unknown kind": (write_dicom(PICTURE, kind="1.2.3.4.5"), "(unknown)"),
    "no kind": (write_dicom(PICTURE, SOPClassUID=None), "(unknown)"),
    "signed": (write_dicom(PICTURE, PixelRepresentation=1), "signed"),
    "one bit": (write_dicom(PICTURE, BitsAllocated=1, BitsStored=1, HighBit=0), "1 of 1 bits"),
    "other colours": (write_dicom(PICTURE, PhotometricInterpretation="HSV"), "colours are not read"),
    "a lookup": (write_dicom(PICTURE[:, :, 0].copy(), PhotometricInterpretation="PALETTE COLOR"), "palette"),
    "units": (write_dicom(PICTURE[:, :, 0].copy(), RescaleSlope="2", RescaleIntercept="-1000"), "no window"),
    "no pixels": (write_dicom(PICTURE, PixelData=None), "without pixels"),
    "cut short": (write_dicom(PICTURE)[:-50], "damaged or cut short"),
    "rows that lie": (write_dicom(PICTURE, Rows=460), "damaged or cut short"),
    "more than stated": (write_dicom(PICTURE, Rows=10), "damaged or cut short"),
    "no rows": (write_dicom(PICTURE, Rows=0), "no pixels"),
    "too large": (write_dicom(PICTURE, Rows=65000, Columns=65000), "more than the"),
    "a JPEG of another size": (write_dicom(PICTURE, files.BASELINE, Rows=45), "damaged or cut short"),
    "a JPEG 2000 of another size": (write_dicom(PICTURE, files.J2K, Columns=64), "damaged or cut short"),
    "RLE of another size": (write_dicom(PICTURE, files.RLE, Columns=64), "damaged or cut short"),
    "dark": (write_dicom(PICTURE.astype(np.uint16) << 4), "nearly black"),
    "video": (
        write_dicom(PICTURE, files.BASELINE).replace(b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.10"),
        "not read",
    ),
    "a bomb": (files.deflated_bomb(80 << 20), "over 64 MiB"),
    "an envelope": (b"\x30\x82\x20\x00\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03" + bytes(90), "encrypted"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_refused_in_a_sentence_that_names_no_person(name: str) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ImageError, match=r"^x\.dcm ") as caught:
        read(data)
    assert reason in str(caught.value)
    assert not files.traces(str(caught.value))


def test_encrypted_attributes_are_refused() -> None:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.EncryptedContentTransferSyntaxUID = files.EXPLICIT
    item.EncryptedContent = bytes(8)
    with pytest.raises(ImageError, match="encrypted attributes"):
        read(write_dicom(PICTURE, EncryptedAttributesSequence=[item]))


def test_rle_that_unpacks_to_more_than_the_picture_is_refused_before_it_is_unpacked() -> None:
    grey = np.zeros((8, 8), np.uint8)
    runs = b"\x81\x00" * 500_000
    stream = (1).to_bytes(4, "little") + (64).to_bytes(4, "little") + bytes(56) + runs
    with pytest.raises(ImageError, match="damaged"):
        read(write_dicom(grey, files.RLE, stream=stream))


def test_damaged_files_never_crash_and_quote_nothing(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(5)
    small = PICTURE[:12, :16].copy()
    whole = [write_dicom(small, syntax) for syntax in (*EXACT, *LOSSY)]
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True):
        for number in range(220):
            data = bytearray(whole[number % len(whole)])
            if number % 3 == 0:
                del data[chance.randrange(132, len(data)) :]
            else:
                for _ in range(chance.choice((1, 4, 30))):
                    data[chance.randrange(132, len(data))] = chance.randrange(256)
            dicom.facts(bytes(data))
            try:
                assert read(bytes(data)).dtype == np.uint8
            except ImageError as error:
                assert not files.traces(str(error))
    assert not caplog.records


def test_identifiers_never_become_values() -> None:
    found = dicom.read(write_dicom(PICTURE), "x").data
    assert not files.traces(str(found))
    assert not files.traces(str(found.file_meta))
    for keyword in files.IDENTIFIERS:
        assert keyword not in found


@pytest.mark.parametrize(
    ("age", "years"),
    [("055Y", 55.0), ("018M", 1.5), ("026W", 0.5), ("001D", 0.0), ("000Y", None), ("55", None), ("999Y", None)],
)
def test_ages_are_years(age: str, years: float | None) -> None:
    assert dicom.facts(write_dicom(PICTURE, age=age)).get("age") == years


@pytest.mark.parametrize("syntax", [files.IMPLICIT, files.BIG, files.DEFLATED, files.J2K])
def test_facts_are_read_from_files_of_any_coding_and_from_the_head_alone(syntax: str, tmp_path: Path) -> None:
    large = np.zeros((700, 700, 3), np.uint8)
    path = tmp_path / "x"
    path.write_bytes(write_dicom(large, syntax, sex="M"))
    expected = {"age": 55.0, "sex": "male", "localization": "Skin of back"}
    assert dicom.facts(path) == dicom.facts(path.read_bytes()) == expected


def test_files_that_are_none_say_nothing(tmp_path: Path) -> None:
    assert dicom.facts(tmp_path / "absent.dcm") == dicom.facts(b"DICM") == dicom.facts(PICTURE) == {}
    two = write_dicom(PICTURE, age=None, sex=None, site=None)
    assert dicom.facts(two) == {}


def test_most_of_the_standard_body_sites_are_words_that_are_known() -> None:
    from pydicom.sr._cid_dict import cid_concepts
    from pydicom.sr._concepts_dict import concepts

    terms = [
        next(iter(concepts[scheme][name].values()))[0] for scheme, names in cid_concepts[4029].items() for name in names
    ]
    assert sum(BODY_SITES.find(term) is not None for term in terms) >= 135
    ham = Words(("back", "face", "acral", "foot", "lower extremity", "chest", "genital"), {})
    told = {
        "Skin of back": "back",
        "Skin of posterior surface of thorax": "back",
        "Skin of dorsum of nose": "face",
        "Skin of sole of foot": "acral",
        "Nail unit of great toe": "foot",
        "Skin of scrotum": "genital",
        "Skin of anterior surface of lower leg": "lower extremity",
        "history of back": None,
    }
    assert {term: ham.find(term) for term in told} == told


def test_without_pydicom_a_sentence_names_the_extra(tmp_path: Path) -> None:
    path = tmp_path / "lesion.dcm"
    path.write_bytes(write_dicom(PICTURE))
    code = f"""
import sys
sys.modules["pydicom"] = None
from importlib import util
real = util.find_spec
util.find_spec = lambda name, *more: None if name == "pydicom" else real(name, *more)
from dermafuse.data.images import load_image
from dermafuse.data.dicom import facts
print(facts({str(path)!r}))
try:
    load_image({str(path)!r}, 32)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "{}",
        f'ImageError {path} is a DICOM file, which needs pydicom; run: pip install "dermafuse[dicom]".',
    ]
