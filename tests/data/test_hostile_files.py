"""Five hundred hostile files through the whole of prediction: each is predicted or listed with a reason."""

import csv
import io
import json
import random
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

import dermafuse
from dermafuse.errors import ImageError
from dermafuse.printable import plain
from dermafuse.runtime.explain.explainer import Explainer
from tiny_bundle import tiny_bundle, tiny_image

COUNT = 500

#: Predicts a table in a process of its own and reports its peak memory (bytes) and its seconds.
PREDICT = """
import json, resource, sys, time
import dermafuse
from dermafuse.runtime.batch.predict_table import predict_table
started = time.monotonic()
model = dermafuse.load(sys.argv[1], precision="f32", mode="throughput")
summary = predict_table(model, sys.argv[2], sys.argv[3])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
if sys.platform == "linux":  # where ru_maxrss also remembers the process that started this one
    peak = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({
    "rows": summary.rows, "predicted": summary.predicted, "failed": summary.failed,
    "peak": peak, "seconds": time.monotonic() - started,
}))
"""


def encoded(kind, seed=0, height=45, width=60, **options):
    content = io.BytesIO()
    Image.fromarray(tiny_image(seed, height, width)).save(content, kind, **options)
    return content.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bomb(width, height, real_rows):
    """A PNG that claims huge dimensions and holds some rows of zeros, compressed a thousandfold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (real_rows * (1 + 3 * width)), 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def png_text_bomb(size):
    """A small PNG with a comment that unpacks to ``size`` bytes."""
    whole = encoded("PNG")
    note = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * size, 9))
    return whole[:33] + note + whole[33:]


def huge_jpeg(width, height):
    """A JPEG whose header claims other dimensions than its data has."""
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans(scans):
    """A progressive JPEG with the same scan again and again: small to store, long to decode."""
    data = encoded("JPEG", height=400, width=400, progressive=True)
    first = data.index(b"\xff\xda")
    last = data.index(b"\xff\xc4", first + 2) if b"\xff\xc4" in data[first + 2 :] else data.rindex(b"\xff\xd9")
    return data[:last] + data[first:last] * scans + data[last:]


def animated(kind, frames=5):
    content = io.BytesIO()
    pictures = [Image.fromarray(tiny_image(seed)) for seed in range(frames)]
    pictures[0].save(content, kind, save_all=True, append_images=pictures[1:], duration=50)
    return content.getvalue()


def turned(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(kind, exif=exif)


def hostile_files():
    """Yield (name, content, must be predicted: True, must be refused: False, either: None), 500 of them."""
    rng = random.Random(7)
    suffix = {"JPEG": "jpg", "PNG": "png", "BMP": "bmp", "TIFF": "tif", "WEBP": "webp"}
    whole = {kind: encoded(kind) for kind in suffix}

    yield "empty.jpg", b"", False
    yield "zeros.jpg", b"\0" * 5000, False
    yield "text.jpg", b"this is not an image\n" * 50, False
    yield "table.png", b"image_id,age\nx,1\n", False
    yield "page.png", b"<html><script>alert(1)</script></html>", False
    yield "vector.jpg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', False
    yield "archive.jpg", b"PK\x03\x04" + b"\0" * 100, False
    yield "script.png", b"#!/bin/sh\nrm -rf x\n", False
    yield "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", False
    yield "pickle.png", b"\x80\x04\x95\x10\0\0\0\0\0\0\0\x8c\x02os\x94.", False
    yield "dicom.jpg", b"\0" * 128 + b"DICM" + b"\0" * 200, False
    for name in ("gif", "ppm", "ico"):
        yield f"other-{name}.jpg", encoded({"gif": "GIF", "ppm": "PPM", "ico": "ICO"}[name]), False
    yield "animated.gif", animated("GIF"), False
    for kind in ("PNG", "WEBP", "TIFF"):
        yield f"animated.{suffix[kind]}", animated(kind), True

    yield "bomb-1.png", png_bomb(60_000, 60_000, 10), False
    yield "bomb-2.png", png_bomb(2**31 - 1, 2**31 - 1, 0), False
    yield "bomb-3.png", png_bomb(30_000, 2, 2**10), None
    yield "bomb-4.png", png_bomb(8000, 7900, 7900), None  # below the ceiling, 190 MB unpacked
    yield "bomb-5.png", png_bomb(20_000, 20_000, 200), False
    yield "bomb-6.png", png_text_bomb(400_000_000), None
    yield "bomb-7.jpg", huge_jpeg(65_500, 65_500), False
    yield "bomb-8.jpg", huge_jpeg(7000, 7000), False  # cut short long before its end
    yield "bomb-9.jpg", huge_jpeg(0, 0), False
    yield "bomb-10.jpg", many_scans(2000), None
    bmp = bytearray(whole["BMP"])
    bmp[18:26] = struct.pack("<ii", 2**30, 2**30)
    yield "bomb-11.bmp", bytes(bmp), False
    yield "bomb-12.bmp", bytes(bmp[:18] + struct.pack("<ii", 60, -(2**31)) + bmp[26:]), False
    yield "tiny.png", encoded("PNG", height=1, width=1), True
    yield "line.png", encoded("PNG", height=1, width=3000), True

    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        for orientation in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535):
            yield f"exif-{orientation}.{suffix[kind]}", turned(kind, orientation), True
    yield (
        "exif-broken.jpg",
        whole["JPEG"][:2] + b"\xff\xe1\x00\x10Exif\0\0MM\0*\xff\xff\xff\xff" + whole["JPEG"][2:],
        None,
    )
    for number, (kind, other) in enumerate((a, b) for a in suffix for b in suffix if a != b):
        yield f"renamed-{number}.{suffix[other]}", whole[kind], True
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "I", "F"):
        content = io.BytesIO()
        base = Image.fromarray(tiny_image())
        image = Image.new(mode, (30, 20), 7) if mode in ("I;16", "I", "F") else base.convert(mode)
        image.save(content, "TIFF")
        yield f"mode-{mode.replace(';', '')}.tif", content.getvalue(), None

    made = 0
    while True:
        kind = rng.choice(list(suffix))
        data = bytearray(whole[kind])
        how = made % 5
        if how == 0:
            data = data[: rng.randrange(1, len(data))]
        elif how == 1:
            for _ in range(rng.choice((1, 3, 30))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif how == 2:
            start = rng.randrange(len(data))
            data[start : start + rng.randrange(1, 64)] = rng.randbytes(rng.randrange(64))
        elif how == 3:  # mostly the header
            for _ in range(4):
                data[rng.randrange(min(64, len(data)))] = rng.randrange(256)
        else:
            start = rng.randrange(len(data))
            data = data[:start] + data[rng.randrange(len(data)) :] + rng.randbytes(20)
        yield f"fuzz-{made}.{rng.choice(list(suffix.values()))}", bytes(data), None
        made += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    expected = {}
    for name, content, fate in hostile_files():
        if len(expected) == COUNT - 6:
            break
        assert name not in expected
        (folder / name).write_bytes(content)
        expected[name] = fate
    (folder / "a folder.jpg").mkdir()
    (folder / "broken link.jpg").symlink_to(folder / "nowhere")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    expected |= dict.fromkeys(
        ["a folder.jpg", "broken link.jpg", "loop.jpg", "gone.jpg", "x\0y.jpg", "z" * 5000], False
    )
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["image"], *([name] for name in expected)])
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


@pytest.fixture(scope="module")
def outcome(folder, tmp_path_factory):
    model = tiny_bundle(tmp_path_factory.mktemp("b") / "m")
    result = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PREDICT, model, folder / "table.csv", folder / "out.csv"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    with (folder / "out.csv").open(encoding="utf-8", newline="") as stream:
        return json.loads(result.stdout), list(csv.DictReader(stream)), result.stderr


def test_each_of_500_hostile_files_is_predicted_or_listed_with_a_reason(folder, outcome):
    summary, rows, _ = outcome
    expected = json.loads((folder / "expected.json").read_text())
    assert summary["rows"] == len(rows) == len(expected) == COUNT
    assert summary["predicted"] + summary["failed"] == COUNT
    for row, (name, fate) in zip(rows, expected.items(), strict=True):
        assert row["image"] == plain(name)
        assert bool(row["error"]) != bool(row["predicted"])
        if row["error"]:
            assert fate is not True, row["error"]
            assert len(row["error"]) > 15
        else:
            assert fate is not False, name
            assert sum(float(row[key]) for key in row if key.startswith("p_")) == pytest.approx(1.0, abs=1e-5)
    with (folder / "out.csv.skipped.csv").open(encoding="utf-8", newline="") as stream:
        listed = {row["image"]: row["reason"] for row in csv.DictReader(stream)}
    assert listed == {row["image"]: row["error"] for row in rows if row["error"]}


def test_hostile_files_neither_fill_the_memory_nor_hang_nor_write_to_the_terminal(outcome):
    summary, _, stderr = outcome
    assert summary["peak"] < 1.5 * 2**30
    assert summary["seconds"] < 60
    assert stderr == ""


def test_both_fates_are_common_enough_to_mean_something(outcome):
    summary, *_ = outcome
    assert summary["predicted"] > 80
    assert summary["failed"] > 150


def test_prediction_and_explanation_refuse_the_same_files(folder, tmp_path):
    model = dermafuse.load(tiny_bundle(tmp_path / "m"), precision="f32")
    explainer = Explainer(model)
    expected = json.loads((folder / "expected.json").read_text())
    names = [
        name for name, fate in expected.items() if fate is False and len(name) < 200 and not name.startswith("bomb")
    ]
    for name in names:
        for act in (model.predict, explainer.explain):
            with pytest.raises(ImageError):
                act(folder / name)


NOT_IMAGES = {
    "nothing": None,
    "number": 5,
    "empty path": "",
    "mapping": {},
    "object": object(),
    "no bytes": b"",
    "zero bytes": bytearray(9),
    "no pixels": np.zeros((0, 0, 3), np.uint8),
    "floats": np.zeros((4, 4)),
    "four axes": np.zeros((2, 3, 4, 3), np.uint8),
    "two channels": np.zeros((8, 8, 2), np.uint8),
    "booleans": np.zeros((8, 8, 3), bool),
}


@pytest.mark.parametrize("what", NOT_IMAGES)
def test_what_is_not_an_image_is_refused_in_a_sentence(tmp_path, what):
    model = dermafuse.load(tiny_bundle(tmp_path / "m"), precision="f32")
    with pytest.raises(ImageError):
        model.predict(NOT_IMAGES[what])
