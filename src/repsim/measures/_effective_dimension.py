"""Effective dimension: over how many directions the variance of one representation is spread."""

from __future__ import annotations

from repsim._typing import Array
from repsim.arrays import (
    as_samples,
    check_finite,
    namespace,
    scalar,
    unlabelled,
    without_autocast,
)
from repsim.estimators import inner
from repsim.measures._registry import undefined
from repsim.measures.parts._geometry import centred_points
from repsim.measures.parts._subspace import where_defined

__all__ = ["effective_dimension"]


@without_autocast
def effective_dimension(x: Array) -> Array:
    """Participation ratio: over how many directions the variance of a representation is spread.

    >>> import numpy as np, repsim
    >>> square = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> round(float(repsim.effective_dimension(square)), 6)
    2.0
    >>> round(float(repsim.effective_dimension(square * [1.0, 100.0])), 3)
    1.0

    ::

        tr(Kc)² / ‖Kc‖_F² = (Σ λ_i)² / Σ λ_i²

    with Kc = XcXcᵀ of the activations minus their column means, and λ_i the variances of the
    principal components.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.

    Returns
    -------
    array, 0-d, or NumPy scalar
        From 1, if all samples lie on a line, to min(n − 1, p), if the variance is equal in all
        directions; without unit. Same namespace and device as the input; float32 for half precision
        and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not an array.
    InputError
        Fewer than 2 samples, one-dimensional or empty input, NaN or infinity (``NonFiniteError``).

    Warns
    -----
    DegenerateWarning
        If the representation is constant: NaN is returned.

    Notes
    -----
    Invariant to orthogonal maps, isotropic scale, feature permutations and translation. One feature
    of large variance brings the value near 1. With few samples the value is too low: that of n
    samples of white noise in p dimensions is about np/(n + p). The mean of biased :func:`cka` over
    all permutations of the samples is √(d_x d_y)/(n − 1), with d the effective dimension.

    Differentiable where the input is. Computed in float64 where the device has it. Cost: O(n p
    min(n, p)).

    References
    ----------
    Gao, Trautmann, Yu, Santhanam, Ryu, Shenoy, Ganguli 2017, "A theory of multineuronal
    dimensionality, dynamics and measurement", bioRxiv 214262.
    """
    (plain,) = unlabelled("effective_dimension", {"x": x})
    xp = namespace("effective_dimension", x=plain)
    a = as_samples("effective_dimension", xp, plain, "x", min_samples=2, why="a variance")
    check_finite("effective_dimension", xp, a, "x")
    z, _ = centred_points(xp, a)
    if z.shape[0] > z.shape[1]:
        z = xp.matrix_transpose(z)
    gram = z @ xp.matrix_transpose(z)
    trace, square = inner(xp, z, z), inner(xp, gram, gram)
    defined = square > 0
    undefined("effective_dimension", "x", ~defined, "is constant over the samples")
    ratio = trace * trace / xp.where(defined, square, xp.ones_like(square))
    return scalar(xp, where_defined(xp, ratio, defined), a.dtype)
