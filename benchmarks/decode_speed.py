"""Which decoder and which resizer: core time per image, each measured alone, then `load_image` as a whole.

    python benchmarks/decode_speed.py [FOLDER] [--images N] [--size S] [--threads T]

FOLDER holds JPEG images (searched in its sub-folders); without one, $DERMAFUSE_HAM10000 is used, and without
that, generated images. Larger originals (600x450, 4000x3000) are made from the same pictures by enlarging them
and adding sensor noise. Times are process CPU times: what one core needs for one image, best of several rounds.
"""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image
from rich.console import Console
from rich.table import Table

from dermafuse.data.images import dihedral_views, load_image, resize
from dermafuse.data.synthetic.dataset import write_synthetic

BILINEAR = Image.Resampling.BILINEAR


def core_ms(work: Callable[[Any], object], items: Sequence[Any], rounds: int = 5) -> float:
    """Return the CPU milliseconds of ``work`` per item, best of ``rounds``."""
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        for item in items:
            work(item)
        best = min(best, (time.process_time() - start) / len(items))
    return best * 1e3


def difference(work: Callable[[Any], np.ndarray], items: Sequence[bytes], size: int) -> str:
    """Return mean and largest difference in grey levels to a full Pillow decode and Pillow's bilinear filter."""
    means, most = [], 0
    for item in items[:50]:
        wanted = np.asarray(Image.open(io.BytesIO(item)).convert("RGB").resize((size, size), BILINEAR))
        gap = np.abs(work(item).astype(int) - wanted.astype(int))
        means.append(gap.mean())
        most = max(most, int(gap.max()))
    return f"{np.mean(means):.2f} / {most}"


def pillow_decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.load()
    return image


def pillow_draft(data: bytes, size: int) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    image.draft("RGB", (size, size))
    image.load()
    return image


def simplejpeg_scaled(data: bytes, size: int, factor: float) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, min_height=size, min_width=size, min_factor=factor)


def opencv_decode(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def opencv_resize(pixels: np.ndarray, size: int) -> np.ndarray:
    # INTER_LINEAR does not average when it shrinks; INTER_AREA does.
    shrinks = max(pixels.shape[:2]) > size
    return cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def pillow_resize(pixels: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((size, size), BILINEAR, reducing_gap=2.0))


def enlarge(data: bytes, width: int, height: int) -> bytes:
    image = pillow_decode(data).resize((width, height), Image.Resampling.BICUBIC)
    noise = np.random.default_rng(0).normal(0, 2, (height, width, 1))
    pixels = np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)


def measure(data: list[bytes], size: int, title: str, console: Console) -> None:
    full = [simplejpeg.decode_jpeg(one) for one in data]
    height, width = full[0].shape[:2]
    scaled = [simplejpeg_scaled(one, size, 2) for one in data]
    kilobytes = sum(map(len, data)) / len(data) / 1000
    table = Table(title=f"{title}: {len(data)} JPEGs of {width}x{height}, {kilobytes:.1f} kB, to {size}x{size}")
    for name in ("step", "core ms"):
        table.add_column(name, justify="left" if name == "step" else "right")
    table.add_column("grey levels off (mean / max)", justify="right")

    def row(name: str, work: Callable[[Any], Any], items: Sequence[Any], gap: str = "") -> None:
        table.add_row(name, f"{core_ms(work, items):.3f}", gap)

    row("decode: Pillow", pillow_decode, data)
    row("decode: simplejpeg", simplejpeg.decode_jpeg, data)
    row("decode: OpenCV", opencv_decode, data)
    if min(height, width) >= size:
        for factor in (1, 2):
            shape = simplejpeg_scaled(data[0], size, factor).shape
            label = f"decode: simplejpeg, DCT-scaled by 1/{factor} or less ({shape[1]}x{shape[0]})"
            row(label, lambda one, f=factor: simplejpeg_scaled(one, size, f), data)
        row("decode: Pillow draft", lambda one: pillow_draft(one, size), data)
    table.add_section()
    row("resize: Pillow", lambda one: pillow_resize(one, size), scaled)
    row("resize: OpenCV", lambda one: opencv_resize(one, size), scaled)
    row("resize: dermafuse", lambda one: resize(one, size), scaled)
    table.add_section()
    ways: dict[str, Callable[[bytes], np.ndarray]] = {
        "both: Pillow": lambda one: np.asarray(pillow_decode(one).convert("RGB").resize((size, size), BILINEAR)),
        "both: OpenCV": lambda one: opencv_resize(opencv_decode(one), size),
        "both: simplejpeg at any DCT scale + Pillow": lambda one: pillow_resize(simplejpeg_scaled(one, size, 1), size),
        "both: load_image": lambda one: load_image(one, size),
    }
    for name, work in ways.items():
        row(name, work, data, difference(work, data, size))
    console.print(table)


def find_images(folder: Path | None, count: int, scratch: Path) -> tuple[list[Path], str]:
    """Return some JPEG files and what they are."""
    if folder is None and os.environ.get("DERMAFUSE_HAM10000"):
        folder = Path(os.environ["DERMAFUSE_HAM10000"])
    if folder is not None:
        paths = sorted(folder.rglob("*.jpg"))[:count]
        if not paths:
            raise SystemExit(f"{folder} holds no .jpg files; name a folder of JPEG images.")
        return paths, f"images of {folder.name}"
    made = write_synthetic(scratch / "synthetic", lesions=max(14, count * 2 // 3))
    return sorted(made.rglob("*.jpg"))[:count], "SYNTHETIC images"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as scratch:
        paths, what = find_images(options.folder, options.images, Path(scratch))
        data = [path.read_bytes() for path in paths]
        measure(data, options.size, what, console)
        large = ((600, 450, 40), (4000, 3000, 4))
        for width, height, few in large:
            measure([enlarge(one, width, height) for one in data[:few]], options.size, f"{what}, enlarged", console)
        square = load_image(data[0], options.size)
        console.print(
            f"load_image from a path: {core_ms(lambda path: load_image(path, options.size), paths):.3f} core ms"
        )
        turned = core_ms(dihedral_views, [square] * 100)
        console.print(f"dihedral_views (8 of {options.size}x{options.size}): {turned:.3f} core ms")
        for threads in sorted({1, options.threads}):
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda path: load_image(path, options.size), paths))
                start = time.perf_counter()
                list(pool.map(lambda path: load_image(path, options.size), paths * 4))
                rate = 4 * len(paths) / (time.perf_counter() - start)
            console.print(f"load_image with {threads} thread(s): {rate:,.0f} images/s")


if __name__ == "__main__":
    main()
