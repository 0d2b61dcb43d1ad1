"""``df.compare``: what ``dermafuse compare`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermafuse import notebook
from dermafuse.api.reporting import reporter
from dermafuse.errors import ConfigError
from dermafuse.evaluation.compare import Judged, aligned, changed_images, read_judged
from dermafuse.evaluation.compare import compare as _compare
from dermafuse.progress import Reporter
from dermafuse.runs import RunFolder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Comparison:
    """Paired differences of models judged on the same images; the first is the base.

    Attributes:
        judged: the predictions of each.
        content: as ``dermafuse compare --json`` prints it.

    Example:
        >>> import dermafuse as df
        >>> found = df.compare(run, run)
        >>> found.write(folder / "COMPARED", progress=False).name
        'comparison.html'
    """

    judged: Sequence[Judged]
    content: Mapping[str, Any]

    def frame(self) -> pd.DataFrame:
        """Return a row a model and metric.

        Columns: ``model``, ``metric``, ``base`` and ``value`` (of the metric), ``difference`` (the model minus the
        base), ``low`` and ``high`` (95 %, bootstrap over lesions), ``p``, ``p_holm``; NaN where not defined.
        """
        import pandas as pd

        from dermafuse.report.comparison import at, flat

        rows = []
        for entry in self.content["compared"]:
            for path, leaf in flat(entry["differences"]):
                values = {"base": at(self.content["base_metrics"], path), "value": at(entry["metrics"], path)}
                shown = {key: leaf[key] for key in ("difference", "low", "high", "p", "p_holm")}
                rows.append({"model": entry["name"], "metric": "/".join(path), **values, **shown})
        return pd.DataFrame(rows)

    def changed(self, model: int = 1) -> pd.DataFrame:
        """Return the images whose decision changed from the base to a model (1: the first compared with it).

        Columns: ``change`` (gained, lost, other), ``image_id``, ``lesion_id``, ``true``, ``base``, ``other``
        (decisions), ``base_p``, ``other_p`` (probability of the true class, 0..1).

        Raises:
            ConfigError: there is no such model.
        """
        if not 1 <= model < len(self.judged):
            raise ConfigError(f"There is no compared model {model}; there are 1 to {len(self.judged) - 1}.")
        base = self.judged[0]
        return changed_images(base.rows, aligned(base, self.judged[model]))

    def write(
        self,
        out: str | Path,
        *,
        data: str | Path | None = None,
        overwrite: bool = False,
        progress: bool | Reporter = True,
    ) -> Path:
        """Write ``comparison.html``, ``compare.json`` and ``changed-N.csv`` into a folder; return the page's path.

        Args:
            out: the folder to make.
            data: the data set, for pictures; ``None``: where the first run says it was.
            overwrite: replace ``out``.
            progress: as in `dermafuse.train`.

        Raises:
            DataError: ``data`` is not the data set of these images. OutputError: ``out`` cannot be written.
        """
        from dermafuse.report.comparison import write_comparison

        write_comparison(
            self.content,
            self.judged,
            Path(out),
            data=None if data is None else Path(data),
            overwrite=overwrite,
            report=reporter(progress),
        )
        return Path(out) / "comparison.html"

    def __repr__(self) -> str:
        return f"Comparison({' and '.join(entry.name for entry in self.judged)}; {self.content['images']} images)"

    def _repr_html_(self) -> str:
        table = self.frame()
        rows = table[~table["metric"].str.contains("per_class/")].itertuples(index=False)
        title = f"Compared with {self.content['base']}: {self.content['images']:,} images"
        heads = ("model", "metric", "base", "value", "difference", "95 %: low", "high", "p", "p (Holm)")
        return notebook.table(heads, rows, title=title)


def compare(base: str | Path | RunFolder, *others: str | Path | RunFolder, seed: int = 0) -> Comparison:
    """Compare models that were judged on the same images.

    Args:
        base: a Run, or the path of a RUN, of folds, of an evaluation, or of a ``predictions.csv``.
        others: one or more that are compared with it, likewise.
        seed: of the bootstrap over lesions.

    Raises:
        DataError: images, classes, labels or lesions differ; or there is nothing to compare with.

    Example:
        >>> import dermafuse as df
        >>> same = df.compare(run, run)
        >>> float(same.frame()["difference"].abs().max()), len(same.changed())
        (0.0, 0)
    """
    judged = [read_judged(each.path if isinstance(each, RunFolder) else Path(each)) for each in (base, *others)]
    return Comparison(judged, _compare(judged, seed=seed))
