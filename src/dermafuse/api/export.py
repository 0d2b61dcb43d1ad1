"""``df.export``: what ``dermafuse export`` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dermafuse.api.reporting import reporter
from dermafuse.api.run import Model, model_path
from dermafuse.progress import Reporter


def export(
    run: Model,
    format: str,
    to: str | Path,
    *,
    int8: bool = False,
    data: str | Path | None = None,
    progress: bool | Reporter = True,
) -> Mapping[str, Any]:
    """Write a model for other programs, verified against the model itself, or not at all.

    Args:
        run: a Run, or the path of a RUN; for ``openvino`` a bundle will do.
        format: ``openvino``, ``onnx``, ``keras`` or (with ``int8``) ``bundle``.
        to: the folder to make.
        int8: 8-bit integers (``openvino``, ``bundle``); refused where accuracy drops by more than a point.
        data: images to verify on; ``None``: the data of the run.
        progress: ``True``: told on stderr; ``False``: to ``logging`` alone; or a reporter of your own.

    Returns:
        The content of ``export.json``: how the files are used, and how exactly they agree.

    Raises:
        ConfigError: an unknown format, or a package is missing. OutputError: ``to`` cannot be used, or the check
        failed. BundleError, DataError: an unusable run or data set.

    Example:
        >>> import dermafuse as df
        >>> done = df.export(run, "openvino", folder / "openvino", progress=False)
        >>> done["verified"]["largest_difference"] < 1e-3
        True
    """
    from dermafuse.exporters.export import export as write

    return write(
        model_path(run),
        format,
        Path(to),
        int8=int8,
        data=None if data is None else Path(data),
        report=reporter(progress),
    )
