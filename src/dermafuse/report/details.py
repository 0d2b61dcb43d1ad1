"""The sections of the report around the model: training, examples, data, configuration, checklists, all numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from dermafuse.evaluation.predictions import Scored
from dermafuse.printable import escape
from dermafuse.report.checklists.items import STATES, filled_checklists
from dermafuse.report.facts import Facts, step
from dermafuse.report.figures.make import Figure
from dermafuse.report.gallery import Example, Gallery
from dermafuse.report.html import Cell, card, details, figure, grid, note, section, table
from dermafuse.runs import CONFIG
from dermafuse.runtime.explain.explainer import FROZEN_HEATMAP

_LEAK_WORDS: Final = (
    "{/leakage/leaked_images:,d} of {/leakage/validation_images:,d} reported images ({/leakage/share:.1%}) show "
    "one of {/leakage/shared_lesions:,d} lesions that are also in training."
)

Row = Sequence[Cell | str]

_HAM_CITATION: Final = (
    "Tschandl P, Rosendahl C, Kittler H. The HAM10000 dataset, a large collection of multi-source dermatoscopic images "
    "of common pigmented skin lesions. Sci Data 5:180161, 2018. doi:10.1038/sdata.2018.161 (CC BY-NC 4.0)."
)
_CHECKLIST_CITATIONS: Final = {
    "CLEAR Derm": "Daneshjou et al., JAMA Dermatol 158(1):90-96, 2022",
    "TRIPOD+AI": "Collins et al., BMJ 385:e078378, 2024",
}


def training(facts: Facts, figures: Mapping[str, Figure]) -> str:
    """Return learning curves, what stopped the training, the folds, and the paired differences."""
    rows: list[Row] = []
    for pointer, name, spec in (
        ("/training/epochs", "epochs", ",d"),
        ("/training/best_epoch", "best epoch, whose weights were kept", ",d"),
        ("/training/stopped_early", "stopped early", ""),
        ("/training/monitor", "watched", ""),
        ("/training/early_stopping_rows", "on which rows", ""),
        ("/training/temperature", "temperature", ".3f"),
        ("/seconds/train", "seconds of training", ",.1f"),
        ("/seconds/total", "seconds in all", ",.1f"),
    ):
        if facts.get(pointer) is not None:
            rows.append([name, Cell(facts.show(pointer, spec), number=True)])
    curves = [figure(figures.get("learning_loss")), figure(figures.get("learning_metrics"))]
    body = grid(*curves, card(table(("", ""), rows, sortable=False), title="The run")) if rows or any(curves) else ""
    return section("training", "Training", body, _folds(facts), _differences(facts))


def gallery(found: Gallery | None, rows: Scored, why: str, judged: str = "", *, frozen: bool = False) -> str:
    """Return the examples, class by class.

    Args:
        found: the examples; ``None``: there are none, and ``why`` says why.
        rows: the reported rows.
        why: a sentence.
        judged: how the heatmaps did on lesion masks, as HTML.
        frozen: whether the image network was not trained, so that its heatmaps need a caution.
    """
    if found is None:
        return section("examples", "Examples", card(note(escape(why)), wide=True), judged)
    parts = []
    for code in rows.classes:
        if not found.right[code] and not found.wrong[code]:
            continue
        kinds = (("right", found.right[code]), ("wrong", found.wrong[code]))
        cells = "".join(
            f'<div class="kind"><h4>Most confident and {name}</h4><div class="examples">'
            + ("".join(_example(example, rows) for example in listed) or '<p class="note">None.</p>')
            + "</div></div>"
            for name, listed in kinds
        )
        name = rows.labels.names[code]
        title = f"{code}: {name}" if name != code else code
        parts.append(card(f'<div class="pair">{cells}</div>', title=title, wide=True))
    intro = (
        "By true class, at most one image a lesion. Above the image, below where the network saw the called class "
        "(Grad-CAM; grey: nothing). Probabilities are those of predictions.csv."
    )
    remark = note(escape(found.note)) if found.note else ""
    if frozen and any(each.heatmap for part in (found.right, found.wrong) for own in part.values() for each in own):
        remark += f'<p class="announce">{escape(FROZEN_HEATMAP)}</p>'
    return section("examples", "Examples", remark, *parts, judged, intro=intro)


def data(facts: Facts) -> str:
    """Return what the data are, and how much leaks or overlaps."""
    names = (
        ("layout", "layout", ""), ("images", "images read", ",d"), ("train", "to learn from", ",d"),
        ("tuning", "for tuning", ",d"), ("validation", "reported", ",d"), ("test", "reported", ",d"),
        ("skipped", "left out", ",d"), ("synthetic", "synthetic", ""), ("has_metadata", "metadata", ""),
    )  # fmt: skip
    rows: list[Row] = [
        [name, Cell(facts.show(f"/data/{key}", spec), number=True)]
        for key, name, spec in names
        if facts.get(f"/data/{key}") is not None
    ]
    return section(
        "data", "Data and leakage",
        grid(card(table(("", ""), rows, sortable=False), title="Data"), _leakage(facts), _overlap(facts)),
    )  # fmt: skip


def configuration(facts: Facts, config: Mapping[str, Any] | None) -> str:
    """Return the configuration, the network or model, and the environment."""
    blocks = []
    if config:
        rows: list[Row] = [[Cell(f"<code>{escape(key)}</code>"), _plain(value)] for key, value in config.items()]
        blocks.append(card(table(("setting", "value"), rows, sortable=False), title=CONFIG))
    for key, title in (("network", "Network"), ("model", "Model"), ("environment", "Environment")):
        found: list[Row] = [
            [escape_path(pointer.split("/")[2:]), Cell(facts.show(pointer, ",d" if _whole(facts.get(pointer)) else ""))]
            for pointer in leaves(facts.get(f"/{key}"), f"/{key}")
        ]
        blocks.append(card(table(("", ""), found, sortable=False), title=title))
    left, right = (blocks[:1], blocks[1:]) if config else (blocks[:-1], blocks[-1:])
    columns = (f'<div class="stack">{"".join(part)}</div>' for part in (left, right))
    return section("configuration", "Configuration and environment", grid(*columns))


def checklists(facts: Facts) -> str:
    """Return the filled checklists."""
    parts = []
    for name, entries in filled_checklists(facts.metrics, facts.split).items():
        counts = {state: sum(entry.state == state for entry in entries) for state in STATES}
        summary = ", ".join(f"{counts[state]} {words}" for state, words in STATES.items() if counts[state])
        rows: list[Row] = [
            [
                Cell(escape(entry.number), number=False),
                Cell(f"{escape(entry.asks)}<span class='sub'>{escape(entry.section)}</span>"),
                Cell(
                    f'<span class="state {entry.state}">{STATES[entry.state]}</span>', list(STATES).index(entry.state)
                ),
                Cell(facts.fill(entry.template)),
            ]
            for entry in entries
        ]
        body = note(f"{escape(_CHECKLIST_CITATIONS[name])}. Items in short, in our words.")
        body += table(("item", "what it asks", "state", "answer of this run"), rows)
        parts.append(details(f"{name}, {len(entries)} items: {summary}", card(body, wide=True)))
    return section("checklists", "Reporting checklists", *parts)


def all_numbers(facts: Facts) -> str:
    """Return every scalar of metrics.json, with its interval where it has one; a field filters them."""
    rows = []
    for pointer in leaves(facts.metrics, ""):
        if "/ci95/" in pointer or "/reliability/" in pointer or "/confusion_matrix/" in pointer:
            continue
        first, _, rest = pointer[1:].partition("/")
        span = facts.span(f"/{first}/ci95/{rest}", ".4f")
        value = facts.get(pointer)
        spec = ".4f" if isinstance(value, float) else ",d" if _whole(value) else ""
        rows.append([Cell(f"<code>{escape(pointer)}</code>"), Cell(f"{facts.show(pointer, spec)} {span}")])
    field = '<p class="row"><label>Filter <input type="search" name="filter" autocomplete="off"></label></p>'
    body = f'<div class="numbers">{field}{table(("path in metrics.json", "value"), rows, sortable=False)}</div>'
    return section("numbers", "All numbers", details(f"{len(rows):,} values", card(body, wide=True)))


def cite(facts: Facts) -> str:
    """Return how to cite the software and the data."""
    version = facts.show("/dermafuse")
    lines = [f"dermafuse {version}: multi-modal skin-lesion classification. Apache-2.0."]
    if facts.get("/data/layout") in ("kaggle", "dataverse") and not facts.get("/data/synthetic"):
        lines.append(escape(_HAM_CITATION))
    elif not facts.get("/data/synthetic"):
        lines.append("And the source of the images.")
    listed = "".join(f"<li>{line}</li>" for line in lines)
    return section("cite", "How to cite", card(f"<ul>{listed}</ul>", wide=True))


def leaves(value: Any, pointer: str) -> Iterator[str]:
    """Yield the pointers of all scalars (and of short lists of scalars) below a value."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from leaves(part, f"{pointer}/{step(str(key))}")
    elif isinstance(value, list) and any(isinstance(part, Mapping | list) for part in value):
        for number, part in enumerate(value):
            yield from leaves(part, f"{pointer}/{number}")
    elif value is not None and value != []:
        yield pointer


def escape_path(steps: Sequence[str]) -> str:
    """Return the steps of a pointer as words."""
    return " / ".join(part.replace("~1", "/").replace("~0", "~") for part in steps)


def _folds(facts: Facts) -> str:
    rows: list[Row] = []
    for key in facts.get("/folds") or {}:
        base = f"/folds/{step(key)}"
        values = facts.get(f"{base}/values") or []
        rows.append(
            [
                key.replace("_", " "),
                *(Cell(facts.show(f"{base}/{name}", ".3f"), number=True) for name in ("mean", "standard_deviation")),
                *(Cell(facts.show(f"{base}/values/{number}", ".3f"), number=True) for number in range(len(values))),
            ]
        )
    heads = (
        ("metric", "mean", "std. dev.", *(f"fold {number}" for number in range(1, len(rows[0]) - 2))) if rows else ()
    )
    return card(table(heads, rows), title="Cross-validation", wide=True) if rows else ""


def _differences(facts: Facts) -> str:
    """Return every paired difference in the file (leakage effect, metadata effect, ...), wherever it stands."""
    rows: list[Row] = []
    for pointer in _paired(facts.metrics, ""):
        value = facts.get(f"{pointer}/difference")
        rows.append(
            [
                escape_path(pointer.split("/")[1:]),
                Cell(facts.show(f"{pointer}/difference", "+.3f"), value if value is not None else -9.0, True),
                Cell(f"{facts.show(f'{pointer}/low', '+.3f')} to {facts.show(f'{pointer}/high', '+.3f')}", number=True),
                Cell(facts.show(f"{pointer}/p", ".4f"), number=True),
            ]
        )
    body = table(("comparison", "difference", "95 % interval", "p"), rows)
    return card(body, title="Paired comparisons", wide=True) if rows else ""


def _paired(value: Any, pointer: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        if {"difference", "low", "high", "p"} <= value.keys():
            if value["difference"] is not None:
                yield pointer
            return
        for key, part in value.items():
            yield from _paired(part, f"{pointer}/{step(str(key))}")


def _leakage(facts: Facts) -> str:
    if not facts.get("/leakage"):
        return ""
    if not facts.get("/leakage/lesions_known"):
        return card(note("The data do not say which images show the same lesion; leakage is unknown."), title="Leakage")
    words = "No reported image shows a lesion that is also in training."
    if facts.get("/leakage/leaked_images"):
        words = facts.fill(_LEAK_WORDS)
    rows: list[Row] = []
    for code in facts.get("/leakage/per_class") or {}:
        base = f"/leakage/per_class/{step(code)}"
        keys = (("validation_images", ",d"), ("leaked_images", ",d"), ("share", ".1%"))
        rows.append([code, *(Cell(facts.show(f"{base}/{k}", s), facts.get(f"{base}/{k}"), True) for k, s in keys)])
    return card(f"<p>{words}</p>", table(("class", "images", "leaked", "share"), rows), title="Leakage")


def _overlap(facts: Facts) -> str:
    if not facts.get("/overlap"):
        return ""
    rows: list[Row] = [
        [name, Cell(facts.show(f"/overlap/{key}", ",d"), number=True)]
        for key, name in (
            ("trained_images", "images that the model learned from"),
            ("trained_lesion_images", "images of lesions that it learned from"),
            ("chose_images", "images of other lesions that chose its epoch, temperature or decision"),
            ("unseen_images", "images that are unseen"),
            ("tuning_images", "images that tuned it"),
            ("validation_images", "images it was validated on before"),
        )
        if facts.get(f"/overlap/{key}") is not None
    ]
    said = f"<p>{facts.show('/overlap/basis')}</p>"
    return card(said, table(("", ""), rows, sortable=False), title="Overlap with the training of the model")


def _example(example: Example, rows: Scored) -> str:
    row = example.row
    predicted, true = rows.classes[rows.predicted[row]], rows.classes[rows.true[row]]
    share = rows.probabilities[row, rows.predicted[row]]
    words = f'called <b>{escape(predicted)}</b> <span data-row="{row} {rows.predicted[row]}">{share:.1%}</span>'
    if predicted != true:
        own = rows.probabilities[row, rows.true[row]]
        words += f', {escape(true)} <span data-row="{row} {rows.true[row]}">{own:.1%}</span>'
    place = f'width="{example.size[0]}" height="{example.size[1]}" loading="lazy"'
    pictures = [f'<img src="{example.picture}" alt="{escape(str(rows.image_id[row]))}" {place}>']
    if example.heatmap:
        pictures.append(f'<img src="{example.heatmap}" alt="Grad-CAM for {escape(predicted)}" {place}>')
    return (
        f'<figure class="example"><div class="pictures">{"".join(pictures)}</div>'
        f"<figcaption>{words}<span class='sub'>{escape(str(rows.image_id[row]))}</span></figcaption></figure>"
    )


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
