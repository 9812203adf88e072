"""Cycle, longest-common-subsequence and edit similarity of nearest neighbours."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np

from repsim._typing import Array
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts.neighbours._lists import common_neighbours
from repsim.measures.parts.neighbours._ordered import (
    OrderedNeighbours,
    common,
    heaviest_chain,
    mean_of_terms,
    ordered,
)
from repsim.measures.parts.neighbours._weights import neighbours_need

__all__ = ["cycle_knn", "edit_knn", "lcs_knn"]


def cycle_knn(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Cycle k-nearest neighbours: how often a step in y and a step in x lead back.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((200, 5))
    >>> y = np.random.default_rng(1).standard_normal((200, 5))
    >>> bool(repsim.cycle_knn(x, 2 * x[:, ::-1], k=3) > repsim.cycle_knn(x, y, k=3) + 0.5)
    True

    ::

        (1/n) · number of samples i with  i ∈ N_x(j)  for some  j ∈ N_y(i)

    with N_x(i) the k samples nearest to sample i in x, without i itself.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ k + 2 samples; trailing axes are flattened. The step back is taken here.
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
        In [0, 1], without unit; about 1 − (1 − k/(n−1))^k for independent data. Same namespace and
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
    For equal representations the value is the share of samples that are a neighbour of one of their
    neighbours, which may be below 1. Not symmetric; a similarity. If samples tie for the last
    places, each has a weight, as in :func:`mutual_knn`. A way there and back then counts with the
    smaller of its two weights, and a sample counts with its best way. The value therefore does not
    depend on the order of the samples.

    Invariant to orthogonal maps, isotropic scale and feature permutations of either input, and with
    ``metric="euclidean"`` to translation too. It has no derivative. Computed in float64. Cost:
    O(n² p) once for each array, O(n k log n) for a pair, memory O(n p + n k), and more if many
    samples are equally far.

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, "The Platonic representation hypothesis", arXiv:2405.07987, and
    its code, in which x is the first argument too.
    """
    return evaluate("cycle_knn", x, y, k=k, metric=metric)


def lcs_knn(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Longest common subsequence of nearest neighbours: how many are shared in the same order.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> float(repsim.lcs_knn(x, 2 * x[:, ::-1], k=4))
    4.0
    >>> y = x + np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(repsim.lcs_knn(x, y, k=4) < 4 * repsim.mutual_knn(x, y, k=4))
    True

    ::

        mean_i |LCS(L_x(i), L_y(i))|

    with L_x(i) the k samples nearest to sample i in x, nearest first, without i itself, and LCS the
    longest sequence that is a part of both lists in their order, with gaps.

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
        In [0, k], a number of samples, not divided by k; k for equal neighbours in the same order.
        Same namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError, InputError
        As :func:`cycle_knn`.

    Warns
    -----
    DegenerateWarning
        As :func:`cycle_knn`.

    Notes
    -----
    At most k times :func:`mutual_knn`. Samples that are equally far contradict no order, and those
    that tie for the last places count with the smaller weight of both sides, as in
    :func:`mutual_knn`. So the value does not depend on the order of the samples, and is k for equal
    representations.

    Symmetric; a similarity. Invariant to orthogonal maps, isotropic scale and feature permutations
    of either input, and with ``metric="euclidean"`` to translation too. It has no derivative.
    Computed in float64. Cost: O(n² p) once for each array, O(n k²) for a pair, memory O(n p + n k),
    and more if many samples are equally far.

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, "The Platonic representation hypothesis", arXiv:2405.07987, and
    its code.
    """
    return evaluate("lcs_knn", x, y, k=k, metric=metric)


def edit_knn(
    x: Array, y: Array, *, k: int = 10, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Array:
    """Edit similarity of nearest neighbours: how few changes turn one list into the other.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((100, 5))
    >>> float(repsim.edit_knn(x, 2 * x[:, ::-1]))
    1.0
    >>> y = x + np.random.default_rng(1).standard_normal((100, 5))
    >>> bool(repsim.edit_knn(x, y) < repsim.lcs_knn(x, y) / 10)
    True

    ::

        1 − mean_i d(L_x(i), L_y(i)) / k

    with L_x(i) the k samples nearest to sample i in x, nearest first, without i itself, and d the
    Levenshtein distance: the fewest insertions, deletions and replacements.

    Parameters
    ----------
    x, y : array, shape (n, p) or (n, ...), and (n, q) or (n, ...)
        As :func:`lcs_knn` takes them.
    k : int, default 10
        Neighbours of each sample, 1 ≤ k ≤ n − 2.
    metric : {"cosine", "euclidean"}, default "cosine"
        By what distance samples are near.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit; 1 for equal neighbours in the same order. Same namespace and device
        as the inputs; float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError, InputError
        As :func:`cycle_knn`.

    Warns
    -----
    DegenerateWarning
        As :func:`cycle_knn`.

    Notes
    -----
    The distance of two lists equals ``k − max_C (|C| − V(C)/2)`` over their common subsequences C.
    V(C) is the total change of r_j − s_j, the difference of the places of a sample on both sides,
    from zero before the first of C to zero after its last. With ties, ``|C|`` is the sum of the
    smaller weights, as in :func:`mutual_knn`; samples that are equally far share the mean of the
    places that they fill, and contradict no order. So the value does not depend on the order of the
    samples, and is 1 for equal representations.

    At most ``lcs_knn/k``. Symmetric; a similarity. Invariances and cost as :func:`lcs_knn`. It has
    no derivative.

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, "The Platonic representation hypothesis", arXiv:2405.07987, and
    its code.
    """
    return evaluate("edit_knn", x, y, k=k, metric=metric)


def _compare_cycles(x: OrderedNeighbours, y: OrderedNeighbours, **_: object) -> Array:
    n, best = x.lists.n, np.zeros(x.lists.n)
    back = y.lists.keys % n * n + y.lists.keys // n
    there, here = common_neighbours(back, x.lists.keys)
    weights = np.minimum(y.lists.weights[there], x.lists.weights[here])
    np.maximum.at(best, y.lists.keys[there] // n, weights)
    return mean_of_terms(x, y, best)


def _compare_chains(x: OrderedNeighbours, y: OrderedNeighbours, **_: object) -> Array:
    return mean_of_terms(x, y, heaviest_chain(common(x, y), x.lists.n, gaps=False))


def _compare_edits(x: OrderedNeighbours, y: OrderedNeighbours, **_: object) -> Array:
    return mean_of_terms(x, y, heaviest_chain(common(x, y), x.lists.n, gaps=True) / x.k)


for _function, _compare, _pair, _most in (
    (cycle_knn, _compare_cycles, "O(n k log n)", 1.0),
    (lcs_knn, _compare_chains, "O(n k²)", float("inf")),
    (edit_knn, _compare_edits, "O(n k²)", 1.0),
):
    register(
        Measure(
            name=_function.__name__,
            family="neighbours",
            function=_function,
            range=(0.0, _most),
            similarity=True,
            metric=False,
            symmetric=_function is not cycle_knn,
            invariances=frozenset({"orthogonal", "permutation", "isotropic_scale"}),
            minimum_samples=12,
            cost=f"item O(n² p), pair {_pair}",
            reference="Huh et al. 2024",
            prepare=ordered,
            compare=_compare,
            needs=partial(neighbours_need, operation=_function.__name__, beyond=2),
            self_is_best=_function is edit_knn,
            differentiable=False,
            preset={"metric": "cosine"},
        )
    )
