"""Linear regression: how much of one representation is a linear function of another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from repsim._errors import InputError
from repsim._options import as_count
from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.estimators import within_one
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._geometry import Contrasts, centred_samples, contrasts
from repsim.measures.parts._ridge_folds import (
    Fold,
    as_penalties,
    fold_errors,
    interleaved,
    training_spectrum,
)
from repsim.measures.parts._subspace import (
    contrast_spectrum,
    where_defined,
    whole_span,
    with_unit_columns,
)

__all__ = ["linear_regression_r2"]


def linear_regression_r2(
    x: Array, y: Array, *, ridge: float | Sequence[float] = 0.0, folds: int | None = None
) -> Array:
    """Share of the variance of x that a linear function of y explains.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> y = rng.standard_normal((100, 5))
    >>> x = y @ rng.standard_normal((5, 2)) + 3
    >>> round(float(repsim.linear_regression_r2(x, y)), 6)
    1.0
    >>> bool(repsim.linear_regression_r2(y, x) < 0.6)
    True
    >>> many = rng.standard_normal((100, 90))
    >>> bool(repsim.linear_regression_r2(x, many) > 0.8)
    True
    >>> bool(repsim.linear_regression_r2(x, many, ridge=[1, 10, 100], folds=5) < 0.1)
    True

    ::

        R² = 1 − min_B ‖Xc − YcB‖² / ‖Xc‖² = ‖QᵀXc‖²/‖Xc‖²      (Kornblith et al. 2019, section 4)
        ridge   B = argmin ‖Xc − YcB‖² + λ‖B‖²,   λ = ridge · ‖Yc‖²/n
        folds   1 − Σ_f ‖X_f − X̂_f‖² / Σ_f ‖X_f − m_f‖²

    with Xc, Yc the activations minus their column means, Q an orthonormal basis of the columns of
    Yc, and X̂_f and m_f the prediction and the mean of x from the samples outside fold f. All
    features of x count together, each weighted by its variance.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        The target: activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        The predictors: activations of the same samples in the same order; same framework and
        device.
    ridge : float or sequence of float, default 0.0
        Penalty ≥ 0, in units of the mean squared norm of the (training) samples of y, so the value
        does not depend on the scale of y. If you pass several, you must pass ``folds`` too; each
        training set then takes the penalty with the smallest leave-one-out error within it.
    folds : int, optional
        Number of folds, 2 ≤ folds ≤ n. Each fold is predicted from the others; sample i is in fold
        i mod ``folds``. By default the value is the R² of the fit itself.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1] without folds. With folds at most 1, and negative if predictions are worse than
        the mean. Without unit. Same namespace and device as the inputs; float32 for half precision
        and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 3 (with folds: 4 and ``folds``) samples, one-dimensional or empty
        input, NaN or infinity (``NonFiniteError``), negative penalties, several without folds.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, or if without ridge and folds y spans all n − 1 dimensions
        of n centred samples and so explains anything: NaN is returned.

    Notes
    -----
    Not symmetric: ``linear_regression_r2(y, x)`` predicts y. Without ridge it is invariant to
    invertible linear maps and translation of y, and to orthogonal maps, isotropic scale, feature
    permutations and translation of x; with ridge, or with folds and linearly dependent columns of
    y, the only invariances to y are orthogonal maps, isotropic scale and translation. Without folds
    the value is biased upwards by about q/(n−1) of the unexplained share: the mean for independent
    data is q/(n−1).

    With linearly dependent columns and folds, the smallest B is used. Columns of y count as
    linearly dependent up to the rounding of its dtype. Computed in float64 where the device has it.
    Differentiable where the columns of y are linearly independent and, with ridge or folds, its
    singular values distinct; where two are equal, the derivative is NaN.
    Cost: O(n q min(n, q)) once for each array and fold, O(n p min(n, q)) for a pair, once for each
    penalty.

    References
    ----------
    Kornblith et al. 2019, arXiv:1905.00414, section 4. Hastie, Tibshirani, Friedman 2009, "The
    elements of statistical learning", Eq. 7.64, for the leave-one-out error.
    """
    return evaluate("linear_regression_r2", x, y, ridge=ridge, folds=folds)


class _Item:
    """A representation as target and as predictor, each made on first use."""

    def __init__(self, operation: str, name: str, z: Contrasts) -> None:
        self.xp = xp = array_namespace(z.points)
        self.n = z.dimensions + 1
        self.contrasts, self.centred = z, z.points
        self._operation, self._name = operation, name
        self.square = xp.sum(self.centred * self.centred)
        undefined(operation, name, self.square <= 0, "is constant over the samples")
        self._spectra: dict[bool, tuple[Array, Array, Array]] = {}
        self._folds: dict[int, Fold] = {}

    def directions(self, *, plain: bool) -> tuple[Array, Array, Array]:
        """Return left singular vectors (n − 1, r), singular values, and which of them count.

        Plain regression ignores the scale of a column, so all columns are scaled to norm one first.
        Otherwise a small feature could be mistaken for rounding.
        """
        xp = self.xp
        if plain not in self._spectra:
            z = self.contrasts
            spectrum = (
                whole_span(xp, with_unit_columns(xp, z)) if plain else contrast_spectrum(xp, z)
            )
            if plain:
                undefined(
                    self._operation,
                    self._name,
                    xp.sum(xp.astype(spectrum.counts, spectrum.values.dtype)) >= self.n - 1,
                    f"spans all {self.n - 1} dimensions of {self.n} centred samples and explains "
                    f"anything (bring more samples than features, or pass ridge= or folds=)",
                )
            self._spectra[plain] = spectrum
        return self._spectra[plain]

    def training(self, fold: int, folds: int) -> Fold:
        """Return the decomposition of the samples outside a fold."""
        if fold not in self._folds:
            self._folds[fold] = training_spectrum(
                self.xp, self.contrasts, interleaved(self.n, fold, folds)
            )
        return self._folds[fold]


def _prepare(operation: str, x: Array, *, name: str, ridge: object, folds: int | None) -> _Item:
    _penalties(operation, ridge, folds)
    xp = array_namespace(x)
    if folds is None:
        return _Item(operation, name, contrasts(xp, x))
    # Folds are of samples, so all n of them, centred.
    return _Item(operation, name, centred_samples(xp, x))


def _prepare_contrasts(
    operation: str, z: Contrasts, *, name: str, ridge: object, folds: int | None
) -> _Item:
    _penalties(operation, ridge, folds)
    if folds is not None:
        raise InputError(
            f"{operation}: held-out samples do not follow from covariances of all samples.\n"
            f"  got folds={folds!r}\n"
            f"  Pass folds=None with ridge=, or use repsim.pairwise or repsim.linear_probe."
        )
    return _Item(operation, name, z)


def _compare(x: _Item, y: _Item, *, ridge: object, folds: int | None) -> Array:
    xp = x.xp
    penalties = _penalties("linear_regression_r2", ridge, folds)
    defined = (x.square > 0) & (y.square > 0)
    if folds is None:
        vectors, values, counts = y.directions(plain=penalties == (0.0,))
        power = values * values
        if penalties == (0.0,):
            defined = defined & (xp.sum(xp.astype(counts, values.dtype)) < y.n - 1)
            kept = xp.astype(counts, power.dtype)
        else:
            power = power / xp.where(defined, y.square / y.n, xp.ones_like(y.square))
            shrunk = power / (power + penalties[0])
            kept = shrunk * (2 - shrunk)  # ‖Xc‖² − ‖Xc − X̂‖² in one direction
        coordinates = xp.matrix_transpose(vectors) @ x.centred
        explained = xp.sum(kept * xp.sum(coordinates * coordinates, axis=1))
        share = explained / xp.where(defined, x.square, xp.ones_like(x.square))
        value = within_one(xp, share)
    else:
        errors, scale = xp.zeros_like(x.square), xp.zeros_like(x.square)
        for fold in range(folds):
            error, spread = fold_errors(
                xp, y.training(fold, folds), x.centred, interleaved(x.n, fold, folds), penalties
            )
            errors, scale = errors + error, scale + spread
        value = 1 - errors / xp.where(scale > 0, scale, xp.ones_like(scale))
    return where_defined(xp, value, defined)


def _penalties(operation: str, ridge: object, folds: int | None) -> tuple[float, ...]:
    penalties = as_penalties(operation, ridge)
    if len(penalties) > 1 and folds is None:
        raise InputError(
            f"{operation}: several penalties need held-out samples to choose by.\n"
            f"  got ridge={ridge!r} without folds\n"
            f"  Pass folds=5, or one penalty."
        )
    return penalties


def _needs(*, ridge: object, folds: int | None) -> tuple[int, str]:
    if folds is None:
        return 3, "linear_regression_r2"
    folds = as_count("linear_regression_r2", "folds", folds, least=2, also=", or None")
    return max(4, folds), f"folds={folds}"


def _range_with(*, folds: object, **_: object) -> tuple[float, float]:
    return (0.0, 1.0) if folds is None else (-math.inf, 1.0)


def _exact(*, ridge: object, folds: int | None) -> bool:
    """Whether x explains all of itself: neither a penalty nor few samples leave a part of it."""
    return folds is None and _penalties("linear_regression_r2", ridge, folds) == (0.0,)


_MOVES = frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"})

register(
    Measure(
        name="linear_regression_r2",
        family="regression",
        function=linear_regression_r2,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=False,
        invariances=_MOVES,
        invariances_y=_MOVES | {"invertible_linear"},
        minimum_samples=3,
        cost="item O(n q min(n, q)), pair O(n p min(n, q))",
        reference="Kornblith et al. 2019, section 4",
        prepare=_prepare,
        prepare_contrasts=_prepare_contrasts,
        compare=_compare,
        needs=_needs,
        range_with=_range_with,
        self_is_best_with=_exact,
    )
)
