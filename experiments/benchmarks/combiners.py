"""How fast are the combiners compared with scikit-learn, torch, mlxtend and AutoGluon? Same results?

Peers that are not installed are skipped. Both sides run interleaved in one process, with the same
OpenMP policy: two busy OpenMP runtimes on two cores distort times by a factor of up to 100.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before any OpenMP runtime starts

import numpy as np

from ensemble_kit.arrays import softmax
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.rules.kernels import mean_softmax, vote_counts
from ensemble_kit.combiners.stacking.mlp import MLPStacker
from ensemble_kit.combiners.weights.greedy_losses import ErrorRate, LogLoss
from ensemble_kit.combiners.weights.greedy_picks import pick
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.testing import toy_logits

Row = dict[str, Any]


def interleaved(
    ours: Callable[[], Any], peer: Callable[[], Any], repeats: int
) -> tuple[float, float, Any, Any]:
    """Median seconds of both, and their last results."""
    times: tuple[list[float], list[float]] = ([], [])
    results: list[Any] = [None, None]
    for _ in range(repeats):
        for side, work in enumerate((ours, peer)):
            began = time.perf_counter()
            results[side] = work()
            times[side].append(time.perf_counter() - began)
    return statistics.median(times[0]), statistics.median(times[1]), results[0], results[1]


def row(
    name: str, peer: str, shape: tuple[int, ...], seconds: tuple[float, float], same: str
) -> Row:
    return {"question": name, "peer": peer, "shape": list(shape), "ours_s": seconds[0], "peer_s": seconds[1],
            "ratio": seconds[1] / seconds[0], "equal": same}  # fmt: skip


def field(
    n_members: int, n_samples: int, n_classes: int, skill: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    labels = np.random.default_rng(0).integers(0, n_classes, n_samples)
    return toy_logits(labels, n_members, n_classes, skill=skill), labels


def vote_vs_sklearn(quick: bool) -> Row:
    logits, _ = field(20, 20_000 if quick else 100_000, 8)
    n_classes = logits.shape[2]

    def theirs() -> np.ndarray:
        """The code of VotingClassifier.predict(voting="hard"), with the votes."""
        votes = logits.argmax(axis=2)
        return np.apply_along_axis(lambda x: np.argmax(np.bincount(x, weights=None)), 1, votes)

    a, b, mine, other = interleaved(lambda: vote_counts(logits).argmax(axis=1), theirs, 3)
    assert n_classes == 8
    return row(
        "vote",
        "scikit-learn VotingClassifier kernel",
        logits.shape,
        (a, b),
        str(bool((mine == other).all())),
    )


def mean_vs_torch(quick: bool) -> Row:
    import torch

    logits, _ = field(20, 20_000 if quick else 100_000, 8)
    tensor, out = torch.from_numpy(logits), np.empty((len(logits), 8), dtype=np.float32)
    soft, mean = torch.empty_like(tensor), torch.empty(len(logits), 8)

    def theirs() -> np.ndarray:
        torch.softmax(tensor, -1, out=soft)
        torch.mean(soft, 1, out=mean)
        return mean.numpy()

    a, b, mine, other = interleaved(lambda: mean_softmax(logits, out), theirs, 9)
    return row(
        "mean",
        f"torch.softmax(-1).mean(1), {torch.get_num_threads()} threads",
        logits.shape,
        (a, b),
        f"max difference {np.abs(mine - other).max():.0e}",
    )


def greedy_vs_autogluon(metric: str, quick: bool) -> Row | None:
    if (
        importlib.util.find_spec("autogluon") is None
        or importlib.util.find_spec("autogluon.core") is None
    ):
        return None
    from autogluon.core.metrics import accuracy, log_loss
    from autogluon.core.models.greedy_ensemble.ensemble_selection import EnsembleSelection

    n_picks = 20 if quick else 100
    logits, labels = field(20, 10_000 if quick else 100_000, 10)
    proba = np.ascontiguousarray(softmax(logits).transpose(1, 0, 2))
    rows, members = np.arange(len(labels)), list(proba)

    def ours() -> list[int]:
        loss = LogLoss(proba[:, rows, labels]) if metric == "log_loss" else ErrorRate(proba, labels)
        return list(pick(loss, n_picks).best_prefix().order)

    def theirs() -> list[int]:
        scorer = {"log_loss": log_loss, "accuracy": accuracy}[metric]
        return [
            int(i)
            for i in EnsembleSelection(n_picks, "multiclass", scorer).fit(members, labels).indices_
        ]

    a, b, mine, other = interleaved(ours, theirs, 1)
    return row(
        f"greedy {metric}, {n_picks} picks",
        "AutoGluon EnsembleSelection",
        proba.shape,
        (a, b),
        f"picks {mine == other} ({len(mine)})",
    )


def mlp_vs_sklearn_mlp(quick: bool) -> tuple[Row, float, float]:
    from sklearn.neural_network import MLPClassifier

    n = 1500 if quick else 7909
    logits, labels = field(11, n, 8, skill=0.8)
    folds = np.random.default_rng(1).integers(0, 5, n)
    sets = [np.flatnonzero(folds != k) for k in range(5)]
    flat = logits.reshape(n, -1)

    def crossed(predict: Callable[[int], np.ndarray]) -> float:
        proba = np.empty((n, 8))
        for k in range(5):
            proba[folds == k] = predict(k)[folds == k]
        return float(-np.log(np.maximum(proba[np.arange(n), labels], 1e-15)).mean())

    def ours() -> float:
        fitted = MLPStacker(seed=0, n_networks=4).fit_many(logits, labels, None, sets)
        return crossed(lambda k: fitted[k].predict_proba(logits))

    def theirs() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = [MLPClassifier(random_state=0).fit(flat[rows], labels[rows]) for rows in sets]
        return crossed(lambda k: fitted[k].predict_proba(flat))

    a, b, mine, other = interleaved(ours, theirs, 1)
    return (
        row(
            "MLP stacker, 4 seeds x 5 folds",
            "scikit-learn MLPClassifier(), 1 seed x 5 folds",
            logits.shape,
            (a, b),
            f"log loss {mine:.3f} and {other:.3f}",
        ),
        mine,
        other,
    )


def bootstrap_vs_loop(quick: bool) -> Row:
    from sklearn.metrics import balanced_accuracy_score

    n, n_groups, n_resamples, n_methods = 100_000, 1000, 1000 if quick else 10_000, 10
    logits, labels = field(n_methods, n, 4)
    groups = np.arange(n) * n_groups // n
    proba = softmax(logits)
    tables = {
        str(m): Combined(proba[:, m], proba[:, m].argmax(axis=1), np.zeros(n, dtype=bool))
        for m in range(n_methods)
    }
    n_loop = 20 if quick else 50  # the loop is timed on this number of resamples, and scaled

    def ours() -> float:
        scored = score_methods(
            tables,
            labels,
            groups,
            4,
            metrics=["balanced_accuracy", "log_loss"],
            n_resamples=n_resamples,
        )
        return float(scored["0"].values["balanced_accuracy"].low or 0)

    def theirs() -> float:
        rng, drawn = np.random.default_rng(0), []
        rows_of = [np.flatnonzero(groups == g) for g in range(n_groups)]
        for _ in range(n_loop):
            rows = np.concatenate([rows_of[g] for g in rng.integers(0, n_groups, n_groups)])
            drawn.append(
                [
                    balanced_accuracy_score(labels[rows], one.predicted[rows])
                    for one in tables.values()
                ]
            )
        return float(np.mean(drawn))

    a, b, _, _ = interleaved(ours, theirs, 1)
    scaled = row(
        f"{n_resamples} paired group resamples of {n_methods} methods",
        f"loop over copies (scaled from {n_loop})",
        logits.shape,
        (a, b * n_resamples / n_loop),
        "see tests/evaluation",
    )
    return scaled | {
        "peer_measured_resamples": n_loop,
        "peer_measured_s": b,
        "peer_extrapolated": f"measured seconds times {n_resamples} / {n_loop}",
        "ours_metrics": 2,
        "peer_metrics": 1,
    }


def mlxtend_vote(quick: bool) -> Row | None:
    if importlib.util.find_spec("mlxtend") is None:
        return None
    from mlxtend.classifier import EnsembleVoteClassifier

    logits, labels = field(10, 5_000 if quick else 30_000, 8)

    class Stored:  # a classifier that returns stored predictions
        def __init__(self, member: int) -> None:
            self.member, self.classes_ = member, np.arange(8)

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return logits[rows[:, 0], self.member].argmax(axis=1)

        def predict_proba(self, rows: np.ndarray) -> np.ndarray:
            return softmax(logits[rows[:, 0], self.member])

    rows = np.arange(len(labels))[:, None]
    peer = EnsembleVoteClassifier(
        [Stored(m) for m in range(10)], voting="soft", fit_base_estimators=False
    )
    peer.fit(rows, labels)
    ours = MeanProba().fit(logits, labels)
    a, b, mine, other = interleaved(lambda: ours.predict(logits), lambda: peer.predict(rows), 3)
    return row(
        "soft vote",
        "mlxtend EnsembleVoteClassifier",
        logits.shape,
        (a, b),
        str(bool((mine == other).all())),
    )


def measured(quick: bool) -> tuple[list[Row], dict[str, float]]:
    """All rows, and the ratios by question."""
    mlp, loss, peer_loss = mlp_vs_sklearn_mlp(quick)
    named: dict[str, Row | None] = {
        "vote_vs_sklearn": vote_vs_sklearn(quick),
        "mean_vs_torch": mean_vs_torch(quick),
        "soft_vote_vs_mlxtend": mlxtend_vote(quick),
        "greedy_log_loss_vs_autogluon": greedy_vs_autogluon("log_loss", quick),
        "greedy_accuracy_vs_autogluon": greedy_vs_autogluon("accuracy", quick),
        "mlp_vs_sklearn_mlp": mlp,
        "bootstrap_vs_loop": bootstrap_vs_loop(quick),
    }
    done = {name: one for name, one in named.items() if one is not None}
    ratios = {name: one["ratio"] for name, one in done.items()} | {
        "mlp_log_loss_vs_sklearn_mlp": peer_loss / loss
    }
    return list(done.values()), ratios


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("ensemble-kit", "numpy", "torch", "scikit-learn", "mlxtend", "autogluon.core"):
        if importlib.util.find_spec(
            name.replace("-", "_").replace("scikit_learn", "sklearn").split(".")[0]
        ):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "source"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller tables, for a first look")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows, ratios = measured(options.quick)
    policy = os.environ["OMP_WAIT_POLICY"]
    print(f"OMP_WAIT_POLICY={policy} on both sides; {os.cpu_count()} cores")
    for one in rows:
        print(
            f"{one['question']:<50} {one['ours_s']:9.3f} s  {one['peer_s']:9.3f} s  x{one['ratio']:<8.1f} {one['peer']}; equal: {one['equal']}"
        )
    machine = {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "OMP_WAIT_POLICY": policy,
    }
    result = {
        "benchmark": "combiners",
        "quick": options.quick,
        "machine": machine,
        "versions": versions(),
        "rows": rows,
        "ratios": ratios,
    }
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(ratios, indent=2))


if __name__ == "__main__":
    sys.exit(main())
