"""What a network is, in plain values: enough to build it again without the settings of its training; no Keras here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dermafuse.errors import ConfigError
from dermafuse.models.specs import check_image_size, spec


@dataclass(frozen=True)
class HeadSpec:
    """What stands behind the last feature map. The defaults are those of the reference recipe.

    Attributes:
        classes: number of diagnoses k.
        meta_width: width of the encoded metadata vector; 0 leaves the metadata branch out.
        image_dropout: rate after global average pooling.
        meta_units: units of the ReLU layers of the metadata branch.
        fusion: name of the fusion (``models/fusion.py``).
        fusion_dropout: rate behind the fused vector.
        fusion_units: units of the ReLU layer before the logits.
    """

    classes: int
    meta_width: int
    image_dropout: float = 0.3
    meta_units: Sequence[int] = (32, 16)
    fusion: str = "concat"
    fusion_dropout: float = 0.4
    fusion_units: int = 64


@dataclass(frozen=True)
class NetworkSpec:
    """A whole network, from pixels to logits.

    Attributes:
        backbone: name in the registry (``models/specs.py``).
        image_size: side in pixels.
        head: what stands behind the backbone.
        weights: of the backbone: ``imagenet``, ``random`` or a file.
        seed: of random weights, of the head's first ones and of dropout.
        trainable_from: first stage that trains; ``None``: the backbone is frozen.
        train_depthwise: whether depthwise convolutions of trained stages train.
    """

    backbone: str
    image_size: int
    head: HeadSpec
    weights: str = "imagenet"
    seed: int = 0
    trainable_from: str | None = None
    train_depthwise: bool = True

    @classmethod
    def from_settings(
        cls, settings: Mapping[str, Any], *, image_size: int, classes: int, meta_width: int
    ) -> NetworkSpec:
        """Return the network that settings ask for, such as the content of a RUN's ``config.toml``.

        Args:
            settings: name -> value; other names than those of a network are passed over, missing ones take the
                defaults above.
            image_size: side in pixels.
            classes: number of diagnoses k.
            meta_width: width of the encoded metadata vector.

        Raises:
            ConfigError: a value of another type, an unknown backbone or stage, an unusable size.
        """
        names = ("image_dropout", "meta_units", "fusion", "fusion_dropout", "fusion_units")
        head = {name: settings[name] for name in names if name in settings}
        own = {name: settings[name] for name in ("backbone", "weights", "seed", "train_depthwise") if name in settings}
        try:
            made = TypeAdapter(cls).validate_python(
                {
                    **own,
                    "image_size": check_image_size(image_size),
                    "trainable_from": first_trained(str(own.get("backbone")), settings.get("unfreeze_from")),
                    "head": {"classes": classes, "meta_width": meta_width, **head},
                }
            )
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(f"Setting {first['loc'][-1]}={first['input']!r}: {first['msg'].lower()}.") from error
        return made


def first_trained(backbone: str, unfreeze_from: object) -> str | None:
    """Return the first stage that trains: ``all`` is the first there is, ``none`` (or ``None``) means none.

    Raises:
        ConfigError: unknown backbone or stage.
    """
    known = spec(backbone)
    if unfreeze_from in (None, "none", ""):
        return None
    first = known.stage_names[0] if unfreeze_from == "all" else str(unfreeze_from)
    known.stage_index(first)
    return first
