"""Rank similarity: whether the neighbours that two representations share have the same ranks."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np

from repsim._typing import Array
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts.neighbours._ordered import (
    Common,
    OrderedNeighbours,
    common,
    mean_of_terms,
    mean_places,
    ordered,
)
from repsim.measures.parts.neighbours._weights import neighbours_need

__all__ = ["joint_rank_jaccard", "rank_similarity"]


def rank_similarity(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Rank similarity: how well the ranks of shared nearest neighbours agree, near ones first.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> float(repsim.rank_similarity(x, 2 * x[:, ::-1]))
    1.0
    >>> y = x + np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(0 < repsim.rank_similarity(x, y) < 0.5)
    True

    ::

        mean_i  Σ_j 2 / ((1 + |r_j − s_j|)(r_j + s_j))  /  Σ_{m=1}^{M} 1/m

    over the M samples j that are among the k nearest of sample i on both sides, with r_j and s_j
    their ranks there, 1 for the nearest; zero if there are none.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ k + 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 2.
    metric : {"cosine", "euclidean"}, default "cosine"
        By what distance samples are near.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit; 1 for the same neighbours in the same order. Same namespace and
        device as the inputs; float32 for half precision and float32, float64 for float64 and
        integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, arrays of different frameworks or devices, or arrays whose values cannot be read
        (inside ``jax.jit``, ``jax.grad``, ``torch.compile`` and the transforms of ``torch.func``),
        because the lists are found on the CPU.
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
    Only the ranks of shared neighbours count, not how many are shared: a single one gives 1 if it
    is the nearest on both sides. :func:`joint_rank_jaccard` counts both.

    Neighbours that are equally far share the mean of the places that they fill, and those that tie
    for the last places count by their weights, as in :func:`mutual_knn`. The denominator is then
    Σ_j w_j/m_j, w_j the smaller weight and m_j the place among the shared neighbours alone, as the
    mean of both sides. The value therefore does not depend on the order of the samples, is 1 for
    equal representations, and is the usual one without ties.

    Symmetric; a similarity. Invariant to orthogonal maps, isotropic scale and feature permutations
    of either input, and with ``metric="euclidean"`` to translation too. It has no derivative.
    Computed in float64. Cost: O(n² p) once for each array, O(n k log n) for a pair, memory
    O(n p + n k), and more if many samples are equally far.

    References
    ----------
    Wang, Li, Wu, Liu 2020, "Towards understanding the instability of network embedding", IEEE
    TKDE. Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329, section 3.5.
    """
    return evaluate("rank_similarity", x, y, k=k, metric=metric)


def joint_rank_jaccard(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Joint rank and Jaccard similarity: how many nearest neighbours are shared, and their ranks.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> float(repsim.joint_rank_jaccard(x, 2 * x[:, ::-1]))
    1.0
    >>> y = x + np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(repsim.joint_rank_jaccard(x, y) < repsim.jaccard_knn(x, y))
    True

    ::

        mean_i  J_i R_i

    with J_i the Jaccard similarity of the k nearest neighbours of sample i, as in
    :func:`jaccard_knn`, and R_i its term of :func:`rank_similarity`.

    Parameters
    ----------
    x, y : array, shape (n, p) or (n, ...), and (n, q) or (n, ...)
        As :func:`rank_similarity` takes them.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 2.
    metric : {"cosine", "euclidean"}, default "cosine"
        By what distance samples are near.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], as :func:`rank_similarity` returns it; at most the Jaccard similarity.

    Raises
    ------
    ArrayTypeError, InputError
        As :func:`rank_similarity`.

    Warns
    -----
    DegenerateWarning
        As :func:`rank_similarity`.

    Notes
    -----
    Invariances, ties and cost as :func:`rank_similarity`. Symmetric; a similarity. It has no
    derivative.

    References
    ----------
    Wang, Li, Wu, Liu 2020, "Towards understanding the instability of network embedding", IEEE
    TKDE. Klabunde et al. 2023, arXiv:2305.06329, section 3.5.
    """
    return evaluate("joint_rank_jaccard", x, y, k=k, metric=metric)


def _compare(x: OrderedNeighbours, y: OrderedNeighbours, *, joint: bool, **_: object) -> Array:
    both, n = common(x, y), x.lists.n
    terms = _agreement(both, n)
    if joint:
        shared = np.bincount(both.row, both.weight, n)
        terms *= shared / (2 * x.k - shared)
    return mean_of_terms(x, y, terms)


def _agreement(both: Common, n: int) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the term of each sample, (n,)."""
    row, weight, (r, s) = both.row, both.weight, both.place
    found = np.bincount(row, weight * 2 / ((1 + np.abs(r - s)) * (r + s)), n)
    most = sum(
        np.bincount(row, weight / mean_places(row, group, weight), n) / 2 for group in both.group
    )
    return np.divide(found, most, out=np.zeros(n), where=found > 0)


for _function, _joint in ((rank_similarity, False), (joint_rank_jaccard, True)):
    register(
        Measure(
            name=_function.__name__,
            family="neighbours",
            function=_function,
            range=(0.0, 1.0),
            similarity=True,
            metric=False,
            symmetric=True,
            invariances=frozenset({"orthogonal", "permutation", "isotropic_scale"}),
            minimum_samples=12,
            cost="item O(n² p), pair O(n k log n)",
            reference="Wang et al. 2020; Klabunde et al. 2023",
            prepare=ordered,
            compare=partial(_compare, joint=_joint),
            needs=partial(neighbours_need, operation=_function.__name__, beyond=2),
            differentiable=False,
            preset={"metric": "cosine"},
        )
    )
