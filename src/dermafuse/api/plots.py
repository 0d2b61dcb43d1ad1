"""The figures of a run as matplotlib ``Axes``; drawn from the very tables that the report's figures are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dermafuse.errors import ConfigError, DataError, DermafuseError, nearest
from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.subgroups import MINIMUM_ROWS
from dermafuse.report.figures import curves, tables
from dermafuse.report.figures.canvas import INKS
from dermafuse.runs import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_LEARNING: Final = ("metrics", "loss")


@dataclass(frozen=True, eq=False)
class Display:
    """One kind of figure of a run. Called, it draws; ``.frame()`` gives its numbers; a notebook shows it.

    Attributes:
        made: from what is asked for (see `Plots`) to the report's figure: drawing and table; ``None``: no numbers.
        draw: puts the table on axes.
        missing: what to say where there are no numbers.
    """

    made: Callable[[str | None], curves.Drawn | None]
    draw: Callable[[Axes, pd.DataFrame], None]
    missing: str

    def __call__(self, choice: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw with matplotlib.

        Args:
            choice: which of several (a metric of `Plots.subgroups`, a class of `Plots.reliability`, ...).
            ax: where; ``None``: new axes.

        Raises:
            DermafuseError: matplotlib is not installed, the run holds no such numbers, or there is no such choice.
        """
        canvas, table = self._drawn(choice)
        axes = _new_axes(len(table) if self.draw is _forest else 0) if ax is None else ax
        axes.set_title(canvas.title)
        self.draw(axes, table)
        return axes

    def frame(self, choice: str | None = None) -> pd.DataFrame:
        """Return the numbers of the figure; needs no matplotlib.

        Raises:
            DataError: the run holds no such numbers. ConfigError: there is no such choice.
        """
        return self._drawn(choice)[1]

    def _drawn(self, choice: str | None) -> curves.Drawn:
        found = self.made(choice)
        if found is None:
            raise DataError(self.missing)
        return found

    def _repr_html_(self) -> str:
        return self._drawn(None)[0].svg(standalone=True)


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
            lambda choice: tables.confusion(run.block, run.labels.codes, run.reported), _confusion, "confusion matrix"
        )

    @property
    def roc(self) -> Display:
        """ROC curve of each class against the rest."""
        run = self._run
        return self._display(
            lambda choice: curves.roc(run.reported_rows, run.block),
            _curves("one_minus_specificity", "sensitivity", self._values("auroc")),
            "ROC curve",
        )

    @property
    def precision_recall(self) -> Display:
        """Precision-recall curve of each class against the rest."""
        run = self._run
        return self._display(
            lambda choice: curves.precision_recall(run.reported_rows, run.block),
            _curves("recall", "precision", self._values("average_precision")),
            "precision-recall curve",
        )

    @property
    def reliability(self) -> Display:
        """How often came true what was said with each confidence; the choice is a class, else the most probable one."""

        def made(choice: str | None) -> curves.Drawn | None:
            if choice is not None:
                _check_choice(choice, self._run.labels.codes, "class")
            return curves.reliability(self._run.block, choice, self._run.labels)

        return self._display(made, _reliability, "calibration", chosen=True)

    @property
    def operating_points(self) -> Display:
        """ROC curves of malignant or not, and of the critical class, with thresholds chosen on other rows."""
        run = self._run
        return self._display(
            lambda choice: tables.malignant_points(run.reported_rows, run.block), _points, "operating points"
        )

    @property
    def subgroups(self) -> Display:
        """One metric in every subgroup; the choice is the metric (``accuracy`` if none is named)."""

        def made(choice: str | None) -> curves.Drawn | None:
            metric = choice or "accuracy"
            known = subgroup_metrics(self._run.labels)
            _check_choice(metric, known, "metric")
            if not self._run.block.get("subgroups"):
                return None
            found = tables.forest(self._run.block, known[metric])
            if found is None:
                raise DataError(f"Every subgroup of {self._run.path} has too few images or cases to give {metric}.")
            return found

        return self._display(made, _forest, "subgroups", chosen=True)

    @property
    def learning(self) -> Display:
        """Curves of the epochs; the choice is ``metrics`` (if none is named) or ``loss``."""

        def made(choice: str | None) -> curves.Drawn | None:
            what = choice or "metrics"
            _check_choice(what, _LEARNING, "curve")
            return curves.learning(self._run.histories, loss=what == "loss")

        return self._display(made, _learning, "learning curve", chosen=True)

    def _values(self, metric: str) -> Mapping[str, float | None]:
        return {code: row.get(metric) for code, row in self._run.block["per_class"].items()}

    def _display(
        self,
        made: Callable[[str | None], curves.Drawn | None],
        draw: Callable[[Axes, pd.DataFrame], None],
        what: str,
        *,
        chosen: bool = False,
    ) -> Display:
        def checked(choice: str | None) -> curves.Drawn | None:
            if choice is not None and not chosen:
                raise ConfigError(f"There is one {what} of a run; leave out '{choice}'.")
            return made(choice)

        said = (self._run.block.get("notes") or {}).get(what.replace(" ", "_"), "")
        missing = f"{self._run.path} holds no numbers for this figure ({what})."
        return Display(checked, draw, f"{missing} {said}".strip())


def _check_choice(choice: str, known: Any, what: str) -> None:
    if choice not in known:
        raise ConfigError(f"There is no {what} '{choice}'; there are {', '.join(known)}.{nearest(choice, known)}")


def _new_axes(lines: int) -> Axes:
    """Return axes; higher where they have to hold so many lines of text."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise DermafuseError(
            'Figures in Python need matplotlib; run: pip install "dermafuse[plot]" (.frame() needs none).'
        ) from error
    return pyplot.subplots(figsize=(6.0, max(5.0, 0.25 * lines)), layout="constrained")[1]


def _ink(name: str) -> str:
    return INKS[name][0]


def _unit(ax: Axes, x_label: str, y_label: str, *, diagonal: bool) -> None:
    if diagonal:
        ax.plot([0, 1], [0, 1], color=_ink("soft"), linestyle="--", linewidth=1)
    ax.set(xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))


def _confusion(ax: Axes, table: pd.DataFrame) -> None:
    codes = list(dict.fromkeys(table["true"]))
    shares = table["share_of_true"].to_numpy().reshape(len(codes), -1)
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    for position, count in enumerate(table["count"]):
        row, column = divmod(position, len(codes))
        dark = shares[row, column] > 0.5
        ax.text(column, row, f"{count:,}", ha="center", va="center", color="white" if dark else _ink("ink"))
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_xticks(range(len(codes)), codes)
    ax.set_yticks(range(len(codes)), codes)


def _curves(x: str, y: str, values: Mapping[str, float | None]) -> Callable[[Axes, pd.DataFrame], None]:
    def draw(ax: Axes, table: pd.DataFrame) -> None:
        inks = {code: _ink(curves.class_ink(position)) for position, code in enumerate(values)}
        for code, part in table.groupby("label", sort=False):
            value = values[str(code)]
            label = str(code) if value is None else f"{code} {value:.3f}"
            ax.plot(part[x], part[y], color=inks[str(code)], label=label)
        _unit(ax, x.replace("_", " "), y, diagonal=y == "sensitivity")
        ax.legend(title=f"{'AUROC' if y == 'sensitivity' else 'average precision'}")

    return draw


def _reliability(ax: Axes, table: pd.DataFrame) -> None:
    both = bool(table["stage"].eq("before").any())
    for stage, part in table.groupby("stage", sort=False):
        ink = _ink("accent" if stage == "after" else "warm")
        reach = [part["frequency"] - part["low"], part["high"] - part["frequency"]]
        ax.errorbar(
            part["confidence"], part["frequency"], yerr=[each.clip(lower=0) for each in reach], color=ink, marker="o",
            label=f"{stage} temperature" if both else "as predicted",
        )  # fmt: skip
    _unit(ax, "probability said", "share that came true", diagonal=True)
    ax.legend()


def _points(ax: Axes, table: pd.DataFrame) -> None:
    for position, (target, part) in enumerate(table.groupby("target", sort=False)):
        ink = _ink("accent" if position == 0 else "c4")
        curve = part[part["kind"] == "curve"]
        ax.plot(curve["one_minus_specificity"], curve["sensitivity"], color=ink, label=str(target))
        for point in part[part["kind"] != "curve"].itertuples():
            ax.plot(point.one_minus_specificity, point.sensitivity, color=ink, marker="o", linestyle="")
            ax.annotate(str(point.kind), (point.one_minus_specificity, point.sensitivity), fontsize=7)
    _unit(ax, "one minus specificity", "sensitivity", diagonal=True)
    ax.legend()


def _forest(ax: Axes, table: pd.DataFrame) -> None:
    metric = next(name for name in table.columns if name not in _FOREST_COLUMNS)
    names = [f"{row.column}: {row.value} (n {row.n:,})" for row in table.itertuples()]
    places = list(range(len(table)))[::-1]
    values = table[metric].astype(float)
    reach = [(values - table["low"].astype(float)).fillna(0.0), (table["high"].astype(float) - values).fillna(0.0)]
    ax.errorbar(
        values, places, xerr=[each.clip(lower=0) for each in reach], color=_ink("accent"), marker="o", linestyle=""
    )
    ax.set_yticks(places, names)
    ax.set_xlabel(metric.replace("_", " "))
    for place, value, withheld in zip(places, values, table["withheld"], strict=True):
        if value != value:  # NaN: say why there is no point
            why = f"withheld (n < {MINIMUM_ROWS})" if withheld else "too few cases"
            ax.text(0.02, place, why, transform=ax.get_yaxis_transform(), va="center", fontsize=7, color=_ink("soft"))


_FOREST_COLUMNS: Final = frozenset(
    {"column", "value", "n", "lesions", "withheld", "low", "high", "gap", "gap_low", "gap_high"}
)


def _learning(ax: Axes, table: pd.DataFrame) -> None:
    for (column, fold), part in table.groupby(["column", "fold"], sort=False):
        ax.plot(part["epoch"], part["value"], marker=".", label=f"{column} {fold}".strip())
    ax.set(xlabel="epoch", ylabel="value")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend()
