"""The sections on probabilities: ROC and precision-recall, calibration, and referral of uncertain images."""

from __future__ import annotations

from ensemble_kit.errors import command
from ensemble_kit.plots.reliability import reliability_figure
from ensemble_kit.plots.risk_coverage import risk_coverage_figure
from ensemble_kit.plots.roc_and_pr import roc_pr_figure
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.report.content import Content
from ensemble_kit.report.method_curves import (
    area_under_risk_coverage,
    calibration_error,
    errors_after_referral,
    reliability,
    risk_coverage_curve,
)
from ensemble_kit.report.sections.section import Drawing, Section

REFERRED = 0.1
# The mean of all members, before and after temperature scaling.
BEFORE, AFTER = "mean", "temperature"


def ranking_section(content: Content) -> Section:
    """ROC and precision-recall curves: of methods for two classes, of classes for more."""
    names = content.manifest.class_names
    predictions = content.compared("best-member", "mean")
    if len(names) == 2:
        c = _positive(content)
        scores = {m: (a.labels == c, a.proba[:, c]) for m, a in predictions.items()}
        what = f"{names[c]} against {names[1 - c]}"
        text = f"For {what}"
    else:
        own = predictions[content.chosen]
        shown = content.classes.in_roc
        scores = {names[c]: (own.labels == c, own.proba[:, c]) for c in shown}
        what = f"{content.chosen}, each class against the rest"
        text = f"For each class against the rest, by {content.chosen}"
        if len(shown) < len(names):
            text = f"For the {len(shown)} classes of lowest sensitivity, by {content.chosen}"
    n = len(predictions[content.chosen].labels)
    text += f": {n} images ({content.part}). Dotted: random ranking."
    alt = f"ROC and precision-recall curves: {what}"
    return Section(
        "ranking", "ROC and precision-recall", (text,), (Drawing("roc_pr", roc_pr_figure(scores), alt),)
    )  # fmt: skip


def _positive(content: Content) -> int:
    """The index of the positive one of two classes; the second if it is not known."""
    name = content.manifest.called_class
    return content.manifest.class_names.index(name) if name else 1


def calibration_section(content: Content) -> Section:
    """Reliability before and after calibration."""
    fitted = () if AFTER in content.fell_back else (AFTER,)
    predictions = content.compared("best-member", BEFORE, *fitted)
    bins = {content.part: {m: reliability(a) for m, a in predictions.items()}}
    errors = {m: calibration_error(a) for m, a in predictions.items()}
    sentences = [f"Calibration error of {content.chosen}: {errors[content.chosen]:.3f}."]
    if AFTER in content.fell_back:
        sentences.append("Temperature scaling is not better than the mean, and was replaced by it.")
    elif AFTER in errors and BEFORE in errors:
        sentences.append(
            f"The mean of all members has {errors[BEFORE]:.3f} before and {errors[AFTER]:.3f} after "
            "temperature scaling."
        )
    elif content.stored:
        again = command("stack", "--method", f"{content.chosen},{AFTER}", "--run", content.run.path)
        sentences.append(
            f"The probabilities were not calibrated. To compare with temperature scaling: `{again}`."
        )
    sentences.append("On the dotted line, the confidence equals the share of correct predictions.")
    alt = f"Reliability diagram of {', '.join(predictions)}"
    drawing = Drawing("reliability", reliability_figure(bins), alt)
    return Section("calibration", "Calibration", (" ".join(sentences),), (drawing,), is_half=True)


def referral_section(content: Content) -> Section:
    """Error rate if the least certain 10 % of the images are referred."""
    predictions = content.compared("best-member", "mean")
    curves = {content.part: {m: risk_coverage_curve(a) for m, a in predictions.items()}}
    areas = {content.part: {m: area_under_risk_coverage(a) for m, a in predictions.items()}}
    figure = risk_coverage_figure(curves, areas, referred=REFERRED)
    alt = f"Error rate of {', '.join(predictions)} by the share of images that are decided"
    return Section(
        "referral",
        "Referral of uncertain images",
        (_referred(content, predictions[content.chosen]),),
        (Drawing("risk_coverage", figure, alt),),
        is_half=True,
    )


def _referred(content: Content, predictions: MethodPredictions) -> str:
    before, share, after = errors_after_referral(predictions, REFERRED)
    what = f"the {share:.0%} least certain images"
    if share < REFERRED / 2:
        return (
            f"{content.chosen} gives many images the same confidence, so {REFERRED:.0%} cannot be "
            f"referred: its error rate stays {before:.3f}. AURC: mean error rate over all shares."
        )
    change = f"{'falls' if after < before else 'rises'} from {before:.3f} to {after:.3f}"
    change = f"stays {before:.3f}" if after == before else change
    return (
        f"If {what} are referred, the error rate of {content.chosen} on the others {change} "
        f"({content.part}; dashed line). AURC: mean error rate over all shares."
    )
