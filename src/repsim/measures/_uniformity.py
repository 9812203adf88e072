"""Difference of uniformities: how evenly the samples of two representations are spread."""

from __future__ import annotations

import math
from typing import Any

from repsim._options import as_number
from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._dissimilarity import squared_euclidean

__all__ = ["uniformity_difference"]


def uniformity_difference(x: Array, y: Array, *, t: float = 2.0) -> Array:
    """Uniformity difference: how much more evenly the samples are spread in one representation.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> round(float(repsim.uniformity_difference(x, x[:, ::-1] + 1)), 6)
    0.0
    >>> constant = np.ones((50, 3))
    >>> bool(repsim.uniformity_difference(x, constant) > 1)
    True

    ::

        | u(x) − u(y) |,   u(x) = log( (1/n²) Σ_ij exp(−t ‖x_i − x_j‖²) )

    over all i and j, i = j included.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    t : float, default 2.0
        Above 0, in the units of the features to the power of −2.

    Returns
    -------
    array, 0-d, or NumPy scalar
        From 0 to log(n), without unit. Same namespace and device as the inputs; float32 for half
        precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), t that is not a positive number.

    Notes
    -----
    u is −log(n) for samples that are far apart, compared with 1/√t, and 0 for a constant
    representation. The order of the samples does not matter, so 0 does not mean that two
    representations are alike. The features are taken as they are; the published u is for rows of
    norm one.

    Symmetric; a dissimilarity, not a metric. Invariant to orthogonal maps, feature permutations and
    translation of either input; not to scale. Differentiable where the value is not 0. Computed in
    float64 where the device has it. Cost: O(n² p) once for each array, O(1) for a pair; memory
    O(n²).

    References
    ----------
    Wang, Isola 2020, "Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere", arXiv:2005.10242. Klabunde et al. 2023, arXiv:2305.06329.
    """
    return evaluate("uniformity_difference", x, y, t=t)


def _prepare(operation: str, x: Array, *, name: str, t: float) -> Array:
    t = as_number(operation, "t", t, above=0)
    xp = array_namespace(x)
    squared, scale = squared_euclidean(x)
    # In this order 0 stays 0, and what overflows is so far apart that its term is 0.
    exponents = -(squared * scale * scale * t)
    # Near samples have a mean near 1, whose logarithm has no digit of their distances.
    less = xp.mean(xp.expm1(exponents))
    far = less < -0.5
    out: Array = xp.where(far, xp.log(xp.mean(xp.exp(exponents))), xp.log1p(less))
    return out


def _compare(x: Array, y: Array, **_: Any) -> Array:
    out: Array = array_namespace(x).abs(x - y)
    return out


register(
    Measure(
        name="uniformity_difference",
        family="statistics",
        function=uniformity_difference,
        range=(0.0, math.inf),
        similarity=False,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "translation"}),
        minimum_samples=2,
        cost="item O(n² p), pair O(1)",
        reference="Wang & Isola 2020; Klabunde et al. 2023",
        prepare=_prepare,
        compare=_compare,
        defined_for_constant=True,
    )
)
