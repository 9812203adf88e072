"""Nearest neighbours: whether each sample has the same samples near it on both sides."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

from repsim._typing import Array
from repsim.arrays import array_namespace, known, reordered_pairs
from repsim.estimators import within_one
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import dissimilarities
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts.neighbours._joined import warn_of_joined
from repsim.measures.parts.neighbours._sets import (
    NeighbourSets,
    neighbour_sets,
    reordered,
    shared,
)
from repsim.measures.parts.neighbours._weights import (
    neighbour_weights,
    neighbours_need,
    require_metric,
)
from repsim.measures.parts.neighbours._with_all import jaccard_with_all, mutual_with_all

__all__ = ["jaccard_knn", "mutual_knn", "second_order_cosine"]


def mutual_knn(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Mutual k-nearest neighbours: the share of neighbours that two representations agree on.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> float(repsim.mutual_knn(x, 2 * x[:, ::-1]))
    1.0
    >>> y = np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(repsim.mutual_knn(x, y) < 0.2)
    True

    ::

        mean_i |N_x(i) ∩ N_y(i)| / k

    with N_x(i) the k samples nearest to sample i in x, without i itself.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ k + 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 2. With n − 1, all samples would be neighbours.
    metric : {"cosine", "euclidean"}, default "cosine"
        By what distance samples are near.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit; k/(n−1) on average for independent data, 1 for equal neighbours.
        Same namespace and device as the inputs; float32 for half precision and float32, float64
        for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than k + 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), k that is not a positive integer, unknown metric.

    Warns
    -----
    DegenerateWarning
        If a representation has all samples equally far from each other (a constant), or a row of
        zeros, which has no cosine: NaN is returned.
    RepsimWarning
        If samples at different distances share many of the last places, because the distances
        differ in few digits. The value may then be off by 1e-3.

    Notes
    -----
    If several samples are as far as the k-th neighbour (duplicates, binary features), they share
    the remaining places: each gets the weight places/number, and an intersection counts the smaller
    weight of both sides. The value therefore does not depend on the order of the samples, and
    without ties it is the usual one.

    Symmetric; a similarity. Invariant to orthogonal maps, isotropic scale and feature permutations
    of either input, and with ``metric="euclidean"`` to translation too. It has no derivative.
    Computed in float64 where the device has it. Cost in main memory: O(n² p) once for each array,
    O(n k) for a pair, memory O(n p + n k), and more if many samples are equally far. On an
    accelerator and in compiled functions: O(n² p + n² log n), O(n²) and memory O(n²).

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, "The Platonic representation hypothesis", arXiv:2405.07987,
    appendix A. Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329, section 3.5.
    """
    return evaluate("mutual_knn", x, y, k=k, metric=metric)


def jaccard_knn(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Jaccard similarity of the k-nearest neighbours of each sample in two representations.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> float(repsim.jaccard_knn(x, 2 * x[:, ::-1]))
    1.0
    >>> y = x + np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(repsim.jaccard_knn(x, y) < repsim.mutual_knn(x, y))
    True

    ::

        mean_i |N_x(i) ∩ N_y(i)| / |N_x(i) ∪ N_y(i)|

    with N_x(i) the k samples nearest to sample i in x, without i itself.

    Parameters
    ----------
    x, y : array, shape (n, p) or (n, ...), and (n, q) or (n, ...)
        As :func:`mutual_knn` takes them.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 2.
    metric : {"cosine", "euclidean"}, default "cosine"
        By what distance samples are near.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], as :func:`mutual_knn` returns it; at most the mutual k-nearest-neighbour share.

    Raises
    ------
    ArrayTypeError, InputError
        As :func:`mutual_knn`.

    Warns
    -----
    DegenerateWarning
        As :func:`mutual_knn`.

    Notes
    -----
    Invariances, ties and cost as :func:`mutual_knn`; a union counts the larger of both sides.
    Symmetric; a similarity. It has no derivative.

    References
    ----------
    Klabunde et al. 2023, arXiv:2305.06329, section 3.5. Schumacher et al. 2021, "The effects of
    randomness on the stability of node embeddings", arXiv:2005.10039.
    """
    return evaluate("jaccard_knn", x, y, k=k, metric=metric)


def second_order_cosine(x: Array, y: Array, *, k: int = 10) -> Array:
    """Second-order cosine similarity: whether each sample is equally similar to its neighbours.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> round(float(repsim.second_order_cosine(x, 2 * x[:, ::-1])), 6)
    1.0
    >>> y = np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(repsim.second_order_cosine(x, y) < 0.8)
    True

    ::

        mean_i cos(s_x(i), s_y(i)),   s_x(i) = (cos(x_i, x_j)) for j in N_x(i) ∪ N_y(i)

    with N_x(i) the k samples whose cosine with sample i is largest in x, without i itself.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ k + 1 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 1; with n − 1 all cosines are compared.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [−1, 1], without unit; 1 if for each sample the cosines of its neighbours agree up to a
        factor. Well above zero for independent data, because neighbours have positive cosines. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than k + 1 (and 3) samples, one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), k that is not a positive integer.

    Warns
    -----
    DegenerateWarning
        If all samples have the same direction, if a row of zeros has none, or if a sample is
        orthogonal to all its neighbours: NaN is returned.
    RepsimWarning
        If samples at different distances share many of the last places, because the distances
        differ in few digits. The value may then be off by 1e-3.

    Notes
    -----
    Neighbours that tie for the last places count as weights in the cosine, as in
    :func:`mutual_knn`. Symmetric; a similarity. Invariant to orthogonal maps, isotropic scale and
    feature permutations of either input, not to translation. Differentiable almost everywhere, with
    the sets of neighbours held fixed. Computed in float64 where the device has it. Cost: O(n² p)
    once for each array, O(n²) for a pair; memory O(n²).

    References
    ----------
    Hamilton, Leskovec, Jurafsky 2016, "Cultural shift or linguistic drift?", EMNLP. Klabunde et
    al. 2023, arXiv:2305.06329, section 3.5.
    """
    return evaluate("second_order_cosine", x, y, k=k)


class _Cosines(NamedTuple):
    """Neighbours, the cosines with them (n, n), and the name of the array for warnings."""

    weights: Array
    cosines: Array
    defined: Array
    operation: str
    name: str


def _prepare(operation: str, x: Array, *, name: str, k: int, metric: str) -> NeighbourSets:
    require_metric(operation, metric)
    return neighbour_sets(operation, name, x, int(k), metric)


def _prepare_cosines(operation: str, x: Array, *, name: str, k: int) -> _Cosines:
    xp = array_namespace(x)
    d, defined = dissimilarities(operation, name, x, "cosine")
    resolution = float(xp.finfo(x.dtype).eps)
    weights = neighbour_weights(xp, d, int(k), resolution)
    warn_of_joined(operation, name, d, weights, int(k), resolution)
    constant = xp.max(d) <= 0
    undefined(operation, name, defined & constant, "has the same direction for all samples")
    cosines = 1 - d
    # Orthogonal up to rounding: the direction of a vector of such cosines means nothing.
    rounding = 16 * float(xp.finfo(d.dtype).eps)
    cosines = xp.where(xp.abs(cosines) <= rounding, xp.zeros_like(d), cosines)
    return _Cosines(weights, cosines, defined & ~constant, operation, name)


def _reorder_cosines(x: _Cosines, order: Any) -> _Cosines:
    weights, cosines = (reordered_pairs(each, order) for each in (x.weights, x.cosines))
    return x._replace(weights=weights, cosines=cosines)


def _compare_mutual(x: NeighbourSets, y: NeighbourSets, **_: object) -> Array:
    xp = array_namespace(x.like)
    return where_defined(xp, xp.mean(shared(x, y)) / x.k, x.defined & y.defined)


def _compare_jaccard(x: NeighbourSets, y: NeighbourSets, **_: object) -> Array:
    xp = array_namespace(x.like)
    both = shared(x, y)
    # The weights of each side sum to k, and the larger and the smaller of two weights to both.
    return where_defined(xp, xp.mean(both / (2 * x.k - both)), x.defined & y.defined)


def _compare_cosines(x: _Cosines, y: _Cosines, *, k: int) -> Array:
    xp = array_namespace(x.weights)
    weights = xp.maximum(x.weights, y.weights)
    products = xp.sum(weights * x.cosines * y.cosines, axis=-1)
    squares = []
    usable = x.defined & y.defined
    for side in (x, y):
        square = xp.sum(weights * side.cosines**2, axis=-1)
        zero = square <= 0
        if known(xp.any(zero)):
            undefined(side.operation, side.name, side.defined, _ORTHOGONAL)
        usable = usable & ~xp.any(zero)
        squares.append(xp.where(zero, xp.ones_like(square), square))
    value = xp.mean(products / (xp.sqrt(squares[0]) * xp.sqrt(squares[1])))
    out: Array = xp.where(usable, within_one(xp, value), xp.full_like(value, float("nan")))
    return out


_ORTHOGONAL = "has a sample that is orthogonal to all its neighbours"
_TURNS = frozenset({"orthogonal", "permutation", "isotropic_scale"})
_COST = "item O(n² p), pair O(n²)"

for _name, _function, _compare, _all, _preset in (
    ("mutual_knn", mutual_knn, _compare_mutual, mutual_with_all, "cosine"),
    ("mutual_knn_euclidean", mutual_knn, _compare_mutual, mutual_with_all, "euclidean"),
    ("jaccard_knn", jaccard_knn, _compare_jaccard, jaccard_with_all, "cosine"),
):
    register(
        Measure(
            name=_name,
            family="neighbours",
            function=_function,
            range=(0.0, 1.0),
            similarity=True,
            metric=False,
            symmetric=True,
            invariances=_TURNS | ({"translation"} if _preset == "euclidean" else set()),
            minimum_samples=12,
            cost="item O(n² p), pair O(n k)",
            reference="Huh et al. 2024" if _function is mutual_knn else "Klabunde et al. 2023",
            prepare=_prepare,
            compare=_compare,
            reorder=reordered,
            compare_with_all=_all,
            needs=partial(neighbours_need, operation=_function.__name__, beyond=2),
            differentiable=False,
            preset={"metric": _preset},
        )
    )
register(
    Measure(
        name="second_order_cosine",
        family="neighbours",
        function=second_order_cosine,
        range=(-1.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=_TURNS,
        minimum_samples=11,
        cost=_COST,
        reference="Hamilton et al. 2016; Klabunde et al. 2023",
        prepare=_prepare_cosines,
        compare=_compare_cosines,
        reorder=_reorder_cosines,
        needs=partial(neighbours_need, operation="second_order_cosine", beyond=1),
    )
)
