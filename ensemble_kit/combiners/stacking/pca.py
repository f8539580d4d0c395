"""Principal components by subspace iteration, which is fast for few components of many columns.

Halko, N., Martinsson, P.-G., & Tropp, J. A. (2011). Finding structure with randomness. SIAM Review
53(2), 217-288.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.seeding import generator

EXTRA, ITERATIONS = 10, 6


def principal_axes(rows: Array, n_components: int, *, seed: int = 0) -> tuple[Array, Array]:
    """Centre and principal axes of `rows`.

    Parameters
    ----------
    rows : array of float64, shape (n_rows, n_columns)
    n_components : int
        Maximum number of axes; there are at most n_columns and n_rows - 1.

    Returns
    -------
    array, shape (n_columns,)
    array, shape (n_columns, n_axes)
        Orthonormal columns, the direction of the largest variance first.

    Examples
    --------
    >>> centre, axes = principal_axes(np.array([[0.0, 1.0], [4.0, 1.0], [8.0, 1.0]]), 1)
    >>> centre.tolist(), np.abs(axes[:, 0]).round(6).tolist()
    ([4.0, 1.0], [1.0, 0.0])
    """
    centre = rows.mean(axis=0)
    moved = rows - centre
    n_axes = min(n_components, rows.shape[1], max(len(rows) - 1, 1))
    size = min(n_axes + EXTRA, *rows.shape)
    start = generator(seed, "axes").normal(size=(rows.shape[1], size))
    basis = np.linalg.qr(start)[0]
    for _ in range(ITERATIONS):
        basis = np.linalg.qr(moved.T @ (moved @ basis))[0]
    _, _, turned = np.linalg.svd(moved @ basis, full_matrices=False)
    return centre, basis @ turned[:n_axes].T
