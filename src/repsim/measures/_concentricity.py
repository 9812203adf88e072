"""Difference of concentricities: how closely the samples follow the direction of their mean."""

from __future__ import annotations

from typing import NamedTuple

from repsim._typing import Array
from repsim.arrays import accumulator_dtype, array_namespace, unit_scale
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import NO_DIRECTION, directions
from repsim.measures.parts._subspace import where_defined

__all__ = ["concentricity_difference"]


def concentricity_difference(x: Array, y: Array) -> Array:
    """Concentricity difference: how much more the samples follow their mean in one representation.

    >>> import numpy as np, repsim
    >>> x = np.array([[2.0, 0.0], [0.0, 2.0]])
    >>> y = np.array([[1.0], [3.0]])
    >>> round(float(repsim.concentricity_difference(x, y)), 6)
    0.292893

    ::

        | c(x) − c(y) |,   c(x) = mean_i cos(x_i, mean_j x_j)

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 2], without unit. Same namespace and device as the inputs; float32 for half precision
        and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``).

    Warns
    -----
    DegenerateWarning
        If a row of zeros has no direction, or if the mean is zero up to rounding, as after
        centring: NaN is returned.

    Notes
    -----
    The order of the samples does not matter, so 0 does not mean that two representations are alike.
    Symmetric; a dissimilarity, not a metric. Invariant to orthogonal maps, isotropic scale and
    feature permutations of either input; not to translation. Differentiable where the value is not
    0. Computed in float64 where the device has it. Cost: O(n p) once for each array, O(1) for a
    pair.

    References
    ----------
    Wang et al. 2022, "Towards understanding the instability of network embedding", IEEE TKDE 34.
    Klabunde et al. 2023, arXiv:2305.06329.
    """
    return evaluate("concentricity_difference", x, y)


class _Concentricity(NamedTuple):
    """The mean cosine of the samples with their mean, 0-d."""

    cosine: Array
    defined: Array


def _prepare(operation: str, x: Array, *, name: str) -> _Concentricity:
    xp = array_namespace(x)
    wide, _ = unit_scale(xp, xp.astype(x, accumulator_dtype(xp, x), copy=False))
    mean = xp.mean(wide, axis=0)
    largest = xp.max(xp.abs(wide))
    flat = xp.max(xp.abs(mean)) <= 16 * float(xp.finfo(x.dtype).eps) * largest
    rows, missing = directions(wide, "cosine")
    none = xp.any(missing)
    undefined(operation, name, none, NO_DIRECTION["cosine"])
    undefined(operation, name, flat & ~none, "has a mean of zero, which has no direction")
    mean = xp.where(flat, xp.ones_like(mean), mean)
    cosine = xp.mean(rows @ (mean / xp.linalg.vector_norm(mean)))
    return _Concentricity(cosine, ~none & ~flat)


def _compare(x: _Concentricity, y: _Concentricity) -> Array:
    xp = array_namespace(x.cosine)
    return where_defined(xp, xp.abs(x.cosine - y.cosine), x.defined & y.defined)


register(
    Measure(
        name="concentricity_difference",
        family="statistics",
        function=concentricity_difference,
        range=(0.0, 2.0),
        similarity=False,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale"}),
        minimum_samples=2,
        cost="item O(n p), pair O(1)",
        reference="Wang et al. 2022; Klabunde et al. 2023",
        prepare=_prepare,
        compare=_compare,
        defined_for_constant=True,
    )
)
