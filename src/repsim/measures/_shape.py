"""The angular shape distance, from no whitening to full whitening."""

from __future__ import annotations

import math
from typing import Any

from repsim._options import as_number
from repsim._typing import Array
from repsim.arrays import array_namespace, known
from repsim.measures._procrustes import Configuration, configuration, similarity
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._geometry import Contrasts, angle, of_samples
from repsim.measures.parts._subspace import contrast_spectrum, subspace

__all__ = ["shape_distance"]


def shape_distance(x: Array, y: Array, *, alpha: float = 1.0) -> Array:
    """Angular shape distance: the angle between two representations after the best rotation.

    >>> import numpy as np, repsim
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0], [4.0, 1.0]])
    >>> stretched = x * [1.0, 3.0]
    >>> round(float(repsim.shape_distance(x, stretched)), 6)
    0.496548
    >>> float(repsim.shape_distance(x, stretched, alpha=0.0))
    0.0

    ::

        θ = min_Q arccos(⟨φ(X), φ(Y)Q⟩ / (‖φ(X)‖ ‖φ(Y)‖))
        φ(X) = Xc (α I + (1 − α)(XcᵀXc)^(−1/2))

    over orthogonal Q, with Xc the activations minus their column means. α = 1 is arccos(NBS); α = 0
    compares whitened representations, as canonical correlation does.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ: the narrower one is filled up with zeros.
    alpha : float, default 1.0
        In [0, 1]: how much of the covariance is kept.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, π/2], radians; 0 for representations that are equal up to the invariances. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 samples (α = 0: 3), one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), alpha outside [0, 1].

    Warns
    -----
    DegenerateWarning
        If a representation is constant, or if α = 0 and it spans all n − 1 dimensions of the
        centred samples, because whitening then removes all differences: NaN is returned.

    Notes
    -----
    A metric for any fixed α. With α = 1 it is invariant to orthogonal maps, isotropic scale,
    feature permutations and translation, with α = 0 to invertible linear maps and translation. In
    between, the formula adds features with units to whitened features without, so the value depends
    on the scale. Standardise the features first, and use one α throughout.

    Angles below about 1e-7 (3e-3 if the device has no float64) are the rounding error of 1 − cos
    and are returned as exactly 0. (XcᵀXc)^(−1/2) is a pseudo-inverse if Xc is rank-deficient.
    Computed in float64 where the device has it; differentiable where the singular values of Xc (α <
    1) are distinct and XcᵀYc is of full rank. Cost as :func:`nbs`, and for α < 1 one SVD of each
    input, O(n p min(n, p)).

    References
    ----------
    Williams, Kunz, Kornblith, Linderman 2021, "Generalized shape metrics on neural
    representations", arXiv:2110.14739.
    """
    return evaluate("shape_distance", x, y, alpha=alpha)


def _prepare(operation: str, z: Contrasts, *, name: str, alpha: float) -> Configuration:
    alpha = as_number(operation, "alpha", alpha, least=0, most=1)
    xp = array_namespace(z.points)
    if alpha == 0:  # any basis of the span works, and the scales of the columns do not matter
        span = subspace(operation, name, z)
        one = xp.ones_like(span.rank)
        norm = xp.where(span.defined, xp.sqrt(span.rank), xp.zeros_like(one))
        return Configuration(span.basis, norm, one)
    if alpha < 1:
        vectors, values, counts = contrast_spectrum(xp, z)
        # φ(X)V = U(αS + (1 − α)): V is a rotation. The angle has no unit, so both terms are divided
        # by the scale if it is above 1, and not one of them by a scale whose inverse overflows.
        one = xp.ones_like(z.scale)
        kept = alpha * (values * xp.minimum(z.scale, one))
        whitened = xp.where(counts, (1 - alpha) / xp.maximum(z.scale, one), xp.zeros_like(values))
        item = configuration(xp, vectors * (kept + whitened), one)
    else:
        item = configuration(xp, z.points, z.scale)
    undefined(operation, name, known(item.norm > 0) is False, "is constant over the samples")
    return item


def _needs(*, alpha: float) -> tuple[int, str]:
    alpha = as_number("shape_distance", "alpha", alpha, least=0, most=1)
    return (3, "whitening") if alpha == 0 else (2, "an angle between shapes")


def _compare(x: Configuration, y: Configuration, **_: Any) -> Array:
    xp = array_namespace(x.points)
    return angle(xp, similarity(xp, x, y))


_RIGID = frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"})

register(
    Measure(
        name="shape_distance",
        family="shape",
        function=shape_distance,
        range=(0.0, math.pi / 2),
        similarity=False,
        metric=True,
        symmetric=True,
        invariances=_RIGID,
        minimum_samples=2,
        cost="item O(n² p) for p ≥ n, pair O(n p q + p q min(p, q)) with p, q at most n − 1",
        reference="Williams et al. 2021",
        prepare=of_samples(_prepare),
        prepare_contrasts=_prepare,
        compare=_compare,
        needs=_needs,
        units="rad",
    )
)
register(
    Measure(
        name="whitened_shape_distance",
        family="shape",
        function=shape_distance,
        range=(0.0, math.pi / 2),
        similarity=False,
        metric=True,
        symmetric=True,
        invariances=_RIGID | {"invertible_linear"},
        minimum_samples=3,
        cost="item O(n p min(n, p)), pair O(n p q + p q min(p, q))",
        reference="Williams et al. 2021",
        prepare=of_samples(_prepare),
        prepare_contrasts=_prepare,
        compare=_compare,
        needs=_needs,
        units="rad",
        preset={"alpha": 0.0},
    )
)
