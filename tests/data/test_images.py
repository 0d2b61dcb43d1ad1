"""`load_image`: every format and dialect to one square, nothing damaged accepted, nothing ever crashing."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from dermafuse.data.image_formats import webp_size
from dermafuse.data.images import dihedral_views, load_image, resize, view
from dermafuse.data.jpeg import jpeg_orientation
from dermafuse.errors import ConfigError, ImageError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
LOSSLESS = {"WEBP": {"lossless": True}}


def picture(height: int = 60, width: int = 80) -> np.ndarray:
    """A smooth picture without symmetry: each corner has its own colour."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [230 * x / width, 230 * y / height, 120 + 90 * np.sin(x / 9 + y / 13)]
    return np.stack(planes, 2).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, kind, **(LOSSLESS.get(kind, {}) | options))
    return stream.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def reference(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)).astype(int)


def close(a: np.ndarray, b: np.ndarray, limit: float) -> bool:
    return float(np.abs(a.astype(int) - b.astype(int)).max()) <= limit


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("size", [32, 70, 96])
def test_every_format_gives_pillows_pixels_to_one_grey_level(kind: str, size: int) -> None:
    data = encoded(picture(), kind)
    result = load_image(data, size)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    assert close(result, reference(Image.open(io.BytesIO(data)), size), 1)


@pytest.mark.parametrize("kind", FORMATS)
def test_path_text_bytes_pillow_and_array_give_the_same_pixels(kind: str, tmp_path: Path) -> None:
    data = encoded(picture(), kind)
    path = tmp_path / "misnamed.jpg"  # content decides, not the name
    path.write_bytes(data)
    expected = load_image(data, 96)
    image = Image.open(path)
    for source in (path, str(path), bytearray(data), image, np.asarray(image)):
        assert np.array_equal(load_image(source, 96), expected)


@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))),
    size=st.integers(40, 64),
)
@settings(max_examples=60, deadline=None)
def test_enlarging_differs_from_pillow_by_at_most_two_grey_levels_on_noise(pixels: np.ndarray, size: int) -> None:
    assert close(resize(pixels, size), reference(Image.fromarray(pixels), size), 2)


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    assert close(load_image(stripes, 50), np.full((50, 50, 3), 127), 20)


def test_a_large_jpeg_is_decoded_at_a_fraction_and_still_looks_the_same() -> None:
    large = Image.fromarray(picture()).resize((1200, 900), Image.Resampling.BICUBIC)
    data = encoded(large, "JPEG", quality=92)
    difference = np.abs(load_image(data, 100).astype(int) - reference(Image.open(io.BytesIO(data)), 100))
    assert difference.mean() < 1
    assert difference.max() <= 6


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    data = encoded(picture(), kind, exif=oriented(orientation))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    result = load_image(data, 90)
    assert close(result, reference(upright, 90), 2)
    assert np.array_equal(load_image(Image.open(io.BytesIO(data)), 90), result)
    assert not close(result, reference(Image.fromarray(picture()), 90), 30) or orientation == 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_jpeg_orientation_is_read_in_both_byte_orders_and_behind_other_segments(order: str) -> None:
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIHH", 0x010F, 3, 1, 9, 0) + struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + head + struct.pack(f"{order}IH", 8, 2) + entries
    plain = encoded(picture(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    assert jpeg_orientation(plain) == 1
    assert jpeg_orientation(plain[:20] + b"\xff\xff" + segment[1:] + plain[20:]) == 6


def test_grey_palette_and_bilevel_become_rgb() -> None:
    grey = Image.fromarray(picture()).convert("L")
    for kind in FORMATS:
        assert close(load_image(encoded(grey, kind), 96), reference(grey, 96), 3)
    for mode, kind in (("P", "PNG"), ("1", "PNG"), ("P", "BMP"), ("1", "TIFF")):
        image = Image.fromarray(picture()).convert(mode)
        assert close(load_image(encoded(image, kind), 96), reference(image, 96), 1)


def test_cmyk_jpeg_and_tiff_become_rgb() -> None:
    image = Image.fromarray(picture()).convert("CMYK")
    for kind, limit in (("JPEG", 12), ("TIFF", 1)):
        data = encoded(image, kind)
        assert close(load_image(data, 96), reference(Image.open(io.BytesIO(data)), 96), 1)
        assert close(load_image(data, 96), reference(Image.fromarray(picture()), 96), limit)


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("RGBA", "TIFF"), ("RGBA", "WEBP")])
def test_transparency_is_laid_over_white(mode: str, kind: str) -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)  # black ...
    pixels[:10, :, 3] = 255  # ... opaque above, transparent below
    result = load_image(
        encoded(Image.fromarray(pixels).convert(mode), kind, **({"exact": True} if kind == "WEBP" else {})), 20
    )
    assert (result[:10] == 0).all()
    assert (result[10:] == 255).all()


def test_a_transparent_palette_entry_is_white() -> None:
    image = Image.fromarray(np.zeros((8, 8), np.uint8)).convert("P")
    assert (load_image(encoded(image, "PNG", transparency=image.getpixel((0, 0))), 8) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    result = load_image(encoded(Image.fromarray(ramp), kind), 64)
    assert np.array_equal(result, np.repeat((ramp >> 8).astype(np.uint8)[:, :, None], 3, 2))
    assert np.array_equal(load_image(ramp, 64), result)


def deep_png(values: np.ndarray) -> bytes:
    """A 16-bit PNG of grey (h, w), RGB (h, w, 3) or RGBA (h, w, 4): Pillow writes no colour ones."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    kind = 0 if values.ndim == 2 else {3: 2, 4: 6}[values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def deep_tiff(values: np.ndarray, bits: int = 16, photometric: int = 1) -> bytes:
    """An uncompressed little-endian TIFF of grey (h, w) or RGB (h, w, 3) with 12 or 16 bits a channel."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else 3
    if bits == 16:
        body = values.astype("<u2").tobytes()
    else:
        pairs = values.reshape(-1, 2).astype(int)
        a, b = pairs[:, 0], pairs[:, 1]
        body = np.stack([a >> 4, (a & 15) << 4 | b >> 8, b & 255], axis=1).astype(np.uint8).tobytes()
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits), (259, 3, 1, 1)]
    tags += [(262, 3, 1, photometric if channels == 1 else 2), (273, 4, 1, 400), (277, 3, 1, channels)]
    tags += [(278, 3, 1, height), (279, 4, 1, len(body))]
    if channels == 3:
        tags[2] = (258, 3, 3, 300)  # three values do not fit the entry: they stand at byte 300
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = head.ljust(300, b"\0") + struct.pack("<3H", bits, bits, bits)
    return head.ljust(400, b"\0") + body


def test_sixteen_bit_colour_png_keeps_its_high_byte() -> None:
    colour = np.random.default_rng(0).integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    assert close(load_image(deep_png(colour), 64), load_image(colour, 64), 0)


@pytest.mark.parametrize("channels", [None, 3, 4])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_sixteen_are_refused_instead_of_read_as_nearly_black(bits: int, channels: int | None) -> None:
    shape = (8, 6) if channels is None else (8, 6, channels)
    values = np.random.default_rng(0).integers(0, 1 << bits, shape).astype(np.uint16)
    if channels == 4:
        values[:, :, 3] = 65535
        values[0, 0] = (65535, 65535, 65535, 0)  # what lies behind full transparency is no light
    sources = [deep_png(values), values, Image.open(io.BytesIO(deep_png(values)))]
    for source in [*sources, *([] if channels == 4 else [deep_tiff(values)])]:
        assert "nearly black; spread its values over the whole range" in refusal(source)


def test_twelve_bit_tiff_says_its_range_and_is_read_by_it() -> None:
    values = np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)
    expected = np.repeat((values >> 4).astype(np.uint8)[:, :, None], 3, 2)
    assert np.array_equal(load_image(deep_tiff(values, bits=12), 64), expected)


def test_a_sixteen_bit_tiff_in_which_zero_is_white_is_not_a_negative() -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    read = load_image(deep_tiff(values, photometric=0), 64)
    assert np.array_equal(read, 255 - load_image(deep_tiff(values), 64))
    assert read[0, 0, 0] == 255


def test_thirty_two_bit_pixels_are_refused() -> None:
    for values in (np.ones((8, 8), np.float32), np.ones((8, 8), np.int32)):
        with pytest.raises(ImageError, match="32-bit pixels; save it with 8-bit RGB"):
            load_image(encoded(Image.fromarray(values), "TIFF"), 8)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_the_image(kind: str) -> None:
    first, second = picture(), 255 - picture()
    data = encoded(first, kind, save_all=True, append_images=[Image.fromarray(second)])
    assert close(load_image(data, 96), load_image(first, 96), 1)


def refusal(source: object, **limits: int) -> str:
    with pytest.raises(ImageError) as caught:
        load_image(source, 32, **limits)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 330
    return message


def test_unusable_files_are_refused_by_name(tmp_path: Path) -> None:
    jpeg = encoded(picture(), "JPEG")
    cases = {
        "empty.jpg": (b"", "is empty (0 bytes)"),
        "text.jpg": (b"lesion,age\n", "is not an image"),
        "short.jpg": (jpeg[: len(jpeg) // 2], "is damaged or cut short"),
        "moving.gif": (encoded(Image.fromarray(picture()).convert("P"), "GIF"), "is a GIF file; convert it"),
        "scan.dcm": (bytes(128) + b"DICM" + bytes(64), "is a DICOM file in an unknown coding"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(64), "is a HEIC or video file"),
    }
    for name, (content, problem) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        message = refusal(path)
        assert message.startswith(str(path))
        assert problem in message
    assert "does not exist" in refusal(tmp_path / "none.jpg")
    assert "is a folder" in refusal(tmp_path)
    assert "cannot be read" in refusal("a\0b.jpg")
    assert refusal(jpeg[:100]).startswith("The image is damaged")
    assert "NoneType" in refusal(None)
    with pytest.raises(ImageError, match=r"^upload\.jpg is empty"):
        load_image(b"", 32, name="upload.jpg")


@pytest.mark.skipif(os.name == "nt", reason="named pipes")
def test_a_pipe_or_device_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    assert "not a regular file" in refusal("/dev/zero")


def test_arrays_of_other_types_and_shapes_are_refused() -> None:
    assert "float64" in refusal(np.zeros((4, 4, 3)))
    assert "shape (4, 4, 2)" in refusal(np.zeros((4, 4, 2), np.uint8))
    assert "shape (4,)" in refusal(np.zeros(4, np.uint8))
    assert "no pixels" in refusal(np.zeros((0, 4, 3), np.uint8))
    assert (load_image(np.zeros((4, 4, 4), np.uint8), 4) == 255).all()  # transparent
    assert load_image(np.full((4, 4, 1), 7, np.uint8), 4).tolist() == [[[7] * 3] * 4] * 4


def test_the_ceilings_hold_for_every_kind_of_source(tmp_path: Path) -> None:
    for kind in FORMATS:
        data = encoded(picture(), kind)
        path = tmp_path / kind
        path.write_bytes(data)
        for source in (data, path):
            assert "80x60 pixels, more than the 4,799 allowed" in refusal(source, max_pixels=4799)
            assert f"{len(data):,} bytes, more than" in refusal(source, max_bytes=len(data) - 1)
            assert load_image(source, 8, max_pixels=4800, max_bytes=len(data)).shape == (8, 8, 3)
    assert "80x60 pixels" in refusal(Image.fromarray(picture()), max_pixels=10)
    assert "80x60 pixels" in refusal(picture(), max_pixels=10)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
def test_a_decompression_bomb_is_refused_from_its_header(kind: str) -> None:
    """A tiny file whose header announces a huge image: nothing of that size may be allocated."""
    data = bytearray(encoded(np.zeros((8, 8, 3), np.uint8), kind, **({"lossless": False} if kind == "WEBP" else {})))
    if kind == "PNG":
        data[16:24] = struct.pack(">II", 60000, 60000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 60000, 60000)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", 60000, 60000)
    else:
        data[26:30] = struct.pack("<HH", 16000, 16000)
        assert webp_size(bytes(data)) == (16000, 16000)
    assert "more than the 64,000,000 allowed" in refusal(bytes(data))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"lossless": True, "exif": oriented(3)}])
def test_webp_sizes_are_read_from_the_header(options: dict[str, object]) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture(61, 83)).save(stream, "WEBP", **options)
    assert webp_size(stream.getvalue()) == (83, 61)


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    assert load_image(data, 32).shape == (32, 32, 3)
    assert "scans" in refusal(data[:at] + data[at:-2] * 60 + b"\xff\xd9")


def test_junk_before_the_end_marker_is_harmless_but_lost_data_is_not() -> None:
    data = encoded(picture(), "JPEG")
    assert np.array_equal(load_image(data[:-2] + b"\0\1\2\3" + data[-2:], 96), load_image(data, 96))
    assert np.array_equal(load_image(data + b"appended", 96), load_image(data, 96))
    assert "damaged or cut short" in refusal(data[:-40] + b"\xff\xd9")


def test_a_jpeg_cut_short_anywhere_is_refused() -> None:
    data = encoded(picture(), "JPEG", exif=oriented(6))
    for end in range(0, len(data), 3):
        refusal(data[:end])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks on a damaged TIFF
@pytest.mark.parametrize("kind", [*FORMATS, "CMYK", "PROGRESSIVE", "16-bit", "TIFF-LZW", "PALETTE"])
@given(draw=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_damage_gives_the_right_shape_or_an_image_error(kind: str, draw: st.DataObject) -> None:
    image = Image.fromarray(picture(24, 32))
    data = {
        "CMYK": lambda: encoded(image.convert("CMYK"), "JPEG"),
        "PROGRESSIVE": lambda: encoded(image, "JPEG", progressive=True, exif=oriented(5)),
        "16-bit": lambda: encoded(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100, "TIFF"),
        "TIFF-LZW": lambda: encoded(image, "TIFF", compression="tiff_lzw", exif=oriented(8)),
        "PALETTE": lambda: encoded(image.convert("P"), "PNG", transparency=3),
    }.get(kind, lambda: encoded(image, kind))()
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 6))):
        at = draw.draw(st.integers(0, len(data) - 1) | st.integers(0, min(160, len(data) - 1)))
        damaged[at] ^= draw.draw(st.integers(1, 255))
    end = draw.draw(st.just(len(data)) | st.integers(0, len(data)))
    with contextlib.suppress(ImageError):
        result = load_image(bytes(damaged[:end]), 40, max_pixels=1_000_000)
        assert result.shape == (40, 40, 3)
        assert result.dtype == np.uint8


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\0"]))
@settings(max_examples=150, deadline=None)
def test_any_bytes_at_all_give_an_image_error_or_an_image(body: bytes, start: bytes) -> None:
    with contextlib.suppress(ImageError):
        assert load_image(start + body, 16, max_pixels=100_000).shape == (16, 16, 3)


def test_views_are_the_eight_symmetries_in_the_documented_order() -> None:
    image = picture(20, 20)
    expected = [
        image,
        image[:, ::-1],
        image[::-1],
        np.rot90(image, 2),
        image.swapaxes(0, 1),
        np.rot90(image, 1),
        np.rot90(image, -1),
        np.rot90(image, 2).swapaxes(0, 1),
    ]
    views = dihedral_views(image)
    assert views.shape == (8, 20, 20, 3)
    assert len({one.tobytes() for one in views}) == 8
    for index, wanted in enumerate(expected):
        assert np.array_equal(views[index], wanted)
        assert view(image, index).flags.c_contiguous
    with pytest.raises(ConfigError):
        view(image, 8)


@pytest.mark.parametrize("size", [0, -1, 4097, 2.5, "240"])
def test_an_impossible_size_is_refused(size: object) -> None:
    with pytest.raises(ConfigError, match="image size"):
        load_image(picture(), size)  # type: ignore[arg-type]


def test_many_threads_get_the_pixels_that_one_thread_gets() -> None:
    jobs = [(encoded(picture(h, h + 20), "JPEG"), size) for h in (40, 60, 150) for size in (64, 200)] * 20
    expected = [load_image(*job) for job in jobs]
    with ThreadPoolExecutor(8) as pool:
        for got, wanted in zip(pool.map(lambda job: load_image(*job), jobs), expected, strict=True):
            assert np.array_equal(got, wanted)


def test_an_image_needs_neither_pandas_nor_scikit_learn() -> None:
    code = (
        "import sys; from dermafuse.data.images import load_image\n"
        "load_image(sys.stdin.buffer.read(), 240)\n"
        "print([m for m in ('pandas', 'sklearn', 'scipy', 'tensorflow') if m in sys.modules])"
    )
    data = encoded(picture(150, 200), "JPEG")
    out = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    assert out.stdout.strip() == b"[]"


@pytest.mark.ham10000
def test_the_fast_jpeg_path_matches_pillow_on_real_images(ham10000: Path) -> None:
    paths = sorted((ham10000 / "HAM10000_images_part_1").glob("*.jpg"))[:40]
    assert paths
    for path in paths:
        assert close(load_image(path, 240), reference(Image.open(path), 240), 1)
