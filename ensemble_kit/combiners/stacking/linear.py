"""Linear stackers over all members' log-probabilities: logistic regression and ridge.

Coefficients are stored as plain arrays; only the fit of `LogisticStacker` imports scikit-learn.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.log_proba import flat_features, with_absent_classes
from ensemble_kit.combiners.temperature import best_scale
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.predictions.method_predictions import Combined, decided

FEATURES = ("log_proba", "proba")


class LogisticStacker(Combiner):
    """Multinomial logistic regression on the members' probabilities or their logarithms.

    Parameters
    ----------
    c : float
        Inverse strength of the ridge penalty, as in scikit-learn.
    features : {"log_proba", "proba"}
        `log_proba` is standardised per feature; `proba` is used unchanged, as in scikit-learn's
        StackingClassifier.

    References
    ----------
    Ting, K. M., & Witten, I. H. (1999). Issues in stacked generalization. JAIR 10, 271-289.

    Examples
    --------
    >>> labels = np.arange(20) % 2
    >>> logits = np.eye(2)[labels][:, None] * np.ones((20, 3, 1))
    >>> LogisticStacker().fit(logits, labels).score(logits, labels)
    1.0
    """

    is_fitted_to_labels = True
    fitted_names = ("coefficients_", "intercept_", "mean_", "scale_", "present_")

    def __init__(self, c: float = 0.03, features: str = "log_proba") -> None:
        self.c = c
        self.features = features

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:  # noqa: ARG002
        from sklearn.linear_model import LogisticRegression

        if self.features not in FEATURES:
            raise UsageError(
                f"Unknown features '{self.features}'",
                f"the features are {', '.join(FEATURES)}",
                did_you_mean(self.features, FEATURES),
            )
        x = self._features(logits)
        raw = self.features == "proba"
        self.mean_ = np.zeros(x.shape[1]) if raw else x.mean(axis=0)
        self.scale_ = np.ones(x.shape[1]) if raw else np.maximum(x.std(axis=0), 1e-3)
        self.present_ = present = np.unique(labels)
        self.coefficients_ = np.zeros((x.shape[1], logits.shape[2]))
        self.intercept_ = np.zeros(logits.shape[2])
        if len(present) == 1:
            return
        model = LogisticRegression(C=self.c, max_iter=2000, tol=1e-6)
        model.fit((x - self.mean_) / self.scale_, labels)
        if len(present) == 2:  # scikit-learn has one row of scores for two classes
            self.coefficients_[:, present[1]] = model.coef_[0]
            self.intercept_[present] = [0.0, model.intercept_[0]]
        else:
            self.coefficients_[:, present] = model.coef_.T
            self.intercept_[present] = model.intercept_

    def _features(self, logits: Array) -> Array:
        if self.features == "proba":
            return softmax(logits).reshape(len(logits), -1)
        return flat_features(logits)

    def _combine(self, logits: Array) -> Combined:
        x = (self._features(logits) - self.mean_) / self.scale_
        proba = softmax(x @ self.coefficients_ + self.intercept_)
        return decided(with_absent_classes(proba, logits, self.present_))


class RidgeStacker(Combiner):
    """Ridge regression to class indicators; a softmax with a fitted scale gives probabilities.

    The penalty of lowest leave-one-out error is used.

    Parameters
    ----------
    alphas : tuple of float
        Penalties to try, per sample.

    References
    ----------
    Breiman, L. (1996). Stacked regressions. Machine Learning 24(1), 49-64.

    Examples
    --------
    >>> labels = np.arange(20) % 2
    >>> logits = np.eye(2)[labels][:, None] * np.ones((20, 3, 1))
    >>> RidgeStacker().fit(logits, labels).score(logits, labels)
    1.0
    """

    is_fitted_to_labels = True
    fitted_names = ("coefficients_", "intercept_", "mean_", "scale_", "alpha_", "sharpness_")

    def __init__(self, alphas: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0, 10.0)) -> None:
        self.alphas = alphas

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:  # noqa: ARG002
        x = flat_features(logits)
        self.mean_, self.scale_ = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-3)
        z = (x - self.mean_) / self.scale_
        y = np.eye(logits.shape[2])[labels]
        self.intercept_ = y.mean(axis=0)
        target, n = y - self.intercept_, len(y)
        u, s, vt = np.linalg.svd(z, full_matrices=False)
        turned = u.T @ target
        best = (np.inf, 0.0, y, np.zeros((z.shape[1], y.shape[1])))
        for alpha in self.alphas:
            shrink = s**2 / (s**2 + alpha * n)
            leverage = np.minimum(((u**2) * shrink).sum(axis=1) + 1.0 / n, 1 - 1e-6)
            left_out = target - (target - u @ (shrink[:, None] * turned)) / (1 - leverage)[:, None]
            error = float(((target - left_out) ** 2).mean())
            if error < best[0]:
                coefficients = vt.T @ ((s / (s**2 + alpha * n))[:, None] * turned)
                best = (error, float(alpha), left_out, coefficients)
        _, self.alpha_, left_out, self.coefficients_ = best
        # The softmax is scaled on leave-one-out scores; in-sample scores are overconfident.
        self.sharpness_ = best_scale(labels, left_out + self.intercept_)

    def _combine(self, logits: Array) -> Combined:
        z = (flat_features(logits) - self.mean_) / self.scale_
        return decided(softmax(self.sharpness_ * (z @ self.coefficients_ + self.intercept_)))
