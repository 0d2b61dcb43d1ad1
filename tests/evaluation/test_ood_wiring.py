"""A flag fitted on middle features, through a bundle: predictor and explainer look at the same output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dermafuse.data.readers.read import read_dataset
from dermafuse.data.splits import make_split
from dermafuse.errors import BundleError
from dermafuse.evaluation.fit_uncertainty import fit_flag
from dermafuse.evaluation.ood_probes import strange_pictures
from dermafuse.runtime.bundle.folder import read_bundle, write_bundle
from dermafuse.runtime.decision.ood_features import FeatureReader
from dermafuse.runtime.decision.out_of_distribution import ood_scores
from dermafuse.runtime.predictor import Predictor
from tiny_bundle import tiny_content


def test_a_bundle_with_middle_features_flags_noise_and_explains_with_the_same_score(
    synthetic: Path, tmp_path: Path, little_is_enough: None
) -> None:
    records = read_dataset(synthetic)
    split = make_split(records, by="lesion", seed=0)
    plain = tiny_content()
    flag = fit_flag(plain.models[0], records.subset(split.train), None, records.subset(split.validation))
    assert flag is not None
    head = {**plain.head, **flag.arrays}
    write_bundle(tmp_path / "b", tiny_content(models=(flag.network,), head=head, ood=flag.rule))
    path = records.table["path"][0]
    for precision, threshold in flag.rule.thresholds.items():  # both where the processor has both
        predictor = Predictor(read_bundle(tmp_path / "b"), precision=precision)
        found = predictor.predict(path)
        score = found.ood_score
        fitted = FeatureReader(flag.network, precision).read([path])
        assert score == pytest.approx(ood_scores(flag.rule, flag.arrays, None, fitted)[0], rel=1e-3)
        assert found.out_of_distribution is (score > threshold)
    assert predictor.explain(path).prediction.ood_score == pytest.approx(score, rel=1e-3)
    assert np.mean([bool(p.out_of_distribution) for p in predictor.predict(strange_pictures()["noise"][::2])]) == 1.0
    with pytest.raises(BundleError, match="'ood/means' is not usable"):
        write_bundle(tmp_path / "c", tiny_content(head=head, ood=flag.rule))  # the network without the output
