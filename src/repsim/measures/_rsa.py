"""Representational similarity analysis: whether the same samples are alike on both sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace, device

from repsim._typing import Array, Namespace
from repsim.estimators import Products, alignment, inner
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import DISSIMILARITIES, dissimilarities, require_choice
from repsim.measures.parts._geometry import root

__all__ = ["rsa"]

COMPARISONS = ("spearman", "pearson", "cosine")


def rsa(x: Array, y: Array, *, rdm: str = "euclidean", comparison: str = "spearman") -> Array:
    """Representational similarity analysis: the agreement of two dissimilarity matrices.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((30, 5))
    >>> round(float(repsim.rsa(x, -2 * x + 1)), 6)
    1.0
    >>> bool(repsim.rsa(x, np.exp(x), comparison="pearson") < 0.9)
    True

    ::

        RSA = compare(d_x, d_y),   d = (D_12, D_13, …, D_{n−1,n}) of a representation's RDM D

        euclidean    D_ij = ‖x_i − x_j‖
        correlation  D_ij = 1 − r(x_i, x_j), over the features of two samples
        cosine       D_ij = 1 − x_i·x_j/(‖x_i‖‖x_j‖)

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 3 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    rdm : {"euclidean", "correlation", "cosine"}, default "euclidean"
        The dissimilarity of two samples, for both sides.
    comparison : {"spearman", "pearson", "cosine"}, default "spearman"
        Rank correlation (equal entries share the mean of their ranks), linear correlation, or the
        cosine of the two vectors, which are not centred.

    Returns
    -------
    array, 0-d
        In [−1, 1] (``"cosine"``: [0, 1]), without unit; 1 where the dissimilarities agree. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), unknown RDM or comparison.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, if it has the same dissimilarity between all samples
        (except with ``comparison="cosine"``), or if it has a row without a direction: NaN is
        returned.

    Notes
    -----
    With the Euclidean RDM and rank or linear correlation, the value is invariant to orthogonal
    maps, isotropic scale, feature permutations and translation of either input. With the cosine RDM
    it is not invariant to translation. With the correlation RDM it is invariant only to isotropic
    scale, feature permutations and adding one number to all features. Symmetric; a similarity, not
    a metric. The entries of an RDM share samples, so a p-value that treats them as independent is
    far too small.

    Dissimilarities that differ only by rounding get equal ranks: those that agree to 17 bits
    (float32) or 32 bits (float64). Pearson and cosine are differentiable where the inputs are;
    ranks have no derivative. Computed in float64 where the device has it. Cost: O(n² p + n² log n)
    once for each array, O(n²) for a pair; memory O(n²).

    References
    ----------
    Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis", Frontiers in
    Systems Neuroscience 2:4.
    """
    return evaluate("rsa", x, y, rdm=rdm, comparison=comparison)


class _Entries(NamedTuple):
    """The entries of an RDM above its diagonal, ready for inner products, and their norm."""

    vector: Array
    square: Array


def _prepare(operation: str, x: Array, *, name: str, rdm: str, comparison: str) -> _Entries:
    require_choice(operation, "rdm", rdm, DISSIMILARITIES)
    require_choice(operation, "comparison", comparison, COMPARISONS)
    xp = array_namespace(x)
    resolution = float(xp.finfo(x.dtype).eps)
    matrix, defined = dissimilarities(operation, name, x, rdm)
    d = _upper(xp, matrix)
    if rdm == "euclidean" and comparison != "spearman":
        d = root(xp, d)  # which changes no rank
    largest = xp.max(d)
    vector = d
    if comparison == "spearman":
        vector = _ranks(xp, _rounded(xp, d, resolution)) - (d.shape[0] + 1) / 2
    elif comparison == "pearson":
        centred = d - xp.mean(d)
        flat = xp.max(xp.abs(centred)) <= 64 * resolution * largest
        vector = xp.where(flat, xp.zeros_like(d), centred)
    square = inner(xp, vector, vector)
    undefined(
        operation, name, defined & (largest <= 0), "is the same for all samples (its RDM is zero)"
    )
    undefined(
        operation,
        name,
        defined & (largest > 0) & (square <= 0),
        "has the same dissimilarity between all samples",
    )
    return _Entries(vector, xp.where(defined, square, xp.zeros_like(square)))


def _compare(x: _Entries, y: _Entries, **_: object) -> Array:
    xp = array_namespace(x.vector)
    return alignment(xp, Products(inner(xp, x.vector, y.vector), x.square, y.square))


def _upper(xp: Namespace, d: Array) -> Array:
    n = d.shape[0]
    rows, columns = np.triu_indices(n, 1)
    where = xp.asarray(rows * n + columns, device=device(d))
    out: Array = xp.take(xp.reshape(d, (n * n,)), where, axis=0)
    return out


def _rounded(xp: Namespace, d: Array, resolution: float) -> Array:
    """Cut the mantissas to digits above the rounding, so equal distances get equal ranks.

    Values are cut to a grid and not grouped by gaps, because among many distances all gaps are
    small.
    """
    zero = d <= 0
    exponent = xp.floor(xp.log2(xp.where(zero, xp.ones_like(d), d)))
    step = min(2**20 * resolution, 2**-17) * xp.pow(xp.full_like(d, 2.0), exponent)
    out: Array = xp.where(zero, xp.zeros_like(d), xp.round(d / step) * step)
    return out


def _ranks(xp: Namespace, d: Array) -> Array:
    """Return the ranks, starting at 1; equal entries get the mean of their ranks."""
    ordered = xp.sort(d)
    below = xp.searchsorted(ordered, d, side="left")
    up_to = xp.searchsorted(ordered, d, side="right")
    out: Array = (xp.astype(below + up_to, d.dtype) + 1) / 2
    return out


_RIGID = frozenset({"orthogonal", "permutation", "isotropic_scale"})
for _name, _rdm, _invariances in (
    ("rsa", "euclidean", _RIGID | {"translation"}),
    ("rsa_cosine", "cosine", _RIGID),
    ("rsa_correlation", "correlation", _RIGID - {"orthogonal"}),
):
    register(
        Measure(
            name=_name,
            family="dissimilarity matrices",
            function=rsa,
            range=(-1.0, 1.0),
            similarity=True,
            metric=False,
            symmetric=True,
            invariances=_invariances,
            minimum_samples=3,
            cost="item O(n² p + n² log n), pair O(n²)",
            reference="Kriegeskorte et al. 2008",
            prepare=_prepare,
            compare=_compare,
            differentiable=False,
            preset={"rdm": _rdm},
        )
    )
