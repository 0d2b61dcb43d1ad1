"""The figures of a run as matplotlib ``Axes``; drawn from the very tables that the report's figures are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dermafuse.errors import ConfigError, DataError, nearest
from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.report.figures import curves, tables
from dermafuse.report.figures.figure import Figure
from dermafuse.report.figures.inks import said
from dermafuse.report.figures.make import DISPLAYS
from dermafuse.runs import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_LEARNING: Final = ("metrics", "loss")


@dataclass(frozen=True, eq=False)
class Display:
    """One kind of figure of a run. Called, it draws; ``.frame()`` gives its numbers; a notebook shows it.

    Attributes:
        made: from what is asked for (see `Plots`) to the report's figure; ``None``: no numbers.
        missing: what to say where there are no numbers.
    """

    made: Callable[[str | None], Figure | None]
    missing: str

    def __call__(self, choice: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw with matplotlib.

        Args:
            choice: which of several (a metric of `Plots.subgroups`, a class of `Plots.reliability`, ...).
            ax: where; ``None``: new axes.

        Raises:
            DataError: the run holds no such numbers. ConfigError: there is no such choice.
        """
        figure = self._figure(choice)
        if ax is None:
            from matplotlib import pyplot

            inches = figure.size[0] / 72, figure.size[1] / 72
            ax = pyplot.subplots(figsize=inches, layout="constrained")[1]
        ax.set_title(said(figure.title))
        figure.draw(ax, figure.table)
        return ax

    def frame(self, choice: str | None = None) -> pd.DataFrame:
        """Return the numbers of the figure.

        Raises:
            DataError: the run holds no such numbers. ConfigError: there is no such choice.
        """
        return self._figure(choice).table

    def _figure(self, choice: str | None) -> Figure:
        found = self.made(choice)
        if found is None:
            raise DataError(self.missing)
        return found

    def _repr_html_(self) -> str:
        return self._figure(None).svg(standalone=True)


class Plots:
    """The figures of a run: ``run.plot.roc()`` draws and returns ``Axes``, ``run.plot.roc.frame()`` gives the numbers.

    Example:
        >>> import dermafuse as df
        >>> plot = df.Run.open(run).plot
        >>> plot.confusion_matrix.frame().columns.tolist()
        ['true', 'predicted', 'count', 'share_of_true']
        >>> plot.learning("loss").get_xlabel()
        'epoch'
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    @property
    def confusion_matrix(self) -> Display:
        """Counts of true and predicted classes, shaded by their share of the true class."""
        run = self._run
        return self._display(
            lambda choice: tables.confusion(run.block, run.labels.codes, run.reported), "confusion matrix"
        )

    @property
    def roc(self) -> Display:
        """ROC curve of each class against the rest."""
        return self._registered("roc", "ROC curve")

    @property
    def precision_recall(self) -> Display:
        """Precision-recall curve of each class against the rest."""
        return self._registered("precision_recall", "precision-recall curve")

    @property
    def reliability(self) -> Display:
        """How often came true what was said with each confidence; the choice is a class, else the most probable one."""

        def made(choice: str | None) -> Figure | None:
            if choice is not None:
                _check_choice(choice, self._run.labels.codes, "class")
            return curves.reliability(self._run.block, choice, self._run.labels)

        return self._display(made, "calibration", chosen=True)

    @property
    def operating_points(self) -> Display:
        """ROC curves of malignant or not, and of the critical class, with thresholds chosen on other rows."""
        return self._registered("operating_points", "operating points")

    @property
    def subgroups(self) -> Display:
        """One metric in every subgroup; the choice is the metric (``accuracy`` if none is named)."""

        def made(choice: str | None) -> Figure | None:
            metric = choice or "accuracy"
            known = subgroup_metrics(self._run.labels)
            _check_choice(metric, known, "metric")
            if not self._run.block.get("subgroups"):
                return None
            found = tables.forest(self._run.block, known[metric])
            if found is None:
                raise DataError(f"Every subgroup of {self._run.path} has too few images or cases to give {metric}.")
            return found

        return self._display(made, "subgroups", chosen=True)

    @property
    def learning(self) -> Display:
        """Curves of the epochs; the choice is ``metrics`` (if none is named) or ``loss``."""

        def made(choice: str | None) -> Figure | None:
            what = choice or "metrics"
            _check_choice(what, _LEARNING, "curve")
            return curves.learning(self._run.histories, loss=what == "loss")

        return self._display(made, "learning curve", chosen=True)

    def __getattr__(self, name: str) -> Display:
        """Return any other figure of `report.figures.make.DISPLAYS`."""
        if name not in DISPLAYS:
            raise AttributeError(f"There is no figure '{name}'.{nearest(name, [*dir(self)])}")
        return self._registered(name, name.replace("_", " "))

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *DISPLAYS})

    def _registered(self, name: str, what: str) -> Display:
        run = self._run
        return self._display(lambda choice: DISPLAYS[name](run.reported_rows, run.block), what)

    def _display(
        self,
        made: Callable[[str | None], Figure | None],
        what: str,
        *,
        chosen: bool = False,
    ) -> Display:
        def checked(choice: str | None) -> Figure | None:
            if choice is not None and not chosen:
                raise ConfigError(f"There is one {what} of a run; leave out '{choice}'.")
            return made(choice)

        said = (self._run.block.get("notes") or {}).get(what.replace(" ", "_"), "")
        missing = f"{self._run.path} holds no numbers for this figure ({what})."
        return Display(checked, f"{missing} {said}".strip())


def _check_choice(choice: str, known: Any, what: str) -> None:
    if choice not in known:
        raise ConfigError(f"There is no {what} '{choice}'; there are {', '.join(known)}.{nearest(choice, known)}")
