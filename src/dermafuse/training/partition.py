"""The network of a run in its two halves: a frozen front for the engine and a part that Keras trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import openvino as ov
import xxhash

from dermafuse.data.images import PREPROCESSING_VERSION
from dermafuse.data.random_views import RANDOM_VIEWS_VERSION, VIEW_CHANGES
from dermafuse.files import cache_folder, write_atomic
from dermafuse.models.backbone_spec import BackboneSpec
from dermafuse.models.network_spec import HeadSpec, NetworkSpec, first_trained
from dermafuse.models.specs import check_image_size, spec
from dermafuse.models.weights import weights_id
from dermafuse.progress import SILENT, Reporter
from dermafuse.runtime.engine import choose_precision
from dermafuse.temporaries import temporary_folder
from dermafuse.training.config import TrainConfig
from dermafuse.training.features.store import StoreKey

if TYPE_CHECKING:
    import keras

#: Raised when the conversion below changes what it writes.
_FRONT_FORMAT: Final = 2

#: Output at the end of what stays in float32 where the engine computes in bfloat16.
_FLOAT32_OUTPUT: Final = "float32_until"

#: Cut behind the whole backbone: its globally pooled features.
POOLED: Final = "pooled"


@dataclass(frozen=True)
class Plan:
    """How the network of a run is divided.

    Attributes:
        backbone: what is known about it.
        image_size: side in pixels.
        weights: identity of the pretrained weights.
        cut: ``pooled`` (backbone frozen), a stage name (the tail from there on trains), or ``image``
            (nothing is cached: the whole network is in the training graph).
        trainable_from: first stage that trains; ``None``: the backbone is frozen.
        precision: of the engine that runs the frozen front.
        random_views: identity of the random views of stored activations.
    """

    backbone: BackboneSpec
    image_size: int
    weights: str
    cut: str
    trainable_from: str | None
    precision: Literal["f32", "bf16"]
    random_views: int | str = RANDOM_VIEWS_VERSION

    @property
    def cached(self) -> bool:
        """Whether training reads stored activations."""
        return self.cut != "image"


def plan_network(config: TrainConfig) -> Plan:
    """Decide where the network is cut.

    Raises:
        ConfigError: unknown backbone or stage, unusable size.
        WeightsError: ``weights`` names a file that is not the published one.
    """
    backbone = spec(config.backbone)
    size = check_image_size(config.image_size or backbone.image_size)
    first = first_trained(config.backbone, config.unfreeze_from)
    cut = first or POOLED
    if not config.cache or first == backbone.stage_names[0]:
        cut = "image"
    identity = weights_id(config.backbone, config.weights, seed=config.seed)
    precision = choose_precision(config.precision) if cut != "image" else "f32"
    views: int | str = RANDOM_VIEWS_VERSION
    if set(config.view_changes) != set(VIEW_CHANGES):
        views = f"{RANDOM_VIEWS_VERSION} {' '.join(sorted(config.view_changes))}"
    return Plan(backbone, size, identity, cut, first, precision, views)


def store_key(plan: Plan) -> StoreKey:
    """Return the key of the activations in front of the cut."""
    return StoreKey(
        backbone=plan.backbone.name,
        weights=plan.weights,
        cut=plan.cut,
        image_size=plan.image_size,
        preprocessing=PREPROCESSING_VERSION,
        random_views=plan.random_views,
        precision=plan.precision if plan.precision == "f32" else f"bf16 after {plan.backbone.float32_until}",
        shape=cut_shape(plan),
    )


def cut_shape(plan: Plan) -> tuple[int, ...]:
    """Return the shape of one activation at the cut."""
    if plan.cut == POOLED:
        return (plan.backbone.features,)
    return plan.backbone.shape(plan.backbone.before(plan.cut), plan.image_size)


def front_path(plan: Plan) -> Path:
    """Return where the frozen front is kept in the cache."""
    name = f"{plan.backbone.name}-{plan.image_size}-{plan.cut}-{plan.weights}-v{_FRONT_FORMAT}"
    return cache_folder() / "fronts" / f"{name}.xml"


def front_file(plan: Plan, config: TrainConfig, report: Reporter = SILENT) -> Path:
    """Return the frozen front as an OpenVINO file in the cache, converted from Keras where it is not there yet.

    Outputs: ``activation`` (batch, \\*shape) and, at the pooled cut, also ``feature_map`` (batch, h, w, c).
    A warm run thus neither builds nor traces the backbone in Keras. What is in the cache is used only where its hash
    agrees; else it is converted again, and that is said.
    """
    path = front_path(plan)
    state = _state(path)
    if state == "whole":
        return path
    if state != "missing":
        report.warn(f"The converted network {path} is {state}; it is converted again.")
    import keras

    from dermafuse.models.backbones import build_backbone, stage_output
    from dermafuse.models.cut import freeze, split_at
    from dermafuse.models.openvino import to_openvino, with_float32_start

    backbone = build_backbone(plan.backbone.name, image_size=plan.image_size, weights=config.weights, seed=config.seed)
    freeze(backbone)
    if plan.cut == POOLED:
        pooled = keras.layers.GlobalAveragePooling2D()(backbone.outputs[0])
        outputs = {"activation": pooled, "feature_map": backbone.outputs[0]}
    else:
        outputs = {"activation": split_at(backbone, plan.backbone, plan.cut)[0].outputs[0]}
    if not _front_in_float32(plan):
        until = stage_output(backbone, plan.backbone.stage(plan.backbone.float32_until))
        marked = with_float32_start(to_openvino(backbone, {**outputs, _FLOAT32_OUTPUT: until}), _FLOAT32_OUTPUT)
    else:  # all of this front is in the part that stays in float32
        marked = with_float32_start(to_openvino(backbone, outputs), "activation", keep=True)
    save_ir(marked, path)
    return path


def _front_in_float32(plan: Plan) -> bool:
    """Return whether the whole front lies in the part that stays in float32 whatever the engine computes in."""
    if plan.cut in (POOLED, "image"):
        return False
    stages = plan.backbone
    return stages.stage_index(plan.cut) <= stages.stage_index(stages.float32_until) + 1


def judged_precision(plan: Plan) -> Literal["f32", "bf16"]:
    """Return the arithmetic of what is judged: tails and heads are judged in float32, fronts as they were run."""
    return "f32" if plan.cut == "image" or _front_in_float32(plan) else plan.precision


def save_ir(model: ov.Model, path: Path, *, half: bool = False) -> None:
    """Write ``path`` (.xml) and its .bin; the .xml is put in place last, so that it never lacks its weights."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(path) as folder:
        written = folder / path.name
        ov.save_model(model, written, compress_to_fp16=half)
        seal = _seal(written)
        written.with_suffix(".bin").replace(path.with_suffix(".bin"))
        written.replace(path)
    write_atomic(path.with_suffix(".xxh3"), seal)


def _seal(path: Path) -> str:
    """Return a hash of an IR's two files, for the file beside them that tells damage (not forgery)."""
    hasher = xxhash.xxh3_128()
    for part in (path, path.with_suffix(".bin")):
        content = part.read_bytes()
        hasher.update(len(content).to_bytes(8, "little"))
        hasher.update(content)
    return hasher.hexdigest() + "\n"


def _state(path: Path) -> str:
    """Return ``whole`` or ``missing``, or what else is the matter with a converted front."""
    if not (path.exists() and path.with_suffix(".bin").exists()):
        return "missing"
    try:
        sealed = path.with_suffix(".xxh3").read_text(encoding="ascii")
        return "whole" if sealed == _seal(path) else "damaged (its hash differs)"
    except FileNotFoundError:
        return "without a hash, as an earlier version wrote it"
    except (OSError, UnicodeDecodeError) as error:
        return f"unreadable ({error})"


def extraction_model(path: Path) -> ov.Model:
    """Return the front with one uint8 image in and the activation alone out."""
    model = ov.Core().read_model(path)
    wanted = [result for result in model.get_results() if "activation" in result.get_output_tensor(0).get_names()]
    single = ov.Model(wanted, model.get_parameters(), "front")
    # A fixed batch of one compiles to the fastest kernels, and is as fast an image as any larger batch.
    shape = single.input(0).get_partial_shape()
    shape[0] = 1
    single.reshape(shape)
    return single


def head_spec(config: TrainConfig, classes: int, meta_width: int) -> HeadSpec:
    """Return the head that the configuration asks for, of ``classes`` answers and ``meta_width`` metadata columns."""
    return HeadSpec(
        classes=classes,
        meta_width=meta_width,
        image_dropout=config.image_dropout,
        meta_units=config.meta_units,
        fusion=config.fusion,
        fusion_dropout=config.fusion_dropout,
        fusion_units=config.fusion_units,
    )


def network_spec(plan: Plan, head: HeadSpec, config: TrainConfig) -> NetworkSpec:
    """Return the network of a run in plain values."""
    return NetworkSpec(
        backbone=plan.backbone.name,
        image_size=plan.image_size,
        head=head,
        weights=config.weights,
        seed=config.seed,
        trainable_from=plan.trainable_from,
        train_depthwise=config.train_depthwise,
    )


def trainable_model(plan: Plan, head: HeadSpec, config: TrainConfig) -> keras.Model:
    """Return the Keras model that trains: head alone, tail and head, or the whole network.

    A tail's 1x1 convolutions compute in bfloat16 where the engine does too (``plan.precision``).
    """
    return _network(plan, network_spec(plan, head, config), mixed=plan.precision == "bf16")


def inference_model(trained: keras.Model, plan: Plan, head: HeadSpec, config: TrainConfig) -> keras.Model:
    """Return the trained model in float32 throughout, for judging and deploying it."""
    if plan.precision == "f32" or plan.cut in (POOLED, "image"):
        return trained
    from dermafuse.models.cut import copy_weights

    model = _network(plan, network_spec(plan, head, config), mixed=False)
    copy_weights(trained, model)
    return model


def whole_model(plan: Plan, head: HeadSpec, config: TrainConfig) -> keras.Model:
    """Return the network from pixels to logits in float32, exactly those layers trainable that the run trains."""
    from dermafuse.models.classifier import whole_network

    return whole_network(network_spec(plan, head, config))


def _network(plan: Plan, network: NetworkSpec, *, mixed: bool) -> keras.Model:
    from dermafuse.models import classifier

    if plan.cut == POOLED:
        return classifier.head_network(network)
    return classifier.whole_network(network) if plan.cut == "image" else classifier.tail_network(network, mixed=mixed)


def deployable(model: keras.Model, plan: Plan, config: TrainConfig, report: Reporter = SILENT) -> ov.Model:
    """Return the whole trained network for inference.

    Inputs ``image_input`` uint8 (batch, s, s, 3) and, with metadata, ``meta_input`` float32 (batch, width).
    Outputs ``logits`` (batch, k), ``feature_map`` (batch, h, w, c) and ``embedding`` (batch, c), float32.
    """
    from dermafuse.models.backbones import stage_output
    from dermafuse.models.classifier import image_pool
    from dermafuse.models.openvino import to_openvino, with_float32_start

    pool = image_pool(model)
    if pool is None:
        head = to_openvino(model, {"logits": model.outputs[0]}, uint8_image=False)
        return joined(front_file(plan, config, report), head)
    outputs = {"logits": model.outputs[0], "feature_map": pool.input, "embedding": pool.output}
    if plan.cached:
        return joined(front_file(plan, config, report), to_openvino(model, outputs, uint8_image=False))
    until = stage_output(model, plan.backbone.stage(plan.backbone.float32_until))
    whole = to_openvino(model, {**outputs, _FLOAT32_OUTPUT: until})
    return with_float32_start(whole, _FLOAT32_OUTPUT)


def joined(front: Path, rest: ov.Model) -> ov.Model:
    """Return ``rest(front(image), meta)`` as one network, with ``feature_map`` and ``embedding`` among its outputs."""
    first = ov.Core().read_model(front)
    sources = {name: result.input(0).get_source_output() for name, result in _named_results(first).items()}
    entrance = next(p for p in rest.get_parameters() if "image_input" in p.get_output_tensor(0).get_names())
    for target in entrance.output(0).get_target_inputs():
        target.replace_source_output(sources["activation"])
    results = dict(_named_results(rest))
    if "feature_map" in sources:
        for name, source in (("feature_map", sources["feature_map"]), ("embedding", sources["activation"])):
            results[name] = ov.opset13.result(source)
            results[name].get_output_tensor(0).add_names({name})
    others = [parameter for parameter in rest.get_parameters() if parameter is not entrance]
    others = [p for p in others if "image_input" not in p.get_output_tensor(0).get_names()]
    order = ("logits", "feature_map", "embedding")
    return ov.Model([results[name] for name in order], [*first.get_parameters(), *others], "dermafuse")


def _named_results(model: ov.Model) -> Mapping[str, Any]:
    return {name: result for result in model.get_results() for name in result.get_output_tensor(0).get_names()}
