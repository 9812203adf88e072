"""Information imbalance: whether nearest neighbours on one side are near on the other."""

from __future__ import annotations

from typing import NamedTuple

from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import dissimilarities
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts.neighbours._joined import warn_of_joined
from repsim.measures.parts.neighbours._ranks import neighbour_ranks
from repsim.measures.parts.neighbours._weights import neighbour_weights, uninformative

__all__ = ["information_imbalance"]


def information_imbalance(x: Array, y: Array) -> Array:
    """Information imbalance: how far away in y the nearest neighbours in x are.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 2))
    >>> float(repsim.information_imbalance(x, 2 * x[:, ::-1] + 1))
    0.02
    >>> part = x[:, :1]
    >>> bool(repsim.information_imbalance(x, part) < repsim.information_imbalance(part, x))
    True

    ::

        Δ(x → y) = (2/n) · mean_i rank_y(i, j(i)),   j(i) the nearest neighbour of i in x

    with rank_y(i, j) = 1 if j is the nearest neighbour of i in y and n − 1 if it is the farthest.
    Distances are Euclidean.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 3 samples; trailing axes are flattened. Their nearest neighbours are
        taken.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.

    Returns
    -------
    array, 0-d, or NumPy scalar
        From 2/n, if the nearest neighbours in x are those in y, to 2(n − 1)/n, without unit; 1 on
        average for independent data. Same namespace and device as the inputs; float32 for half
        precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``).

    Warns
    -----
    DegenerateWarning
        If a representation has all samples equally far from each other (a constant): NaN is
        returned.
    RepsimWarning
        If samples at different distances share many of the last places, because the distances
        differ in few digits. The value may then be off by 1e-3.

    Notes
    -----
    Not symmetric: if x determines y, but y does not determine x, then Δ(x → y) is small and
    Δ(y → x) large. A dissimilarity. Samples at the same distance share the mean of their ranks, and
    several nearest neighbours count with equal weights, so the value does not depend on the order
    of the samples.

    Invariant to orthogonal maps, isotropic scale, feature permutations and translation of either
    input. It has no derivative. Computed in float64 where the device has it. Cost: O(n² p +
    n² log n) once for each array, O(n²) for a pair; memory O(n²).

    References
    ----------
    Glielmo, Zeni, Cheng, Csányi, Laio 2022, "Ranking the information content of distance
    measures", PNAS Nexus 1.
    """
    return evaluate("information_imbalance", x, y)


class _Ranked(NamedTuple):
    """The weight of each sample as nearest neighbour, and its rank, (n, n) each."""

    nearest: Array
    ranks: Array
    defined: Array


def _prepare(operation: str, x: Array, *, name: str) -> _Ranked:
    xp = array_namespace(x)
    resolution = float(xp.finfo(x.dtype).eps)
    d, defined = dissimilarities(operation, name, x, "euclidean")
    nearest = neighbour_weights(xp, d, 1, resolution)
    warn_of_joined(operation, name, d, nearest, 1, resolution)
    empty = uninformative(xp, nearest)
    undefined(operation, name, defined & empty, "has all samples equally far from each other")
    return _Ranked(nearest, neighbour_ranks(xp, d, resolution), defined & ~empty)


def _compare(x: _Ranked, y: _Ranked) -> Array:
    xp, n = array_namespace(x.ranks), x.ranks.shape[0]
    value = 2 * xp.sum(x.nearest * y.ranks) / float(n * n)
    return where_defined(xp, value, x.defined & y.defined)


register(
    Measure(
        name="information_imbalance",
        family="neighbours",
        function=information_imbalance,
        range=(0.0, 2.0),
        similarity=False,
        metric=False,
        symmetric=False,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"}),
        minimum_samples=3,
        cost="item O(n² p + n² log n), pair O(n²)",
        reference="Glielmo et al. 2022",
        prepare=_prepare,
        compare=_compare,
        self_is_best=False,
        differentiable=False,
    )
)
