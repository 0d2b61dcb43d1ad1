"""The model card: the ``README.md`` of a bundle, from the numbers of its run (``templates/card.md.j2``).

And its front matter, which a hub asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.model_findings import failing_groups
from dermafuse.evaluation.subgroups import MINIMUM_ROWS
from dermafuse.labels import DISCLAIMER
from dermafuse.report import templates
from dermafuse.report.facts import Facts

#: Groups that are named for each metric before the rest is left to the table.
_FAILING: Final = 6
#: Settings that the card names; the run's configuration has them all.
_TOLD: Final = ("fusion", "split", "seed", "class_weighting", "unfreeze_from", "metadata_dropout")


def model_card(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Return the model card as Markdown.

    Args:
        metrics: content of ``metrics.json``; what it lacks (subgroups, calibration) is said to be lacking.
        config: the resolved settings (``TrainConfig.model_dump()``, or ``config.toml``).
    """
    facts = Facts(metrics, reported_split(metrics))
    failing = [
        (metric, metric.within(facts.get("@")), groups)
        for key, metric in subgroup_metrics(facts.labels, "failing").items()
        if (groups := failing_groups(facts.get("@/subgroups") or {}, key))
    ]
    written = templates.render(
        "card.md.j2",
        facts,
        config=config,
        settings=[name for name in _TOLD if name in config],
        failing=failing,
        FAILING=_FAILING,
        MINIMUM_ROWS=MINIMUM_ROWS,
    )
    return re.sub(r"\n{3,}", "\n\n", written).strip() + "\n"


_TAGS: Final = ("dermafuse", "openvino", "dermoscopy", "skin-lesion", "medical-imaging", "multi-modal", "research-only")

#: Figure of a block -> the metric's name on the hub, and what it is called there.
_METRICS: Final = {
    "accuracy": ("accuracy", "accuracy"),
    "balanced_accuracy": ("recall", "balanced accuracy (macro recall)"),
    "weighted_f1": ("f1", "weighted F1"),
    "macro_f1": ("f1", "macro F1"),
    "macro_auroc": ("roc_auc", "macro AUROC"),
}

_HAM10000: Final = """\
The model was trained on HAM10000, which is under CC BY-NC 4.0 (https://creativecommons.org/licenses/by-nc/4.0/legalcode).
The model is given under the same terms: name the source, and do not use it commercially. To be named:

  P. Tschandl, C. Rosendahl, H. Kittler. The HAM10000 dataset, a large collection of multi-source dermatoscopic images
  of common pigmented skin lesions. Scientific Data 5, 180161 (2018). https://doi.org/10.7910/DVN/DBW86T
"""

_OTHER: Final = """\
The model was trained on images whose licence dermafuse does not know. What they may be used for, the model may be used
for, and no more: ask whoever publishes it.
"""


def front_matter(metrics: Mapping[str, Any], *, name: str) -> str:
    """Return the YAML front matter of a published model's card, with the lines that enclose it.

    Args:
        metrics: content of ``metrics.json``: what the card reports.
        name: of the model, as its repository is to be called.
    """
    facts = Facts(metrics, reported_split(metrics))
    block = metrics[facts.split]
    data = "HAM10000" if facts.ham10000 else "generated lesions" if facts.get("/data/synthetic") else "own data"
    split = "cross-validation" if "folds" in metrics else facts.split
    figures = [
        {"type": kind, "name": title, "value": round(float(block[key]), 4)}
        for key, (kind, title) in _METRICS.items()
        if block.get(key) is not None
    ]
    licence = (
        {"license": "cc-by-nc-4.0"}
        if facts.ham10000
        else {"license": "other", "license_name": "as-its-training-images", "license_link": "LICENSE"}
    )
    keys: dict[str, Any] = {
        **licence,
        "library_name": "dermafuse",
        "pipeline_tag": "image-classification",
        "tags": [*_TAGS],
        "datasets": [data.lower().replace(" ", "-")],
        "metrics": [*dict.fromkeys(figure["type"] for figure in figures)],
        "model-index": [
            {
                "name": name,
                "results": [
                    {
                        "task": {"type": "image-classification", "name": "diagnosis of a skin lesion"},
                        "dataset": {"name": data, "type": data.lower().replace(" ", "-"), "split": split},
                        "metrics": figures,
                    }
                ],
            }
        ],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    return "\n".join(["---", *lines, "---", ""])


def licence_text(metrics: Mapping[str, Any]) -> str:
    """Return the licence file of a published model."""
    ham = Facts(metrics, reported_split(metrics)).ham10000
    return f"Licence of this model\n\n{_HAM10000 if ham else _OTHER}\n{DISCLAIMER}\n"
