"""The model card: the ``README.md`` of a bundle, from the numbers of its run (``templates/card.md.j2``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from dermafuse.evaluation.metric_table import subgroup_metrics
from dermafuse.evaluation.metrics import reported_split
from dermafuse.evaluation.model_findings import failing_groups
from dermafuse.evaluation.subgroups import MINIMUM_ROWS
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
