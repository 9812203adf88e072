"""Ridge regression of one representation on another, fitted once and used on other samples."""

from __future__ import annotations

from repsim._options import as_number
from repsim._typing import Array, Namespace
from repsim.measures.fitted._affine import AffineAlignment, Centred
from repsim.measures.parts._rounding import beyond_rounding

__all__ = ["RegressionAlignment"]


class RegressionAlignment(AffineAlignment):
    """Linear regression of y on x.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((90, 5))
    >>> y = x @ rng.standard_normal((5, 3)) + 0.1 * rng.standard_normal((90, 3))
    >>> alignment = repsim.RegressionAlignment(ridge=1e-3).fit(x[:60], y[:60])
    >>> alignment.transform(x[60:]).shape
    (30, 3)
    >>> bool(alignment.score(x[60:], y[60:]) > 0.95)  # of samples that were not fitted
    True

    ::

        ŷ = μ_y + (x − μ_x)W,   W = argmin ‖Yc − XcW‖² + λ‖W‖²,   λ = ridge · ‖Xc‖²/n

    Parameters
    ----------
    ridge : float, default 0.0
        Penalty ≥ 0, in units of the mean squared norm of the fitted samples of x.

    Attributes
    ----------
    weights_ : array, shape (p, q)
        W; the smallest one if several fit equally well.
    mean_x_, mean_y_ : array, shapes (p,) and (q,)
        The means of the fitted samples.

    Raises
    ------
    InputError
        A negative ``ridge``.

    Notes
    -----
    The score of the fitted samples is ``linear_regression_r2(y, x, ridge=ridge)``: there, the first
    array is predicted, and the value is NaN if x spans all n − 1 dimensions. Unlike ``alpha`` of
    scikit-learn, ``ridge`` does not depend on the unit of x; :func:`repsim.predictivity` has a
    penalty in squared units of x. Cost O(n p min(n, p) + n p q).

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414, section 4.
    """

    def __init__(self, *, ridge: float = 0.0) -> None:
        super().__init__()
        self.ridge = as_number("RegressionAlignment", "ridge", ridge, least=0)

    def _solve(self, xp: Namespace, x: Centred, y: Centred) -> tuple[Array, Array]:
        left, values, right = xp.linalg.svd(x.values, full_matrices=False)
        counts = beyond_rounding(xp, values, right, x.samples())
        penalty = self.ridge * xp.sum(values * values) / x.values.shape[0]
        below = xp.where(counts, values * values + penalty, xp.ones_like(values))
        shrunk = xp.where(counts, values / below, xp.zeros_like(values))
        coordinates = xp.matrix_transpose(left) @ y.values
        return xp.matrix_transpose(right) @ (shrunk[:, None] * coordinates), y.scale
