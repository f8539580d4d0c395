"""Dynamic selection by hand, by a slow second implementation, and by DESlib's picks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.log_proba import flat_features
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fitted_proba
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.testing import toy_predictions

NAMES = ("knora-u", "knora-e", "ola", "lca")


def images(*leads: tuple[float, float]) -> np.ndarray:
    """Logits of two members and two classes: how far each member puts class 1 ahead."""
    return np.array([[[0.0, a], [0.0, b]] for a, b in leads])


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def probability_of_1(
    name: str, near: np.ndarray, labels: list[int], query: np.ndarray, k: int
) -> float:
    """Probability of class 1 of the one image in `query`."""
    fitted = make_combiner(name, n_neighbors=k).fit(near, labels)
    return float(fitted.predict_proba(query)[0, 1])


# Only member a is right on the nearest image, only b on the next two; the last is far away.
NEAR = images((2, -1), (2, -2), (2, -3), (-8, 8))
LABELS = [1, 0, 0, 0]
QUERY = images((2, -0.5))
A, B = sigmoid(2), sigmoid(-0.5)


@pytest.mark.parametrize(
    ("name", "k", "want"),
    [
        ("knora-u", 3, (A + 2 * B) / 3),
        ("knora-u", 1, A),
        ("knora-e", 3, A),  # no member is right on three or two neighbours: the nearest decides
        ("ola", 3, B),  # two hits to one
        ("ola", 2, (A + B) / 2),  # one hit each
        (
            "lca",
            3,
            B,
        ),  # a predicts 1 three times, right once; b predicts 0 three times, right twice
        ("knora-u", 50, (2 * A + 2 * B) / 4),  # no more neighbours than there are images
    ],
)
def test_the_rules_by_hand(name: str, k: int, want: float) -> None:
    assert probability_of_1(name, NEAR, LABELS, QUERY, k) == pytest.approx(want)


def test_knora_e_averages_all_members_that_are_right_on_the_whole_region() -> None:
    near = images((2, 1), (2, 2), (1, 1))
    assert probability_of_1("knora-e", near, [1, 1, 1], QUERY, 3) == pytest.approx((A + B) / 2)


def test_lca_uses_only_neighbours_with_the_same_predicted_class() -> None:
    near = images((0.2, -0.2), (0.3, 0.3), (-0.3, 0.3), (-0.4, 0.4))
    labels = [0, 1, 0, 0]
    query = images((0.1, -0.1))
    # a is right on three of four, but of its two ones on one; b's only zero is right.
    assert probability_of_1("ola", near, labels, query, 4) == pytest.approx(sigmoid(0.1))
    assert probability_of_1("lca", near, labels, query, 4) == pytest.approx(sigmoid(-0.1))


@pytest.mark.parametrize("name", NAMES)
def test_the_plain_mean_is_used_if_all_members_are_wrong(name: str) -> None:
    near = images((2, 1), (2, 2), (2, 3))
    assert probability_of_1(name, near, [0, 0, 0], QUERY, 3) == pytest.approx((A + B) / 2)


def slowly(name: str, fit: np.ndarray, labels: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    """The same rules in loops, one image after the other."""
    points, proba = flat_features(fit), softmax(new)
    predicted = softmax(fit).argmax(axis=2)
    out = []
    for x, p in zip(flat_features(new), proba, strict=True):
        near = np.argsort(np.linalg.norm(points - x, axis=1), kind="stable")[:k]
        merits = []
        for m in range(fit.shape[1]):
            hits = [bool(predicted[i, m] == labels[i]) for i in near]
            if name == "knora-e":
                merits.append(float(next((n for n, hit in enumerate(hits) if not hit), k)))
            elif name == "lca":
                same = [hit for i, hit in zip(near, hits, strict=True) if predicted[i, m] == p[m].argmax()]  # fmt: skip
                merits.append(sum(same) / len(same) if same else 0.0)
            else:
                merits.append(float(sum(hits)))
        weights = np.array(merits)
        if name != "knora-u":
            weights = (weights == weights.max()).astype(float)
        if not weights.any():
            weights = np.ones_like(weights)
        out.append((weights[:, None] * p).sum(axis=0) / weights.sum())
    return np.array(out)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 7, 30])
def test_the_rules_agree_with_loops(name: str, k: int) -> None:
    table = toy_predictions(200, 5, 3, n_groups=20, skill=0.8)
    fit, new = table.take(np.arange(120)), table.take(np.arange(120, 200))
    got = make_combiner(name, n_neighbors=k).fit(fit.logits, fit.labels).predict_proba(new.logits)
    np.testing.assert_allclose(got, slowly(name, fit.logits, fit.labels, new.logits, k), atol=1e-9)


# What DESlib 0.3.7 (with scikit-learn 1.5, the newest that it runs on) gives, voting="soft".
DESLIB = {
    "knora-u": "202100020221211221002011100101020102201022022121101112010111",
    "knora-e": "201100001211111221102011200121022100000021222121101202020211",
}


@pytest.mark.parametrize("name", DESLIB)
def test_the_classes_are_those_of_deslib(name: str) -> None:
    table = toy_predictions(160, 4, 3, n_groups=20, skill=0.8, seed=11)
    fitted = make_combiner(name).fit(table.logits[:100], table.labels[:100])
    assert "".join(map(str, fitted.predict(table.logits[100:]))) == DESLIB[name]


@pytest.mark.parametrize("name", NAMES)
def test_selection_finds_the_member_that_is_right_on_similar_images(name: str) -> None:
    # Member a is right on bright images, b on dark ones. On the others each is random and confident,
    # so the mean of both is poor.
    rng = np.random.default_rng(0)
    n = 600
    labels, bright = rng.integers(0, 2, n), rng.integers(0, 2, n).astype(bool)
    right, random = 2.0 * (2 * labels - 1), 2.0 * rng.choice([-1, 1], n)
    a = np.where(bright, right * 0.5, random * 1.5)
    b = np.where(bright, random * 1.5, right * 0.5)
    logits = np.stack([np.stack([-a, a], axis=1), np.stack([-b, b], axis=1)], axis=1)
    logits += 0.1 * rng.normal(size=logits.shape)
    table = dataclasses.replace(toy_predictions(n, 2, 2, n_groups=60), logits=logits, labels=labels)
    selected = (cross_fitted_proba(make_combiner(name), table).argmax(axis=1) == labels).mean()
    mean = (cross_fitted_proba(make_combiner("mean"), table).argmax(axis=1) == labels).mean()
    assert mean < 0.8
    assert selected > 0.95


def test_selection_on_noise_is_replaced_by_the_mean_with_a_caveat() -> None:
    table = toy_predictions(300, 4, 2, n_groups=30)
    noise = dataclasses.replace(table, labels=np.random.default_rng(1).integers(0, 2, 300))
    evaluated = evaluate_all(
        {name: make_combiner(name) for name in NAMES}, noise, protocol=Protocol(n_resamples=50)
    )
    for name in NAMES:
        one = evaluated[name]
        assert one.cross_fitted["auroc"].value == pytest.approx(0.5, abs=0.12)
        assert one.fell_back == any(note.startswith(f"{name}: replaced") for note in one.notes)
    assert any(evaluated[name].fell_back for name in NAMES)


def test_a_region_without_images_is_refused() -> None:
    with pytest.raises(UsageError, match="n_neighbors=0"):
        make_combiner("knora-e", n_neighbors=0).fit(NEAR, LABELS)
