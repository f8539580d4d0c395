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


def answer(name: str, near: np.ndarray, labels: list[int], query: np.ndarray, k: int) -> float:
    """Probability of class 1 of the one image in `query`."""
    fitted = make_combiner(name, n_neighbors=k).fit(near, labels)
    return float(fitted.predict_proba(query)[0, 1])


# The nearest image is one that a alone is right on; the next two, b alone; the last is far away.
NEAR = images((2, -1), (2, -2), (2, -3), (-8, 8))
LABELS = [1, 0, 0, 0]
QUERY = images((2, -0.5))
A, B = sigmoid(2), sigmoid(-0.5)


@pytest.mark.parametrize(
    ("name", "k", "want"),
    [
        ("knora-u", 3, (A + 2 * B) / 3),
        ("knora-u", 1, A),
        ("knora-e", 3, A),  # nobody is right on three, nor on two: the nearest one decides
        ("ola", 3, B),  # two hits to one
        ("ola", 2, (A + B) / 2),  # one hit each
        ("lca", 3, B),  # a said 1 three times, right once; b said 0 three times, right twice
        ("knora-u", 50, (2 * A + 2 * B) / 4),  # no more neighbours than there are images
    ],
)
def test_the_rules_by_hand(name: str, k: int, want: float) -> None:
    assert answer(name, NEAR, LABELS, QUERY, k) == pytest.approx(want)


def test_knora_e_takes_all_who_are_right_on_the_whole_region() -> None:
    near = images((2, 1), (2, 2), (1, 1))
    assert answer("knora-e", near, [1, 1, 1], QUERY, 3) == pytest.approx((A + B) / 2)


def test_lca_asks_only_where_a_member_said_what_it_says_now() -> None:
    near = images((0.2, -0.2), (0.3, 0.3), (-0.3, 0.3), (-0.4, 0.4))
    labels = [0, 1, 0, 0]
    query = images((0.1, -0.1))
    # a is right on three of four, but of its two ones on one; b's only zero is right.
    assert answer("ola", near, labels, query, 4) == pytest.approx(sigmoid(0.1))
    assert answer("lca", near, labels, query, 4) == pytest.approx(sigmoid(-0.1))


@pytest.mark.parametrize("name", NAMES)
def test_where_all_were_wrong_the_plain_mean_answers(name: str) -> None:
    near = images((2, 1), (2, 2), (2, 3))
    assert answer(name, near, [0, 0, 0], QUERY, 3) == pytest.approx((A + B) / 2)


def slowly(name: str, fit: np.ndarray, labels: np.ndarray, new: np.ndarray, k: int) -> np.ndarray:
    """The same rules in loops, one image after the other."""
    points, proba = flat_features(fit), softmax(new)
    printed = softmax(fit).argmax(axis=2)
    out = []
    for x, p in zip(flat_features(new), proba, strict=True):
        near = np.argsort(np.linalg.norm(points - x, axis=1), kind="stable")[:k]
        merits = []
        for m in range(fit.shape[1]):
            hits = [bool(printed[i, m] == labels[i]) for i in near]
            if name == "knora-e":
                merits.append(float(next((n for n, hit in enumerate(hits) if not hit), k)))
            elif name == "lca":
                same = [hit for i, hit in zip(near, hits, strict=True) if printed[i, m] == p[m].argmax()]  # fmt: skip
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
def test_members_that_are_right_in_different_places_are_distinguished(name: str) -> None:
    # Member a knows bright images, b dark ones; each shouts at random elsewhere, with a lean
    # that gives the place away: the mean of both is no use, the place decides.
    rng = np.random.default_rng(0)
    n = 600
    labels, bright = rng.integers(0, 2, n), rng.integers(0, 2, n).astype(bool)
    knows, guesses = 2.0 * (2 * labels - 1), 2.0 * rng.choice([-1, 1], n)
    a = np.where(bright, knows * 0.5, guesses * 1.5)
    b = np.where(bright, guesses * 1.5, knows * 0.5)
    logits = np.stack([np.stack([-a, a], axis=1), np.stack([-b, b], axis=1)], axis=1)
    logits += 0.1 * rng.normal(size=logits.shape)
    table = dataclasses.replace(toy_predictions(n, 2, 2, n_groups=60), logits=logits, labels=labels)
    right = (cross_fitted_proba(make_combiner(name), table).argmax(axis=1) == labels).mean()
    mean = (cross_fitted_proba(make_combiner("mean"), table).argmax(axis=1) == labels).mean()
    assert mean < 0.8
    assert right > 0.95


def test_noise_makes_it_fall_back_with_a_caveat() -> None:
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
