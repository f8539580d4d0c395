"""The start of networks: the members' weighted mean log-probability, with weights of lowest log loss.

A member that is confident and wrong gets a small weight.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, log_softmax

RIDGE = 1e-3


def pool_weights(log_proba: Array, labels: npt.NDArray[np.int64], ridge: float = RIDGE) -> Array:
    """Weights w >= 0 of lowest log loss for softmax(sum over m of w_m log p_m); shape (n_members,).

    The problem is convex. A penalty shrinks the weights to 1 / n_members, the geometric mean.

    Parameters
    ----------
    log_proba : array, shape (n_samples, n_members, n_classes)
        Finite; each (sample, member) up to a constant.
    labels : array of int, shape (n_samples,)
    ridge : float
        The penalty is ridge times the squared distance.

    References
    ----------
    Heskes, T. (1998). Selecting weighting factors in logarithmic opinion pools. NeurIPS 10.

    Examples
    --------
    >>> log_proba = np.log([[[0.9, 0.1], [1.0, 1e-5]], [[0.1, 0.9], [1.0, 1e-5]]])
    >>> bool(pool_weights(log_proba, np.array([0, 1]))[1] < 0.01)
    True
    """
    from scipy.optimize import minimize

    n_samples, n_members, n_classes = log_proba.shape
    columns = np.ascontiguousarray(log_proba.transpose(0, 2, 1)).reshape(-1, n_members)
    truth = np.eye(n_classes)[labels]
    centre = 1.0 / n_members

    def loss(w: Array) -> tuple[float, Array]:
        mixed = log_softmax((columns @ w).reshape(n_samples, n_classes))
        slope = columns.T @ (np.exp(mixed) - truth).ravel() / n_samples
        value = -(mixed * truth).sum() / n_samples + ridge * ((w - centre) ** 2).sum()
        return float(value), slope + 2 * ridge * (w - centre)

    found = minimize(
        loss, np.full(n_members, centre), jac=True, method="L-BFGS-B",
        bounds=[(0, None)] * n_members, options={"maxiter": 200, "gtol": 1e-6},
    )  # fmt: skip
    return np.asarray(found.x)
