"""What a generated lesion is made of: how each diagnosis tends to look, and the noise its texture is read from.

Nothing here is a patient. The ranges of the seven diagnoses overlap on purpose, as the real ones do: the
classes can be learned, not read off.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.floating[Any]]
Range = tuple[float, float]

#: Noise is drawn once on a torus of this side, at twice the resolution of the pictures.
TORUS: Final = 512


@dataclass(frozen=True)
class Look:
    """How a diagnosis tends to look: each value is drawn evenly from its (low, high) for every lesion.

    Densities are in units of absorption (see `images`); radius is a share of the picture's height; all others
    are strengths from 0 (none) to about 1.
    """

    radius: Range
    melanin: Range
    blood: Range
    edge: Range  # softness of the border
    ragged: Range  # how far the border strays from an ellipse
    uneven: Range  # low-frequency variation of pigment: several colours in one lesion
    network: Range = (0, 0.15)  # reticular lines of pigment
    globules: Range = (0, 0.12)  # dark dots and clods
    milia: Range = (0, 0.04)  # small white dots
    veil: Range = (0, 0.1)  # blue-grey areas
    scar: Range = (0, 0.1)  # white centre
    scale: Range = (0, 0.1)  # white flakes
    vessels: Range = (0, 0.2)  # branching red lines
    lagoons: Range = (0, 0.05)  # round red spaces with pale walls


#: The content of ``diagnoses.toml``.
TABLE: Final[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("diagnoses.toml").read_text("utf-8"))
LOOKS: Final = {
    code: Look(**{trait: tuple(bounds) for trait, bounds in facts["look"].items()})
    for code, facts in TABLE["diagnoses"].items()
}


class Noise:
    """Smooth random fields on a torus, made once; a lesion reads its own patch of them."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        frequency = np.hypot(np.fft.fftfreq(TORUS)[:, None], np.fft.rfftfreq(TORUS)[None]) * 2  # cycles a pixel
        safe = np.maximum(frequency, 1e-6)

        def field(spectrum: Points) -> Floats:
            white = np.fft.rfft2(rng.standard_normal((TORUS, TORUS)))
            values = np.fft.irfft2(white * spectrum * (frequency > 0), s=(TORUS, TORUS))
            scaled: Floats = (values / values.std()).astype(np.float32).ravel()
            return scaled

        def band(wavelength: float, width: float) -> Points:
            passed: Points = np.exp(-(np.log(safe * wavelength) ** 2) / (2 * width**2))
            return passed

        self.broad = [field(safe**-1.7 * (frequency < 0.06)) for _ in range(3)]  # areas
        self.fractal = [field(safe**-1.4) for _ in range(2)]  # mottling
        self.mesh = field(band(9.0, 0.22))  # its zero crossings are the network
        self.pores = field(band(4.5, 0.35))
        self.flakes = field(band(11.0, 0.5))


@dataclass(frozen=True)
class Lesion:
    """One lesion, the same in all its pictures. Positions are in units of its radius.

    Attributes:
        traits: a value for each entry of its `Look`.
        shape: aspect ratio, and amplitude and phase of the harmonics of its outline (5, 2).
        skin: melanin and blood of the skin around.
        spots: where globules lie: x, y, radius (n, 3).
        milia: where white dots lie (n, 3).
        lagoons: where red spaces lie (n, 3).
        branches: vessels as polylines of (x, y).
        patch: where in the noise it reads.
        scar_at: x, y of the white centre.
        hairy: how many hairs its pictures tend to have.
    """

    traits: dict[str, float]
    aspect: float
    outline: Points
    skin: tuple[float, float, float]
    spots: Points
    milia: Points
    lagoons: Points
    branches: list[Points]
    patch: tuple[int, int]
    scar_at: tuple[float, float]
    hairy: float


def make_lesion(dx: str, rng: np.random.Generator) -> Lesion:
    """Draw what stays the same in all pictures of one lesion of diagnosis ``dx``."""
    traits = {name: float(rng.uniform(*bounds)) for name, bounds in vars(LOOKS[dx]).items()}
    outline = np.stack([rng.normal(0, 1, 5) / (1.0 + np.arange(5)), rng.uniform(0, 2 * np.pi, 5)], 1)
    return Lesion(
        traits=traits,
        aspect=float(rng.uniform(1.0, 1.45)),
        outline=outline,
        skin=(float(rng.gamma(2.0, 0.045)), float(rng.uniform(0.05, 0.3)), float(rng.uniform(0, 1))),
        spots=_scatter(rng, int(rng.poisson(70 * traits["globules"])), 0.012, 0.06, 0.95),
        milia=_scatter(rng, int(rng.poisson(60 * traits["milia"])), 0.01, 0.038, 0.9),
        lagoons=_scatter(rng, int(rng.poisson(22 * traits["lagoons"])), 0.16, 0.36, 0.8),
        branches=_branches(rng, int(rng.poisson(7 * traits["vessels"]))),
        patch=(int(rng.integers(TORUS)), int(rng.integers(TORUS))),
        scar_at=(float(rng.normal(0, 0.12)), float(rng.normal(0, 0.12))),
        hairy=float(rng.choice([0, 0, 0, 2, 5, 14])),
    )


def _scatter(rng: np.random.Generator, count: int, small: float, large: float, reach: float) -> Points:
    """Return ``count`` discs (x, y, radius) within ``reach`` of the centre."""
    angle = rng.uniform(0, 2 * np.pi, count)
    distance = reach * np.sqrt(rng.uniform(0, 1, count))
    return np.stack([distance * np.cos(angle), distance * np.sin(angle), rng.uniform(small, large, count)], 1)


def _branches(rng: np.random.Generator, count: int) -> list[Points]:
    """Return vessels: random walks from the rim inwards, each with two thinner ones that leave it."""
    lines = []
    for _ in range(count):
        rim = rng.uniform(0, 2 * np.pi)
        start, heading = np.array([np.cos(rim), np.sin(rim)]) * rng.uniform(0.4, 1.05), rim + np.pi
        stem = _walk(rng, start, heading, 14)
        lines.append(stem)
        for joint in rng.integers(3, 12, 2):
            lines.append(_walk(rng, stem[joint], heading + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1), 8))
    return lines


def _walk(rng: np.random.Generator, start: Points, heading: float, steps: int) -> Points:
    angles = heading + np.cumsum(rng.normal(0, 0.35, steps))
    path: Points = start + 0.075 * np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), axis=0)
    return path
