import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

LABELS = np.array([0] * 50 + [1] * 8 + [2] * 2)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from dermafuse.training.loop.losses import class_weights

    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(class_weights(LABELS, 3, "balanced"), expected)


@pytest.mark.parametrize(
    ("weighting", "raw"),
    [
        ("inverse_sqrt", [50**-0.5, 8**-0.5, 2**-0.5]),
        ("effective_number", [0.001 / (1 - 0.999**n) for n in (50, 8, 2)]),
    ],
)
def test_other_weights_follow_their_formula_with_a_mean_of_one_over_the_rows(weighting: str, raw: list[float]) -> None:
    from dermafuse.training.loop.losses import class_weights

    weights = class_weights(LABELS, 3, weighting)  # type: ignore[arg-type]
    np.testing.assert_allclose(weights / weights[0], np.array(raw) / raw[0])
    assert weights[LABELS].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("weighting", ["none", "balanced", "inverse_sqrt", "effective_number"])
def test_a_class_without_rows_weighs_nothing(weighting: str) -> None:
    from dermafuse.training.loop.losses import class_weights

    weights = class_weights(LABELS, 4, weighting)  # type: ignore[arg-type]
    assert weights[3] == 0.0
    assert np.isfinite(weights).all()


COUNTS = np.array([70, 20, 10])


def reference(
    logits: np.ndarray, labels: np.ndarray, eps: float, tau: float, gamma: float = 0.0, margin: float = 0.0
) -> float:
    truth = np.eye(3)[labels]
    adjusted = logits + tau * np.log(COUNTS / 100) - truth * margin * (10 / COUNTS) ** 0.25
    log_p = adjusted - np.log(np.exp(adjusted).sum(axis=1, keepdims=True))
    target = truth * (1 - eps) + eps / 3
    focus = (1 - np.exp((truth * log_p).sum(axis=1))) ** gamma
    return float((-(target * log_p).sum(axis=1) * focus).mean())


@pytest.mark.parametrize(
    ("eps", "tau", "gamma", "margin"),
    [(0, 0, 0, 0), (0.1, 0, 0, 0), (0, 1, 0, 0), (0.05, 0.5, 0, 0), (0, 0, 2, 0), (0, 0, 0, 0.5), (0.1, 1, 1.5, 0.5)],
)
def test_the_loss_is_its_closed_form(eps: float, tau: float, gamma: float, margin: float) -> None:
    import keras

    from dermafuse.training.loop.losses import ClassificationLoss

    logits = np.random.default_rng(0).normal(size=(20, 3))
    labels = np.arange(20) % 3
    loss = ClassificationLoss(COUNTS, label_smoothing=eps, logit_adjustment=tau, focal_gamma=gamma, margin=margin)
    got = float(loss(labels, keras.ops.convert_to_tensor(logits, "float32")))
    assert got == pytest.approx(reference(logits, labels, eps, tau, gamma, margin), rel=1e-5)


def test_class_weights_in_the_loss_are_those_of_kerass_class_weight() -> None:
    import keras

    from dermafuse.training.loop.losses import ClassificationLoss

    logits = np.random.default_rng(1).normal(size=(20, 3)).astype("float32")
    weights = np.array([0.5, 1.0, 4.0])
    labels = np.arange(20) % 3
    keras_own = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    expected = float(keras_own(labels, logits, sample_weight=weights[labels]))
    got = float(ClassificationLoss(COUNTS, weights=weights)(labels, keras.ops.convert_to_tensor(logits)))
    assert got == pytest.approx(expected, rel=1e-5)


def test_shares_of_classes_are_labels_too_and_the_loss_is_linear_in_them() -> None:
    import keras

    from dermafuse.training.loop.losses import ClassificationLoss

    logits = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(5, 3)), "float32")
    weights = np.array([0.5, 1.0, 2.0])
    loss = ClassificationLoss(COUNTS, weights=weights)
    one, other = np.array([0, 1, 2, 0, 1]), np.array([2, 2, 1, 1, 0])
    blended = (0.3 * np.eye(3)[one] + 0.7 * np.eye(3)[other]).astype(np.float32)
    pure = ClassificationLoss(COUNTS)
    np.testing.assert_allclose(
        float(pure(np.eye(3, dtype=np.float32)[one], logits)), float(pure(one, logits)), rtol=1e-6
    )
    expected = 0.3 * float(pure(one, logits)) + 0.7 * float(pure(other, logits))
    assert float(pure(blended, logits)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(np.eye(3, dtype=np.float32)[one], logits)) == pytest.approx(float(loss(one, logits)), rel=1e-6)
