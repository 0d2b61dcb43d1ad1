"""The YAML of a published model's card, and its licence file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dermafuse.report.model_card import front_matter, licence_text, model_card
from dermafuse.runs import read_metrics
from dermafuse.runtime.bundle.folder import read_bundle
from tiny_bundle import tiny_bundle
from tiny_run import tiny_run


@pytest.fixture(scope="module")
def metrics(synthetic: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return read_metrics(tiny_run(tmp_path_factory.mktemp("runs") / "run", synthetic, model=False))


def test_the_hub_reads_licence_tags_and_figures_from_the_card_of_a_bundle(
    metrics: dict[str, Any], tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    real = {**metrics, "data": {**metrics["data"], "layout": "dataverse", "synthetic": False}}
    card = model_card(real, {})
    bundle = tiny_bundle(tmp_path / "b", card=card, front_matter=front_matter(real, name="tiny"), licence="Free.\n")
    data = hub.ModelCard.load(bundle / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-nc-4.0", "dermafuse", "image-classification")
    assert {"dermoscopy", "openvino", "research-only"} <= set(data.tags)
    assert data.datasets == ["ham10000"]
    figures = {result.metric_name: result.metric_value for result in data.eval_results}
    assert figures["accuracy"] == pytest.approx(metrics["validation"]["accuracy"], abs=1e-4)
    assert set(data.metrics) <= {"accuracy", "recall", "f1", "roc_auc"}
    read = read_bundle(bundle)
    assert read.card == card  # people see the card, not the YAML
    assert read.licence == "Free.\n"
    assert read.front_matter.endswith("---\n")


def test_no_licence_is_claimed_for_images_that_nobody_knows(metrics: dict[str, Any]) -> None:
    assert 'license: "other"' in front_matter(metrics, name="x")
    assert "does not know" in licence_text(metrics)
    real = {**metrics, "data": {**metrics["data"], "layout": "kaggle", "synthetic": False}}
    assert "CC BY-NC 4.0" in licence_text(real)
