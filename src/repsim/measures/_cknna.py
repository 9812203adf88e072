"""CKNNA: kernel alignment restricted to nearest neighbours."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, reordered_pairs
from repsim.estimators import Products, off_diagonal, ratio
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import dissimilarities
from repsim.measures.parts.neighbours._joined import warn_of_joined
from repsim.measures.parts.neighbours._weights import neighbour_weights, neighbours_need

__all__ = ["cknna"]


def cknna(x: Array, y: Array, *, k: int = 10) -> Array:
    """Centred kernel nearest-neighbour alignment: CKA of the pairs that are neighbours.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 5))
    >>> round(float(repsim.cknna(x, 2 * x[:, ::-1])), 6)
    1.0
    >>> y = x + np.random.default_rng(1).standard_normal((50, 5))
    >>> wide = repsim.cka(x, y, kernel="cosine", estimator="unbiased")
    >>> bool(np.isclose(repsim.cknna(x, y, k=49), wide))
    True

    ::

        CKNNA = h(α K, α L) / (√h(α_x K, α_x K) · √h(α_y L, α_y L)),   α = α_x α_y

    with K, L the cosines of every two samples, α_x(i, j) = 1 where j is among the k nearest
    neighbours of i in x, products of matrices taken entry by entry, and h the unbiased HSIC of
    Song et al. 2012, Eq. 5: tr(AB) + 1ᵀA1·1ᵀB1/((n−1)(n−2)) − 2/(n−2)·1ᵀAB1, up to its divisor.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ k + 1 (and 4) samples; trailing axes are flattened, rows brought to unit
        norm.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 1; with n − 1 the value is the unbiased CKA of the
        cosine kernel.

    Returns
    -------
    array, 0-d, or NumPy scalar
        Without unit; 1 for equal representations, around 0 for independent data, where a few
        neighbours agree by chance. The value has no bounds because α K is not symmetric. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than k + 1 (and 4) samples, one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), k that is not a positive integer.

    Warns
    -----
    DegenerateWarning
        If h(α_x K, α_x K) of a representation is not positive (all samples in one direction, too
        few mutual neighbours), or if a row of zeros has no direction: NaN is returned.
    RepsimWarning
        If samples at different distances share many of the last places, because the distances
        differ in few digits. The value may then be off by 1e-3.

    Notes
    -----
    As published, the measure is not symmetric: neighbourhood is not mutual, and the last term of h
    takes row sums of one side and column sums of the other. Neighbours that tie for the last places
    count as weights, as in :func:`mutual_knn`. Invariant to orthogonal maps, isotropic scale and
    feature permutations of either input, not to translation. Differentiable almost everywhere, with
    the sets of neighbours held fixed. Computed in float64 where the device has it. Cost: O(n² p +
    n² log n) once for each array, O(n²) for a pair; memory O(n²).

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, "The Platonic representation hypothesis", arXiv:2405.07987,
    appendix A.
    """
    return evaluate("cknna", x, y, k=k)


class _Masked(NamedTuple):
    """Cosines (n, n) off the diagonal, neighbour weights, and h of their product with itself."""

    cosines: Array
    weights: Array
    square: Array


def _prepare(operation: str, x: Array, *, name: str, k: int) -> _Masked:
    xp = array_namespace(x)
    d, defined = dissimilarities(operation, name, x, "cosine")
    resolution = float(xp.finfo(x.dtype).eps)
    weights = neighbour_weights(xp, d, int(k), resolution)
    warn_of_joined(operation, name, d, weights, int(k), resolution)
    cosines = off_diagonal(xp, 1 - d)
    masked = weights * cosines
    square = _song(xp, masked, masked)
    # A sum of terms of this size: a value below their rounding is zero.
    n = x.shape[0]
    size = xp.sum(masked * masked) + xp.sum(xp.abs(masked)) ** 2 / float(n * n)
    rounding = 64 * n * float(xp.finfo(d.dtype).eps) * size
    usable = defined & (square > rounding)
    undefined(
        operation,
        name,
        defined & ~usable,
        "has no positive HSIC of its neighbours' cosines with themselves (all samples in one "
        "direction, or too few of them mutual neighbours)",
    )
    return _Masked(cosines, weights, xp.where(usable, square, xp.zeros_like(square)))


def _reorder(x: _Masked, order: Any) -> _Masked:
    return x._replace(
        cosines=reordered_pairs(x.cosines, order), weights=reordered_pairs(x.weights, order)
    )


def _compare(x: _Masked, y: _Masked, **_: object) -> Array:
    xp = array_namespace(x.cosines)
    # With ties the sets are fuzzy; the intersection of a set with itself is the set.
    both = xp.minimum(x.weights, y.weights)
    product = _song(xp, both * x.cosines, both * y.cosines)
    return ratio(xp, Products(product, x.square, y.square))  # may be above 1


def _song(xp: Namespace, a: Array, b: Array) -> Array:
    """Song et al. 2012, Eq. 5, times n(n−3), for asymmetric matrices of zero diagonal."""
    n = a.shape[0]
    joint = xp.sum(xp.sum(a, axis=0) * xp.sum(b, axis=1))
    out: Array = (
        xp.sum(a * xp.matrix_transpose(b))
        + xp.sum(a) * xp.sum(b) / float((n - 1) * (n - 2))
        - 2 / (n - 2) * joint
    )
    return out


register(
    Measure(
        name="cknna",
        family="neighbours",
        function=cknna,
        range=(float("-inf"), float("inf")),
        similarity=True,
        metric=False,
        symmetric=False,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale"}),
        minimum_samples=11,
        cost="item O(n² p + n² log n), pair O(n²)",
        reference="Huh et al. 2024",
        prepare=_prepare,
        reorder=_reorder,
        compare=_compare,
        needs=partial(neighbours_need, operation="cknna", beyond=1, fewest=4),
    )
)
