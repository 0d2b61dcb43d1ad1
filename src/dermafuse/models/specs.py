"""The registry of backbones: every one by its name (no Keras here). One more is one more registration in its family."""

from __future__ import annotations

from dermafuse.errors import ConfigError, nearest
from dermafuse.models.backbone_spec import BackboneSpec
from dermafuse.models.families import convnext, efficientnet, efficientnet_lite

MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 32, 1024

SPECS: dict[str, BackboneSpec] = {
    backbone.name: backbone
    for family in (efficientnet.BACKBONES, efficientnet_lite.BACKBONES, convnext.BACKBONES)
    for backbone in family
}


def spec(name: str) -> BackboneSpec:
    """Return what is known about a backbone.

    Raises:
        ConfigError: the name is unknown; the message lists the known ones and the nearest.
    """
    if name not in SPECS:
        raise ConfigError(f"There is no backbone '{name}'; choose one of {', '.join(SPECS)}.{nearest(name, SPECS)}")
    return SPECS[name]


def describe_stages() -> str:
    """Return for help texts where each family can be cut: ``block1 to block7 or top (EfficientNet), ...``."""
    families: dict[tuple[str, ...], list[str]] = {}
    for backbone in SPECS.values():
        named = families.setdefault(backbone.stage_names, [])
        if backbone.family not in named:
            named.append(backbone.family)
    return ", ".join(
        f"{names[1]} to {names[-2]} or {names[-1]} ({' and '.join(named)})" for names, named in families.items()
    )


def check_image_size(size: object) -> int:
    """Return ``size`` where it is a usable input size in pixels.

    Raises:
        ConfigError: it is not a whole number in 32..1024.
    """
    if isinstance(size, bool) or not isinstance(size, int) or not MIN_IMAGE_SIZE <= size <= MAX_IMAGE_SIZE:
        raise ConfigError(
            f"The image size {size!r} is not usable; give a whole number of pixels "
            f"from {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE}."
        )
    return size
