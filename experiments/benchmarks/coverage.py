"""Do intervals over patients have their nominal coverage, and how often are verdicts false?

    python experiments/benchmarks/coverage.py [--quick] [--seed 0] [--json FILE]
    python experiments/benchmarks/coverage.py --choice [--quick] [--json FILE]

Simulates patients with a mean of 8 images. The effect of a patient is as large as the noise of an
image. The true metric of a method is known from a large sample. Each cell (number of patients, class
proportions, sizes) is repeated.

Compared are four intervals:
- the interval of this package,
- the stratified percentile bootstrap,
- the bootstrap of n - 1 patients of n with t (Rao & Wu 1988),
- a plain stratified jackknife with t.

Printed are: the rate of false verdicts (other than "not shown" for two equally good methods), the
coverage of gains and of single metrics, the mean width, and the power for true gains of .05, .1 and .2
balanced accuracy. `--choice` simulates 22 methods at chance and chooses the best cross-fitted one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy import stats

from ensemble_kit.arrays import softmax
from ensemble_kit.evaluation.scores.per_image import Measured, paired_gains, score_methods
from ensemble_kit.evaluation.scores.verdict import corrected_verdict, verdict, verdicts
from ensemble_kit.evaluation.uncertainty.bootstrap import resampling
from ensemble_kit.evaluation.uncertainty.selection_bias import corrected_choice
from ensemble_kit.files import write_json
from ensemble_kit.metrics import metric
from ensemble_kit.predictions.method_predictions import decided
from ensemble_kit.run import versions

SHARED, GAINS, N_RESAMPLES = 0.6, (0.0, 0.05, 0.1, 0.2), 400
TWO = ("accuracy", "balanced_accuracy", "auroc", "log_loss")
FOUR = (*TWO, "quadratic_weighted_kappa")
CELLS = {
    "6, 3 + 3": ((3, 3), "geometric"),
    "10, 5 + 5": ((5, 5), "geometric"),
    "10, 7 + 3": ((7, 3), "geometric"),
    "10, 5 + 5, lognormal": ((5, 5), "lognormal"),
    "20, 10 + 10": ((10, 10), "geometric"),
    "20, 14 + 6": ((14, 6), "geometric"),
    "30, 27 + 3": ((27, 3), "geometric"),
    "50, 25 + 25": ((25, 25), "geometric"),
    "50, 35 + 15, lognormal": ((35, 15), "lognormal"),
    "20, four classes": ((5, 5, 5, 5), "geometric"),
    "50, four classes": ((13, 13, 12, 12), "lognormal"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, in minutes")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", default="", help="only cells with this text in their name")
    parser.add_argument("--choice", action="store_true", help="22 methods at chance")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    n = args.repetitions or (60 if args.quick else 1000)
    if args.choice:
        rows = [
            choice(n_patients, args.repetitions or (20 if args.quick else 200), args.seed)
            for n_patients in (30,)
        ]
    else:
        rows = [
            row
            for name, (counts, sizes) in CELLS.items()
            if args.cells in name
            for row in cell(name, counts, sizes, n, args.seed)
        ]
    table(rows)
    if args.json:
        write_json(
            args.json,
            {"benchmark": "coverage", "seed": args.seed, "versions": versions(), "rows": rows},
        )


def table(rows: list[dict]) -> None:
    print("  ".join(f"{key:>12}" for key in rows[0]))
    for row in rows:
        print(
            "  ".join(f"{v:12.3f}" if isinstance(v, float) else f"{v!s:>12}" for v in row.values()),
            flush=True,
        )


def patients(counts: tuple[int, ...], sizes: str, rng: np.random.Generator):
    """Labels and groups of one study."""
    strata = np.repeat(np.arange(len(counts)), counts)
    n = len(strata)
    drawn = {
        "geometric": lambda: rng.geometric(1 / 8, n),
        "lognormal": lambda: np.maximum(1, np.rint(np.exp(rng.normal(np.log(6), 0.8, n)))).astype(
            int
        ),
        "equal": lambda: np.full(n, 8),
    }[sizes]()
    groups = np.repeat(np.arange(n), drawn)
    return strata[groups], groups


def predictions(labels, groups, n_classes, skills, rng):
    """Predictions of several methods with partly shared patient effects and noise."""
    width = 1 if n_classes == 2 else n_classes
    shape_g, shape_i = (int(groups.max()) + 1, width), (len(labels), width)
    patient, image = rng.normal(size=shape_g), rng.normal(size=shape_i)
    out = []
    for skill in skills:
        own = rng.normal(size=shape_g)[groups] + rng.normal(size=shape_i)
        x = (patient[groups] + image) * SHARED**0.5 + own * (1 - SHARED) ** 0.5
        if n_classes == 2:
            z = (2 * labels - 1) * skill + x[:, 0]
            logits = np.stack([-z / 2, z / 2], axis=1)
        else:
            apart = np.abs(np.arange(n_classes) - labels[:, None])
            logits = x - skill * np.minimum(apart, 2)
        out.append(decided(softmax(logits)))
    return out


def skills_of(n_classes: int, gain: float) -> tuple[float, float]:
    if n_classes > 2:
        return 1.2 + 2.2 * gain, 1.2
    base = NormalDist().cdf(1 / 2**0.5)
    return NormalDist().inv_cdf(base + gain) * 2**0.5, 1.0


def truth(counts, skill: float, names, seed: int) -> dict[str, float]:
    """The metrics of a large sample with negligible error."""
    rng = np.random.default_rng(seed + 10_000)
    times = max(1, 6000 // sum(counts))
    labels, groups = patients(tuple(times * c for c in counts), "equal", rng)
    one = predictions(labels, groups, len(counts), [skill], rng)[0]
    return {name: metric(name).of(labels, one.proba, one.predicted) for name in names}


def cell(name, counts, sizes, n, seed) -> list[dict]:
    names = TWO if len(counts) == 2 else FOUR
    tally: dict[tuple[str, str], dict[str, list]] = {}
    for gain in GAINS:
        rng = np.random.default_rng([seed, len(counts), sum(counts), int(100 * gain)])
        skills = skills_of(len(counts), gain)
        true = [truth(counts, s, names, seed) for s in skills]
        for _ in range(n if gain == 0 else n // 2):
            labels, groups = patients(counts, sizes, rng)
            pair = dict(
                zip("ab", predictions(labels, groups, len(counts), skills, rng), strict=True)
            )
            for (method, key), found in methods(pair, labels, groups, len(counts), names).items():
                single, effect, word = found
                one = tally.setdefault(
                    (method, key), {"single": [], "width": [], "gain": [], "gain width": []}
                )
                sign = 1 if metric(key).higher_is_better else -1
                want = sign * (true[0][key] - true[1][key])
                if single is not None:
                    one["single"].append(single[0] <= true[0][key] <= single[1])
                    one["width"].append(single[1] - single[0])
                if effect is not None:
                    one["gain"].append(effect[0] <= want <= effect[1])
                    one["gain width"].append(effect[1] - effect[0])
                one.setdefault(f"found {gain:g}", []).append(word if gain else word != "not shown")
    rows = []
    for (method, key), one in tally.items():
        row = {"cell": name, "metric": key[:12], "method": method}
        row["false"] = float(np.mean(one["found 0"]))
        for gain in GAINS[1:]:
            row[f"power {gain:g}"] = float(
                np.mean([word == "better" for word in one[f"found {gain:g}"]])
            )
        for what in ("gain", "gain width", "single", "width"):
            row[what] = float(np.mean(one[what])) if one[what] else float("nan")
        rows.append(row)
    return rows


def methods(pair, labels, groups, n_classes, names):
    """By `(method, metric)`: the intervals of a and of a minus b, and the verdict."""
    out = {}
    scored = score_methods(pair, labels, groups, n_classes, metrics=names)
    measured = {
        k: Measured.of(one, labels, groups, [metric(m) for m in names], True)
        for k, one in pair.items()
    }
    drawn = {k: {m: [] for m in names} for k in pair}
    for weights in resampling(labels, groups, n_classes, N_RESAMPLES, 0):
        for k, one in measured.items():
            for m, values in one.under(weights).items():
                drawn[k][m].append(values)
    for m in names:
        a = scored["a"].values[m]
        outcome = verdict("a", scored["a"], "b", scored["b"], metric_name=m, part="test")
        out["ours", m] = (ends(a), ends(outcome.effect), outcome.word)
        sign = 1 if metric(m).higher_is_better else -1
        mine, theirs = (np.concatenate(drawn[k][m]) for k in "ab")
        low, high = np.nanquantile(sign * (mine - theirs), [0.025, 0.975])
        out["percentile", m] = (
            tuple(np.nanquantile(mine, [0.025, 0.975])),
            (low, high),
            word((low, high)),
        )
        out["plain t", m] = plain_t(scored, m, sign)
    for m, found in rao_wu(measured, scored, labels, groups, names).items():
        out["Rao-Wu t", m] = found
    return out


def rao_wu(measured, scored, labels, groups, names):
    """Rescaled bootstrap of n - 1 patients of n per stratum, with t (degrees of freedom n - strata).

    Rao, J. N. K., & Wu, C. F. J. (1988). Resampling inference with complex survey data. JASA 83.
    """
    rng = np.random.default_rng(0)
    strata = np.array([labels[groups == g][0] for g in range(int(groups.max()) + 1)])
    weights = np.zeros((N_RESAMPLES, len(strata)))
    for s in np.unique(strata):
        of = np.flatnonzero(strata == s)
        n = len(of)
        weights[:, of] = rng.multinomial(n - 1, np.full(n, 1 / n), N_RESAMPLES) * n / (n - 1)
    drawn = {k: one.under(weights) for k, one in measured.items()}
    quantile, found = stats.t.ppf(0.975, len(strata) - len(np.unique(strata))), {}
    for m in names:
        sign = 1 if metric(m).higher_is_better else -1
        a, b = (scored[k].values[m].value for k in "ab")
        half = quantile * np.nanstd(drawn["a"][m])
        gain, half_gain = (sign * (a - b), quantile * np.nanstd(drawn["a"][m] - drawn["b"][m]))
        effect = (gain - half_gain, gain + half_gain)
        found[m] = ((a - half, a + half), effect, word(effect))
    return found


def plain_t(scored, m, sign):
    """Jackknife variance within strata, Satterthwaite's t, no transformation."""
    design, found = scored["a"].designs[m], []
    a, b = (scored[k].values[m].value for k in "ab")
    for value, left_out in (
        (a, scored["a"].left_out[m]),
        (sign * (a - b), sign * (scored["a"].left_out[m] - scored["b"].left_out[m])),
    ):
        parts = []
        for s in design.strata:
            some = left_out[design.block_strata == s]
            parts.append(
                ((len(some) - 1) / len(some) * ((some - some.mean()) ** 2).sum(), len(some) - 1)
            )
        v = np.array(parts)
        total = v[:, 0].sum()
        df = total**2 / (v[:, 0] ** 2 / v[:, 1]).sum() if total > 0 else 1
        half = stats.t.ppf(0.975, df) * total**0.5
        found.append((value - half, value + half))
    return found[0], found[1], word(found[1])


def ends(one):
    return None if one.low is None else (one.low, one.high)


def word(interval) -> str:
    return "better" if interval[0] > 0 else "worse" if interval[1] < 0 else "not shown"


def choice(n_out_of_fold: int, n: int, seed: int) -> dict:
    """22 methods at chance on 30 + 20 patients: how often the chosen one gets the verdict "better"."""
    rng = np.random.default_rng([seed, n_out_of_fold])
    found: dict[str, list[float]] = {
        k: [] for k in ("raw", "corrected", "test", "better on test", "better without test")
    }
    wanted = metric("balanced_accuracy")
    for _ in range(n):
        parts = {}
        for part, size in (("oof", n_out_of_fold), ("test", 20)):
            labels, groups = patients((size // 2, size - size // 2), "geometric", rng)
            some = predictions(labels, groups, 2, [0.0] * 22, rng)
            parts[part] = (labels, groups, {f"m{i}": one for i, one in enumerate(some)})
        scored = {
            part: score_methods(some, labels, groups, 2, metrics=[wanted])
            for part, (labels, groups, some) in parts.items()
        }
        values = {k: one.values[wanted.name].value for k, one in scored["oof"].items() if k != "m0"}
        best = max(values, key=values.get)
        labels, groups, some = parts["oof"]
        corrected = corrected_choice(
            {k: one for k, one in some.items() if k != "m0"}, {"m0": some["m0"]}, labels, groups, 2,
            wanted=wanted, n_resamples=500,
        )  # fmt: skip
        several = {k: one for k, one in scored["oof"].items() if k != "m0"}
        outcome = verdicts(
            several, "m0", scored["oof"]["m0"], metric_name=wanted, part="cross_fitted"
        )[best]
        outcome = corrected_verdict(outcome, corrected.gains.get("m0"))
        on_test = paired_gains({best: scored["test"][best]}, scored["test"]["m0"], wanted)[
            best
        ].effect
        found["raw"].append(values[best])
        found["corrected"].append(corrected.value)
        found["test"].append(scored["test"][best].values[wanted.name].value)
        found["better on test"].append(on_test.low is not None and on_test.low > 0)
        found["better without test"].append(outcome.word == "better")
    return {"methods": 22, "out-of-fold": n_out_of_fold, "test patients": 20, "n": n} | {
        k: float(np.mean(v)) for k, v in found.items()
    }


if __name__ == "__main__":
    main()
