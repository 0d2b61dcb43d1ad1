"""A finished run, cross-validation or evaluation, as a Python user holds it; and judging a model on other data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from dermafuse import notebook
from dermafuse.api.data import Data, path_of
from dermafuse.api.reporting import reporter
from dermafuse.labels import DISCLAIMER
from dermafuse.progress import Reporter
from dermafuse.report.summary import headlines
from dermafuse.runs import RunFolder, read_metrics

if TYPE_CHECKING:
    import pandas as pd

    from dermafuse.api.plots import Plots
    from dermafuse.runtime.prediction import Views


class Run(RunFolder):
    """A RUN folder: what `train` or `evaluate` left, or one made by the command line.

    Files are read when they are asked for: ``.metrics``, ``.config``, ``.predictions``, ``.history``, ``.labels``,
    ``.bundle`` (the model's folder), ``.figures``; ``.kind`` says what it is (see `dermafuse.runs.RunFolder`).

    Example:
        >>> import dermafuse as df
        >>> opened = df.Run.open(run)
        >>> opened.kind, opened.labels.critical, opened.config["backbone"]
        ('run', 'mel', 'efficientnet_lite0')
        >>> opened.frame().columns.tolist()
        ['metric', 'value', 'low', 'high']
    """

    def frame(self) -> pd.DataFrame:
        """Return the headline metrics of the reported images: ``metric``, ``value``, ``low``, ``high`` (95 %)."""
        import pandas as pd

        rows = [(metric.name, value, *(span or (None, None))) for metric, value, span in headlines(self.block)]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])

    @property
    def plot(self) -> Plots:
        """The figures of the report as matplotlib ``Axes``, and their numbers (`dermafuse.api.plots.Plots`)."""
        from dermafuse.api.plots import Plots

        return Plots(self)

    def report(
        self,
        *,
        data: str | Path | None = None,
        masks: str | Path | None = None,
        progress: bool | Reporter = True,
    ) -> Path:
        """Write ``report.html`` and ``figures/`` into the folder; return the path of the page.

        Args:
            data: the data set; ``None``: where it was.
            masks: lesion masks ``IMAGE_segmentation.png``, to judge heatmaps by.
            progress: ``True``: told on stderr; ``False``: to ``logging`` alone; or a reporter of your own.

        Raises:
            DataError: ``data`` is named and is not the data set of the run.
            OutputError: the folder cannot be written to.

        Example:
            >>> import dermafuse as df
            >>> df.Run.open(run).report(progress=False).name
            'report.html'
        """
        from dermafuse.report.page import make_report

        page = make_report(
            self.path,
            data=None if data is None else Path(data),
            masks=None if masks is None else Path(masks),
            report=reporter(progress),
        )
        self.metrics = read_metrics(self.path)  # the report adds what it shows and they lacked
        return page

    def evaluate(
        self, data: Data, *, out: str | Path, overwrite: bool = False, progress: bool | Reporter = True
    ) -> Run:
        """Judge the model of this run on another labelled data set: `dermafuse.evaluate`, which has more settings.

        Example:
            >>> import dermafuse as df
            >>> df.Run.open(run).evaluate(data, out=folder / "TEST", progress=False).kind
            'evaluation'
        """
        return evaluate(self, data, out=out, overwrite=overwrite, progress=progress)

    def _repr_html_(self) -> str:
        title = f"{self.path} ({self.kind}): {self.block['n']:,} {self.reported} images"
        rows = self.frame().itertuples(index=False)
        return notebook.table(
            ("metric", "value", "95 %: low", "high"), rows, title=title, notes=[*self.announcements, DISCLAIMER]
        )

    @property
    def announcements(self) -> list[str]:
        """What must be said wherever these numbers appear."""
        return [str(text) for text in self.metrics.get("announcements") or []]


#: A trained model: a Run, or its name as `dermafuse.load` takes it: the path of a RUN or bundle folder, ...
Model: TypeAlias = str | Path | Run


def model_path(model: Model) -> Path:
    """Return the folder of a model: that of the run, of the one that an evaluation judged, or as `load` names it."""
    if not isinstance(model, Run):
        from dermafuse.runtime.released import model_folder

        return model_folder(model)
    return model.bundles.get(0, model.path)


def evaluate(
    run: Model,
    data: Data,
    *,
    out: str | Path,
    overwrite: bool = False,
    max_bad: float = 0.01,
    precision: Literal["auto", "f32", "bf16"] = "auto",
    views: Views = 1,
    robustness: bool = False,
    seed: int = 0,
    progress: bool | Reporter = True,
) -> Run:
    """Judge a model on any labelled data set.

    Args:
        run: a Run, or the path of a RUN or bundle.
        data: a path, or what `read_dataset` returned; metadata may be absent.
        out: the folder to make.
        overwrite: replace ``out``.
        max_bad: share of rows that may be unusable, 0..1.
        precision: arithmetic of the networks.
        views: 8 averages over the flips and quarter turns of each image.
        robustness: predict every image again as other cameras, light and sizes would have it, and without metadata.
        seed: of the bootstrap intervals.
        progress: ``True``: told on stderr; ``False``: to ``logging`` alone; or a reporter of your own.

    Returns:
        The evaluation; its metrics stand under ``"test"``.

    Raises:
        DataError: the data cannot be read, have classes that the model lacks, or too many bad rows.
        BundleError: the model cannot be used. OutputError: ``out`` cannot be made.

    Example:
        >>> import dermafuse as df
        >>> judged = df.evaluate(run, data, out=folder / "JUDGED", progress=False)
        >>> judged.metrics["overlap"]["known"], judged.predictions["split"].unique().tolist()
        (True, ['test'])
    """
    from dermafuse.api.evaluate import evaluate_bundle

    evaluate_bundle(
        model_path(run),
        path_of(data),
        Path(out),
        max_bad=max_bad,
        overwrite=overwrite,
        precision=precision,
        views=views,
        robustness=robustness,
        seed=seed,
        report=reporter(progress),
    )
    return Run.open(out)
