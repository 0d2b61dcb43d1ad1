"""The configuration of a training run: one flat table of settings, checked, read from and written to TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dermafuse.data.random_views import VIEW_CHANGES, ViewChange
from dermafuse.errors import ConfigError, nearest
from dermafuse.files import read_regular
from dermafuse.models.fusion import FUSIONS
from dermafuse.models.specs import describe_stages, spec
from dermafuse.training.recipes import DEFAULT_RECIPE, RECIPES

if TYPE_CHECKING:
    FusionName: TypeAlias = str
else:
    FusionName = Literal[tuple(FUSIONS)]

#: ``[settings]`` written as these texts mean "not set" (TOML has no null).
_NONE = ("none", "")


class TrainConfig(BaseModel):
    """Every setting of a run. ``RUN/config.toml`` holds all of them; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # what is trained on what
    recipe: str = Field(DEFAULT_RECIPE, description="the recipe whose values the other settings start from")
    data: str = Field("", description="the data set: folder of a known layout, or a .toml of an own table")
    split: Literal["lesion", "image"] = Field(
        "lesion", description="what stays on one side of the split; image leaks, as published work does"
    )
    validation_fraction: float = Field(0.2, gt=0, lt=1, description="share of images held out to be reported")
    folds: int = Field(0, ge=0, description="cross-validate in so many parts; 0: one split")
    seed: int = Field(0, ge=0, lt=2**31, description="of the split, the weights and every draw")
    max_bad: float = Field(0.01, ge=0, le=1, description="share of unusable rows that stops the run")

    # the network
    backbone: str = Field("efficientnet_b1", description="the image network")
    weights: str = Field("imagenet", description="of the backbone: imagenet, random, or a file")
    image_size: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = Field(
        0,
        description="side in pixels; 0: the backbone's native size; auto: what fits the images, the backbone and the "
        "recipe's time",
    )
    unfreeze_from: str | None = Field(
        None, description=f"first trained stage: {describe_stages()}; none: frozen; all: everything"
    )
    train_depthwise: bool = Field(
        True, description="train depthwise kernels too; without them a step takes 0.7 of the time"
    )
    image_dropout: float = Field(0.3, ge=0, lt=1, description="dropout after the image branch")
    meta_units: tuple[int, ...] = Field((32, 16), description="sizes of the dense layers of the metadata branch")
    fusion: FusionName = Field("concat", description="how image and metadata are joined")
    fusion_dropout: float = Field(0.4, ge=0, lt=1, description="dropout after the two are joined")
    fusion_units: int = Field(64, ge=1, description="size of the dense layer after the two are joined")
    missing_indicators: bool = Field(False, description="tell the network which metadata are missing")

    # how it is trained
    epochs: int = Field(20, ge=1, description="passes over the training rows, at most")
    batch_size: int = Field(32, ge=1, description="images a step")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam")
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate; cosine: falls to 0")
    warmup_epochs: float = Field(0.0, ge=0, description="with cosine: epochs in which the rate rises first")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW; 0: Adam")
    ema: float = Field(0.0, ge=0, lt=1, description="momentum of the average of the weights; 0: none")
    class_weighting: Literal["none", "balanced", "inverse_sqrt", "effective_number"] = Field(
        "balanced", description="weight of each class in the loss; balanced: n / (classes * n_c)"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread over all classes; 0: none")
    logit_adjustment: float = Field(
        0.0, ge=0, description="favours rare classes in the loss: tau of Menon et al. 2021; 0: none"
    )
    focal_gamma: float = Field(
        0.0, ge=0, le=10, description="hard images count more: gamma of Lin et al. 2017; 0: none"
    )
    margin: float = Field(
        0.0, ge=0, le=10, description="rarer classes get wider margins, up to this one: LDAM, Cao et al. 2019; 0: none"
    )
    deferred_weighting: float = Field(
        0.0, ge=0, lt=1, description="share of the epochs before class weights count (Cao et al. 2019)"
    )
    metadata_dropout: float = Field(0.0, ge=0, lt=1, description="chance that a record loses all metadata")
    field_dropout: float = Field(0.0, ge=0, lt=1, description="chance that a record loses one field")
    views: Literal[1, 2, 4, 8] = Field(1, description="flips and quarter turns, cached; 1: the image as it is")
    random_views: Annotated[int, Field(ge=0, le=200)] | Literal["fresh"] = Field(
        0,
        description="views of random framing, colour and quality, cached; "
        "fresh: so many of each image that training never draws a random view twice",
    )
    view_changes: tuple[ViewChange, ...] = Field(VIEW_CHANGES, description="what random views change")
    mixup: float = Field(0.0, ge=0, le=2, description="blends pairs of images: alpha of Zhang et al. 2018; 0: none")
    cutmix: float = Field(
        0.0, ge=0, le=2, description="swaps parts of images: alpha of CutMix, Yun et al. 2019; 0: none"
    )
    sampling_power: float = Field(
        0.0, ge=0, le=1, description="classes are drawn by n_c^(1-power): 0 as they come, 1 equally often"
    )
    teacher: str = Field(
        "", description="RUN of an ensemble whose out-of-fold predictions are learned beside the labels; empty: none"
    )
    teacher_share: float = Field(
        0.5, ge=0, le=1, description="weight of the teacher's answers, the rest is the label's"
    )
    patience: int = Field(5, ge=1, description="epochs without a better one after which training stops")
    monitor: Literal["loss", "macro_f1", "balanced_accuracy", "last"] = Field(
        "loss", description="what the best epoch is best in; last: the last one, without early stopping"
    )
    tuning_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of training lesions held out for stopping and temperature; 0: validation",
    )

    # an ensemble
    members: tuple[str, ...] = Field((), description="backbones of an ensemble; none: the one network of `backbone`")
    member_folds: int = Field(5, ge=2, description="each backbone of an ensemble is trained on so many parts, less one")

    # how it decides
    decision: Literal["argmax", "prior"] = Field(
        "argmax",
        description="argmax: the most probable class; prior: offsets against the class priors, their strength fitted "
        "on the tuning rows",
    )

    uncertainty: bool = Field(True, description="fit prediction sets and the out-of-distribution flag")
    coverage: float = Field(0.9, gt=0, lt=1, description="share of prediction sets that hold the true class")

    # how it is run
    report: bool = Field(True, description="write report.html and figures/ at the end")
    cache: bool = Field(True, description="frozen part once through the engine; false: the literal recipe")
    precision: Literal["auto", "f32", "bf16"] = Field(
        "auto", description="arithmetic of the frozen part; auto: bf16 where the processor has it"
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.recipe not in RECIPES:
            raise ConfigError(
                f"Unknown recipe '{self.recipe}'; there are {', '.join(RECIPES)}.{nearest(self.recipe, RECIPES)}"
            )
        if (self.views > 1 or self.random_views) and (self.unfreeze_from == "all" or not self.cache):
            raise ConfigError(
                "views and random_views belong to cached activations; with unfreeze_from=all the images are augmented "
                "instead: set views=1 and random_views=0."
            )
        if self.cutmix and (self.mixup or self.unfreeze_from is None):
            raise ConfigError("cutmix cuts maps, which a frozen backbone has pooled, and excludes mixup: set one to 0.")
        if self.teacher and (self.cutmix or self.mixup or self.logit_adjustment or self.margin or self.members):
            raise ConfigError(
                "A teacher goes with the plain loss of one network: set mixup, cutmix, logit_adjustment and margin "
                "to 0, and members to none."
            )
        if self.members and (self.tuning_fraction == 0 or self.split != "lesion"):
            raise ConfigError("An ensemble holds out lesions in turn: set split=lesion and a tuning_fraction above 0.")
        if self.fusion == "metadata_only" and (self.unfreeze_from is not None or not self.cache):
            raise ConfigError(
                "fusion=metadata_only ignores the image, so there is nothing to fine-tune: set unfreeze_from=none "
                "and cache=true."
            )
        return self

    @property
    def early_stopping_rows(self) -> Literal["tuning", "validation"]:
        """Which rows early stopping looks at."""
        return "tuning" if self.tuning_fraction > 0 else "validation"


def resolve(
    recipe: str | None = None,
    *,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> TrainConfig:
    """Build the configuration: recipe, then the file, then named options, then ``--set key=value``; last wins.

    Args:
        recipe: name in ``RECIPES``; ``None``: the file's, else ``standard``.
        file: a ``config.toml``.
        options: setting -> value; ``None`` values are passed over (an option that was not given).
        assignments: texts ``key=value``; the value is read as TOML, else as a plain string.

    Raises:
        ConfigError: an unknown name (with the nearest known one) or an unusable value.
    """
    named = asked(recipe, file=file, options=options, assignments=assignments)
    name = named.get("recipe") or DEFAULT_RECIPE
    if name not in RECIPES:
        raise ConfigError(f"Unknown recipe '{name}'; there are {', '.join(RECIPES)}.{nearest(name, RECIPES)}")
    settings = {**RECIPES[name], **named, "recipe": name}
    if "unfreeze_from" not in named and settings.get("unfreeze_from"):
        settings["unfreeze_from"] = _tail(settings)
    return validated(settings)


def asked(
    recipe: str | None = None,
    *,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the settings that were named, and no others; arguments and precedence as `resolve` has them."""
    named = read_toml(file) if file else {}
    named |= {"recipe": recipe} if recipe else {}
    named |= {key: value for key, value in (options or {}).items() if value is not None}
    return named | dict(parse_assignment(text) for text in assignments)


def _tail(settings: Mapping[str, Any]) -> Any:
    """Return from which stage a recipe that fine-tunes trains the backbone that was chosen."""
    members = settings.get("members") or [settings.get("backbone")]
    first = members[0] if isinstance(members, list | tuple) else None
    return spec(first).tail if isinstance(first, str) else settings["unfreeze_from"]


def validated(settings: Mapping[str, Any]) -> TrainConfig:
    """Check names, types and ranges of ``settings`` and return the configuration."""
    known = TrainConfig.model_fields
    for key in settings:
        if key not in known:
            raise ConfigError(f"Unknown setting '{key}'.{nearest(key, known)} Known: {', '.join(sorted(known))}.")
    cleaned = {
        key: None if isinstance(value, str) and value in _NONE and known[key].default is None else value
        for key, value in settings.items()
    }
    try:
        return TrainConfig.model_validate(cleaned)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        raise ConfigError(f"Setting {where}={first['input']!r}: {first['msg'].lower()}.") from error


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is read as TOML (numbers, true/false, lists), else taken as text."""
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set takes key=value, not '{text}'; for example --set epochs=10.")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    return key.strip(), parsed


def read_toml(path: Path) -> dict[str, Any]:
    """Read a ``config.toml`` into a flat dictionary.

    Raises:
        ConfigError: the file is missing or is not TOML.
    """
    try:
        return tomllib.loads(read_regular(path).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"Cannot read the configuration {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a TOML file: {error}.") from error


def plain_settings(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration as TOML knows values: lists for tuples, ``"none"`` for what is not set."""
    values = {key: "none" if value is None else value for key, value in config.model_dump().items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def to_toml(config: TrainConfig) -> str:
    """Return the configuration as TOML text that ``resolve(file=...)`` reads back to an equal configuration."""
    values = plain_settings(config)
    head = "# Repeats this run: dermafuse train --config config.toml --out NEW_RUN\n"
    return head + tomli_w.dumps(values)
