"""The rules against worked tables, scikit-learn, and slow obvious implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import LabelEncoder

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.combiners import make_combiner
from ensemble_kit.combiners.rules import kernels, rules
from ensemble_kit.combiners.rules.averaging import MeanLogits, MeanProba
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.errors import UsageError

# Kuncheva, Combining Pattern Classifiers (2004), the decision-profile example: five classifiers,
# three classes, and each rule's winner.
KUNCHEVA = np.array(
    [[0.1, 0.5, 0.4], [0.0, 0.0, 1.0], [0.4, 0.3, 0.4], [0.2, 0.7, 0.1], [0.1, 0.8, 0.2]]
)
WINNERS = {
    rules.median_rule: 1,
    rules.min_rule: 2,
    rules.max_rule: 2,
}


@pytest.mark.parametrize(("rule", "winner"), WINNERS.items())
def test_rules_give_kunchevas_table(rule: Callable[[Array], Array], winner: int) -> None:
    assert rule(KUNCHEVA[None]).argmax() == winner


def test_supports_equal_kunchevas_table() -> None:
    np.testing.assert_allclose(rules.median_rule(KUNCHEVA[None])[0], [0.1, 0.5, 0.4])
    np.testing.assert_allclose(rules.min_rule(KUNCHEVA[None])[0], [0.0, 0.0, 0.1])
    np.testing.assert_allclose(rules.max_rule(KUNCHEVA[None])[0], [0.4, 0.8, 1.0])


# Kuncheva's profile as distributions, worked by hand: rows sum to 1, no member has a tie.
PROFILE = np.array(
    [[0.10, 0.50, 0.40], [0.05, 0.05, 0.90], [0.40, 0.35, 0.25], [0.20, 0.70, 0.10], [0.10, 0.70, 0.20]]
)  # fmt: skip
BY_HAND = {
    "vote": [1 / 5, 3 / 5, 1 / 5],
    "mean": [0.17, 0.46, 0.37],
    "median": [0.10 / 0.85, 0.50 / 0.85, 0.25 / 0.85],
    "max": [0.4 / 2.0, 0.7 / 2.0, 0.9 / 2.0],
    "min": [0.05 / 0.20, 0.05 / 0.20, 0.10 / 0.20],
    # 4.0e-5, 4.2875e-3, 1.8e-3
    "product": [0.04 / 6.1275, 4.2875 / 6.1275, 1.8 / 6.1275],
}


@pytest.mark.parametrize(("name", "want"), BY_HAND.items())
def test_combiners_give_the_hand_worked_profile(name: str, want: list[float]) -> None:
    logits = np.log(PROFILE)[None]
    combiner = make_combiner(name).fit(logits, [0])
    np.testing.assert_allclose(combiner.predict_proba(logits)[0], want, atol=1e-12)
    assert combiner.predict(logits)[0] == np.argmax(want)


def members_of_sklearn():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 6)), rng.integers(0, 3, 300)
    x[np.arange(300), y] += 1.0
    models = [
        (str(k), LogisticRegression().fit(x[k * 50 : k * 50 + 120], y[k * 50 : k * 50 + 120]))
        for k in range(3)
    ]
    logits = np.stack([np.log(model.predict_proba(x)) for _, model in models], axis=1)
    return x, y, models, logits


@pytest.mark.parametrize("voting", ["hard", "soft"])
def test_vote_and_mean_agree_with_scikit_learn(voting: str) -> None:
    x, y, models, logits = members_of_sklearn()
    theirs = VotingClassifier(models, voting=voting)
    theirs.estimators_, theirs.classes_ = [m for _, m in models], np.arange(3)
    theirs.le_ = LabelEncoder().fit(y)
    ours = MajorityVote(ties="lowest") if voting == "hard" else MeanProba()
    ours.fit(logits, y)
    np.testing.assert_array_equal(ours.predict(logits), theirs.predict(x))
    if voting == "soft":
        np.testing.assert_allclose(ours.predict_proba(logits), theirs.predict_proba(x), atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 2), (5000, 3, 2), (777, 7, 9), (3, 300, 4)])
def test_chunked_kernels_equal_the_plain_formula(shape: tuple[int, int, int]) -> None:
    logits = np.random.default_rng(0).normal(size=shape).astype(np.float32) * 4
    np.testing.assert_allclose(
        kernels.mean_softmax(logits), softmax(logits).mean(axis=1), atol=2e-6
    )
    plain = np.stack([(logits.argmax(axis=2) == c).sum(axis=1) for c in range(shape[2])], axis=1)
    np.testing.assert_array_equal(kernels.vote_counts(logits), plain)


@pytest.mark.parametrize("rule", [MeanProba, MeanLogits])
def test_logits_of_half_precision_are_averaged_in_single(rule: type) -> None:
    half = (np.random.default_rng(0).normal(size=(500, 40, 3)) * 4).astype(np.float16)
    found = [rule().fit(z, np.zeros(500, int)).predict_proba(z) for z in (half, half.astype(float))]
    np.testing.assert_allclose(*found, atol=5e-6)


def test_threads_give_bitwise_equal_results(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=(1003, 5, 3)).astype(np.float32).round(1)
    kernels_of = (kernels.mean_softmax, kernels.vote_counts)
    alone = [kernel(logits) for kernel in kernels_of]
    monkeypatch.setattr(kernels, "THREADED_ELEMENTS", 1)
    monkeypatch.setattr(kernels, "_n_threads", lambda: 3)
    for kernel, want in zip(kernels_of, alone, strict=True):
        np.testing.assert_array_equal(kernel(logits), want)


TIE = np.log([[[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]], [[0.8, 0.1, 0.1], [0.4, 0.5, 0.1]]])


@pytest.mark.parametrize(
    ("policy", "want"),
    [("proba", [2, 0]), ("severity", [2, 0]), ("abstain", [-1, -1]), ("lowest", [0, 0])],
)
def test_ties_follow_the_stated_policy_and_are_counted(policy: str, want: list[int]) -> None:
    vote = MajorityVote(ties=policy).fit(TIE, [0, 0])
    assert vote.predict(TIE).tolist() == want
    assert vote.combine(TIE).n_ties == 2
    assert vote.n_ties_ == 2


def test_row_44_a_tied_vote_does_not_depend_on_member_order() -> None:
    vote = MajorityVote().fit(TIE, [0, 0])
    assert vote.predict(TIE[:, ::-1]).tolist() == vote.predict(TIE).tolist()


def test_severity_prefers_the_named_class_among_tied_classes() -> None:
    assert MajorityVote(ties="severity", positive=0).fit(TIE, [0, 0]).predict(TIE).tolist() == [
        0,
        0,
    ]


@pytest.mark.parametrize(
    ("positive", "want"), [(0, [0, 0]), (1, [2, 1]), (2, [2, 1]), (None, [2, 0])]
)
def test_a_tie_without_a_known_order_of_the_classes_goes_by_probability(positive, want) -> None:
    vote = MajorityVote(ties="severity", positive=positive).fit(TIE, [0, 0])
    assert vote.predict(TIE).tolist() == want
    assert vote.combine(TIE).n_ties == 2


def test_severity_uses_probability_if_the_named_class_is_not_tied() -> None:
    tied = np.log([[[0.1, 0.8, 0.1], [0.1, 0.3, 0.6]]])  # a tie of the last two classes
    assert MajorityVote(ties="severity", positive=0).fit(tied, [0]).predict(tied).tolist() == [1]
    assert MajorityVote(ties="severity", positive=2).fit(tied, [0]).predict(tied).tolist() == [2]


def test_an_exact_tie_is_decided_for_the_last_class() -> None:
    tied = np.zeros((1, 2, 2))
    for combiner in (MajorityVote(), MeanProba(), MeanLogits()):
        out = combiner.fit(tied, [0]).combine(tied)
        assert out.predicted.tolist() == [1]
        assert out.n_ties == 1


def test_an_unknown_policy_suggests_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="Did you mean 'severity'"):
        MajorityVote(ties="severty").fit(TIE, [0, 0])


def test_a_veto_of_every_class_leaves_the_mean_of_logits_defined() -> None:
    logits = np.array([[[0.0, -np.inf], [-np.inf, 0.0]]])
    np.testing.assert_allclose(MeanLogits().fit(logits, [0]).predict_proba(logits), [[0.5, 0.5]])
