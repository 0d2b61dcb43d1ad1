"""A complete bundle around a tiny untrained network, made without TensorFlow in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as op
import pandas as pd

from dermafuse.data.metadata import MetadataEncoder
from dermafuse.labels import HAM10000
from dermafuse.runtime.bundle.folder import BundleContent, OutOfDistribution, PredictionSets, write_bundle

SIZE = 32
CHANNELS = 12

TABLE = pd.DataFrame(
    {
        "age": [20.0, 40.0, 60.0, None, 80.0, 55.0],
        "sex": ["male", "female", "male", "female", None, "male"],
        "localization": ["back", "face", "trunk", "back", "face", "abdomen"],
    }
)


def tiny_encoder(*, indicators: bool = True) -> MetadataEncoder:
    return MetadataEncoder.fit(
        TABLE, numeric=["age"], categorical=["sex", "localization"], missing_indicators=indicators
    )


def tiny_network(seed: int = 0, *, classes: int = 7, width: int = 0, size: int = SIZE) -> ov.Model:
    """Image (?, s, s, 3) uint8 and, with a width, metadata, to logits, feature map (4, 4, 12) and embedding."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int, scale: float) -> np.ndarray:
        return rng.normal(0.0, scale, shape).astype(np.float32)

    image = op.parameter(ov.PartialShape([-1, size, size, 3]), np.uint8, name="image_input")
    image.output(0).set_names({"image_input"})
    scaled = op.subtract(op.divide(op.convert(image, "f32"), np.float32(127.5)), np.float32(1.0))
    planes = op.transpose(scaled, np.array([0, 3, 1, 2]))
    stride = size // 4
    kernel = weights(CHANNELS, 3, stride, stride, scale=1.5 / stride)
    maps = op.swish(op.convolution(planes, kernel, [stride, stride], [0, 0], [0, 0], [1, 1]))
    pooled = op.reduce_mean(maps, np.array([2, 3]), keep_dims=False)
    fused, inputs = pooled, [image]
    if width:
        meta = op.parameter(ov.PartialShape([-1, width]), np.float32, name="meta_input")
        meta.output(0).set_names({"meta_input"})
        branch = op.relu(op.matmul(meta, weights(width, 8, scale=0.7), False, False))
        fused, inputs = op.concat([pooled, branch], 1), [image, meta]
    hidden = op.relu(op.matmul(fused, weights(CHANNELS + (8 if width else 0), 16, scale=0.8), False, False))
    logits = op.add(op.matmul(hidden, weights(16, classes, scale=0.8), False, False), weights(classes, scale=0.3))
    results = []
    for name, node in (
        ("logits", logits),
        ("feature_map", op.transpose(maps, np.array([0, 2, 3, 1]))),
        ("embedding", pooled),
    ):
        result = op.result(node)
        node.output(0).get_tensor().set_names({name})
        results.append(result)
    return ov.Model(results, inputs, "tiny")


def tiny_content(*, members: int = 1, metadata: bool = True, **changes: Any) -> BundleContent:
    encoder = tiny_encoder() if metadata else MetadataEncoder((), (), (), ())
    baseline = np.linspace(-0.2, 0.3, CHANNELS, dtype=np.float32)
    prefixes = [""] if members == 1 else [f"model-{number + 1}/" for number in range(members)]
    fields: dict[str, Any] = {
        "models": tuple(tiny_network(seed, width=encoder.width) for seed in range(members)),
        "head": {f"{prefix}baseline/embedding": baseline for prefix in prefixes},
        "image_size": SIZE,
        "encoder": encoder,
        "labels": HAM10000,
        "temperature": 1.3,
        "offsets": None,
        "prediction_set": PredictionSets(coverage=0.9, minimum_probability=[0.1] * 7),
        "ood": OutOfDistribution(method="energy", threshold=-1.0),
        "info": {"recipe": "test", "weights": "random"},
        "card": "# A tiny model\n",
    }
    return BundleContent(**{**fields, **changes})


def tiny_bundle(folder: Path, **changes: Any) -> Path:
    write_bundle(folder, tiny_content(**changes))
    return folder


def tiny_image(seed: int = 0, height: int = 45, width: int = 60) -> np.ndarray:
    """Smooth random colours, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 5, 3))
    rows = np.linspace(0, 3, height).round().astype(int)
    columns = np.linspace(0, 4, width).round().astype(int)
    return coarse[rows][:, columns].astype(np.uint8)
