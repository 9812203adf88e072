"""RV2: CKA without the diagonals of the Grams."""

from __future__ import annotations

from typing import Any, NamedTuple

from repsim._typing import Array
from repsim.arrays import array_namespace, reordered_pairs
from repsim.estimators import (
    ChanceWords,
    Products,
    above_rounding,
    alignment,
    inner,
    off_diagonal,
)
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._contrast_item import crossed_norms
from repsim.measures.parts._geometry import Contrasts, centred_points

__all__ = ["rv2"]

_WORDS = ChanceWords(
    "RV2",
    "Use repsim.cka with estimator='unbiased', which is 0 for independent data on average, or "
    "bring more samples.",
)


def rv2(x: Array, y: Array) -> Array:
    """Modified RV coefficient: linear CKA of the pairs of different samples.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((30, 5))
    >>> round(float(repsim.rv2(x, -2 * x[:, ::-1] + 1)), 6)
    1.0
    >>> y = x + np.random.default_rng(1).standard_normal((30, 5))
    >>> bool(repsim.rv2(x, y) < repsim.cka(x, y))
    True

    ::

        RV2 = Σ_{i≠j} K_ij L_ij / √(Σ_{i≠j} K_ij² · Σ_{i≠j} L_ij²),   K = XcXcᵀ, L = YcYcᵀ

    with Xc, Yc the activations minus their column means.

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
        In [−1, 1], without unit; 1 for representations that are equal up to a rotation, a scale and
        a translation. Same namespace and device as the inputs, differentiable where they are;
        float32 for half precision and float32, float64 for float64 and integers.

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
        If a representation is constant: NaN is returned.
    ChanceWarning
        If the value of independent data would be above 0.1, with this number.

    Notes
    -----
    The diagonals of K and L hold the norms of the samples, which raise biased CKA of independent
    data. Without them the value is lower, but independent data still do not have the mean 0: the
    features are centred before the diagonal is left out, so the rows of K without its diagonal have
    the sum −K_ii. The mean over all permutations of the samples of y is::

        tr(K) tr(L) / (n(n − 1) √(Σ_{i≠j} K_ij² · Σ_{i≠j} L_ij²))

    It is small for n² ≫ p and near 1 for p ≫ n². :func:`cka` with ``estimator="unbiased"`` has the
    mean 0.

    Symmetric, and invariant to orthogonal maps, isotropic scale, feature permutations and
    translation of either input; not invariant to invertible linear maps. A similarity, not a
    metric. Computed in float64 where the device has it. Cost: O(n² p) once for each array, O(n²)
    for a pair; memory O(n²).

    References
    ----------
    Smilde, Kiers, Bijlsma, Rubingh, van Erk 2009, "Matrix correlations for high-dimensional data:
    the modified RV-coefficient", Bioinformatics 25. Lange, Kwok, Matelsky, Wang, Rolnick, Kording
    2023, "Deep networks as paths on the manifold of neural representations".
    """
    return evaluate("rv2", x, y)


class _Gram(NamedTuple):
    """A centred Gram without its diagonal (n, n), its trace, and the sum of squares without it."""

    n: int
    gram: Array
    trace: Array
    square: Array

    def product(self, other: _Gram) -> Array:
        """Return the sum of products of both over i ≠ j."""
        return inner(array_namespace(self.gram), self.gram, other.gram)


class _Contrasts(NamedTuple):
    """The same of contrasts, without the Gram."""

    n: int
    contrasts: Contrasts
    trace: Array
    square: Array

    def product(self, other: _Contrasts) -> Array:
        """Return the sum of products of both over i ≠ j: ‖XᵀY‖² − Σ a_i b_i, a_i = ‖x_i‖²."""
        return _off_diagonal(self.contrasts, other.contrasts, self.trace, other.trace)


def _prepare(operation: str, x: Array, *, name: str) -> _Gram:
    xp = array_namespace(x)
    centred, _ = centred_points(xp, x)
    gram = off_diagonal(xp, centred @ xp.matrix_transpose(centred))
    # Rows of a centred Gram sum to zero, so only that of a constant is zero off the diagonal.
    square = inner(xp, gram, gram)
    undefined(operation, name, square <= 0, "is constant over the samples")
    return _Gram(x.shape[0], gram, inner(xp, centred, centred), square)


def _reorder(x: _Gram, order: Any) -> _Gram:
    return x._replace(gram=reordered_pairs(x.gram, order))


def _prepare_contrasts(operation: str, z: Contrasts, *, name: str) -> _Contrasts:
    xp = array_namespace(z.points)
    trace = inner(xp, z.points, z.points)
    square = _off_diagonal(z, z, trace, trace)
    square = above_rounding(xp, square, trace * trace, square.dtype)
    undefined(operation, name, square <= 0, "is constant over the samples")
    return _Contrasts(z.dimensions + 1, z, trace, square)


def _off_diagonal(a: Contrasts, b: Contrasts, trace_a: Array, trace_b: Array) -> Array:
    xp = array_namespace(a.points)
    cross = xp.matrix_transpose(a.points) @ b.points
    out: Array = inner(xp, cross, cross) - crossed_norms(a, b, trace_a, trace_b)
    return out


def _compare(x: Any, y: Any) -> Array:
    xp = array_namespace(x.trace)
    return alignment(xp, Products(x.product(y), x.square, y.square))


def _floor(x: Any, y: Any) -> Array:
    """Return the mean over all permutations of the samples of y."""
    xp, n = array_namespace(x.trace), x.n
    # The mean of a permuted L is −tr(L)/(n(n − 1)) in each entry off the diagonal.
    return alignment(xp, Products(x.trace * y.trace / (n * (n - 1)), x.square, y.square))


register(
    Measure(
        name="rv2",
        family="kernel",
        function=rv2,
        range=(-1.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"}),
        minimum_samples=2,
        cost="item O(n² p), pair O(n²)",
        reference="Smilde et al. 2009; Lange et al. 2023",
        prepare=_prepare,
        reorder=_reorder,
        prepare_contrasts=_prepare_contrasts,
        compare=_compare,
        entries=lambda item: item.gram,
        floor=_floor,
        floor_words=_WORDS,
    )
)
