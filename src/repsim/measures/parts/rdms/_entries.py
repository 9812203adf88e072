"""The entries of a dissimilarity matrix above its diagonal, and their comparison."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from array_api_compat import device

from repsim._errors import warn
from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, host_numbers, known, reordered_pairs
from repsim.estimators import Products, alignment, centre_in_place, inner
from repsim.kernels import double_centre
from repsim.measures._registry import undefined
from repsim.measures.parts._columns import read
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts.rdms._kendall import kendall
from repsim.measures.parts.rdms._ranks import centred_ranks, rank_step, share_of_ties

__all__ = [
    "COMPARISONS",
    "RANKED",
    "RdmEntries",
    "compare_entries",
    "is_rdm",
    "rdm_entries",
    "reordered_entries",
    "samples_of",
    "square_matrix",
    "upper_entries",
]

COMPARISONS = ("spearman", "rho_a", "kendall", "kendall_a", "pearson", "cosine", "whitened")

RANKED = ("spearman", "rho_a", "kendall", "kendall_a")
"""Comparisons of ranks."""

KENDALL = {"kendall": "untied", "kendall_a": "all"}
"""The pairs of entries that a comparison divides by."""

LARGE = 100
"""From this many samples on, the matrix of all entries is centred in place."""

JOINED = 1e-3
"""Ties of different entries are warned of if they take this share from the squares of the ranks.

That of N groups of the same size is 1/N², and a rank correlation is off by it, but Kendall's tau by
1/N.
"""

JOINED_TAU = 1e-5
"""The same for Kendall's tau."""

FINER = 8
"""Entries that share a rank are equal if they do so on a grid that is finer by this factor."""

ASYMMETRY = 1e-3
"""An RDM is symmetric with a zero diagonal up to this share of its largest entry."""


class RdmEntries(NamedTuple):
    """The entries of an RDM, ready for inner products, and the square of their norm.

    Those above its diagonal, (n(n − 1)/2,), or for ``"whitened"`` all of them, (n²,).
    """

    vector: Array
    square: Array
    comparison: str
    present: Array | None


def rdm_entries(
    operation: str,
    name: str,
    d: Array,
    *,
    comparison: str,
    resolution: float,
    zero: str,
    defined: Array | bool = True,
    present: Array | None = None,
) -> RdmEntries:
    """Return the entries ``d`` as the comparison needs them: ranks, centred, or as they are.

    Parameters
    ----------
    operation, name : str
        For the warnings.
    d : array, shape (m,)
        Finite dissimilarities, scaled so that their squares do not overflow.
    comparison : str
        One of :data:`COMPARISONS`:
        The comparison to prepare for.
    resolution : float
        Relative rounding error of the data from which ``d`` was computed.
    zero : str
        What the warning says if all entries are zero.
    defined : array, 0-d, bool, optional
        If false, the square is zero, and no warning is issued.
    present : array, shape (m,), bool, optional
        The entries to use. The others become zero in the result.
    """
    xp = array_namespace(d)
    nothing = xp.zeros_like(d)
    if present is not None:
        d = xp.where(present, d, nothing)
    largest = _size(xp, d)
    vector = d
    count = d.shape[0] if present is None else xp.sum(xp.astype(present, d.dtype))
    if comparison in RANKED:
        if comparison in KENDALL:
            read(operation, name, d, "Kendall's tau is computed on the host")
        vector = centred_ranks(xp, d, rank_step(resolution), present)
    elif comparison in ("pearson", "whitened"):
        centred = d - xp.sum(d) / count
        left = _size(xp, centred if present is None else xp.where(present, centred, nothing))
        flat = left <= 64 * resolution * largest
        # A copy of many entries costs more than reading one truth value.
        vector = centred if known(flat) is False else xp.where(flat, nothing, centred)
    if present is not None:
        vector = xp.where(present, vector, nothing)
    if comparison == "whitened":
        vector = _whitened(xp, vector)
    square = inner(xp, vector, vector)
    if comparison in RANKED:
        _warn_of_joined(operation, name, d, comparison, resolution, present, square)
    undefined(operation, name, defined & (largest <= 0), zero)
    undefined(
        operation,
        name,
        defined & (largest > 0) & (square <= 0),
        "has the same dissimilarity between all samples",
    )
    if comparison == "rho_a":  # the sum of squares of ranks without ties
        whole = (count**3 - count) / 12 * xp.ones_like(square)
        square = xp.where(square > 0, whole, square)
    square = xp.where(defined, square, xp.zeros_like(square))
    return RdmEntries(vector, square, comparison, present)


def _warn_of_joined(
    operation: str,
    name: str,
    d: Array,
    comparison: str,
    resolution: float,
    present: Array | None,
    squares: Array,
) -> None:
    """Warn if many entries share a rank that differ by more than rounding.

    Equal entries share one on a finer grid too. Those at the edge of a cell may fill two cells
    there, which makes their share of ties a quarter.
    """
    xp = array_namespace(d)
    count = d.shape[0] if present is None else xp.sum(xp.astype(present, d.dtype))
    most = JOINED_TAU if comparison in KENDALL else JOINED
    tied = share_of_ties(squares, count)
    if not known((tied > most) & (tied < 1)):
        return
    finer = centred_ranks(xp, d, rank_step(resolution) / FINER, present)
    if present is not None:
        finer = xp.where(present, finer, xp.zeros_like(finer))
    if not known(tied > 4 * share_of_ties(inner(xp, finer, finer), count) + most):
        return
    repair = "Choose comparison='pearson', which needs no ranks"
    if resolution > np.finfo(np.float64).eps:
        repair += f", or compute {name} in float64"
    warn(
        f"{operation}: the dissimilarities of {name} differ in few digits, and different ones "
        f"share a rank, so the value may be off by 1e-3 or more.\n  {repair}."
    )


def _size(xp: Namespace, d: Array) -> Any:
    """Return max|d| without an array of absolute values."""
    return xp.maximum(xp.max(d), -xp.min(d))


def compare_entries(x: RdmEntries, y: RdmEntries) -> Array:
    """Return the cosine of two prepared vectors of entries, or Kendall's tau of their ranks."""
    xp = array_namespace(x.vector)
    if x.comparison in KENDALL:
        value = kendall(x.vector, y.vector, x.present, among=KENDALL[x.comparison])
        return where_defined(xp, value, (x.square > 0) & (y.square > 0))
    return alignment(xp, Products(inner(xp, x.vector, y.vector), x.square, y.square))


def reordered_entries(x: RdmEntries, order: Any) -> RdmEntries | None:
    """Return the entries for the same samples in another order; None if these are not the samples.

    With repeats, the entries are those of conditions, not of rows.
    """
    xp, n, count = array_namespace(x.vector), len(order), x.vector.shape[0]
    if count == n * n:
        moved = reordered_pairs(xp.reshape(x.vector, (n, n)), order)
        return x._replace(vector=xp.reshape(moved, (count,)))
    if count != n * (n - 1) // 2:
        return None
    rows, columns = (np.asarray(order)[each] for each in np.triu_indices(n, 1))
    first, second = np.minimum(rows, columns), np.maximum(rows, columns)
    index = first * (2 * n - first - 1) // 2 + second - first - 1
    return x._replace(vector=xp.take(x.vector, xp.asarray(index, device=device(x.vector)), axis=0))


def upper_entries(xp: Namespace, d: Array) -> Array:
    """Return the entries of ``d`` (n, n) above its diagonal, row by row: (n(n − 1)/2,)."""
    n = d.shape[0]
    values = host_numbers(d)
    if values is not None:
        # Measured for n = 5000 on one core: 0.04 s instead of 0.34 s with a list of places.
        entries = np.empty(n * (n - 1) // 2, values.dtype)
        for i in range(n):
            start = i * (2 * n - i - 1) // 2
            entries[start : start + n - 1 - i] = values[i, i + 1 :]
        found: Array = xp.asarray(entries, device=device(d))
        return found
    rows, columns = np.triu_indices(n, 1)
    where = xp.asarray(rows * n + columns, device=device(d))
    out: Array = xp.take(xp.reshape(d, (n * n,)), where, axis=0)
    return out


def is_rdm(xp: Namespace, x: Array) -> bool:
    """Whether a finite matrix can be read and is square and symmetric with a zero diagonal."""
    n, p = x.shape
    if n != p:
        return False
    largest = xp.max(xp.abs(x))
    # Activations fail here, after n of the n² entries.
    if not known((largest > 0) & (xp.max(xp.abs(diagonal(xp, x))) <= ASYMMETRY * largest)):
        return False
    return bool(known(xp.max(xp.abs(x - xp.matrix_transpose(x))) <= ASYMMETRY * largest))


def diagonal(xp: Namespace, d: Array) -> Array:
    """Return the diagonal of ``d`` (n, n)."""
    n = d.shape[0]
    where = xp.asarray(np.arange(n) * (n + 1), device=device(d))
    out: Array = xp.take(xp.reshape(d, (n * n,)), where, axis=0)
    return out


def _whitened(xp: Namespace, d: Array) -> Array:
    """Return the entries of HDH, (n²,), whose inner products are dᵀV⁻¹d with V = (CCᵀ)∘² of pairs.

    V is the covariance of squared distances that all estimate zero, up to a factor; C holds the
    contrasts of all pairs, so that CCᵀ ∘ CCᵀ would have n⁴/4 entries (Diedrichsen et al. 2020).
    """
    n = samples_of(d.shape[0])
    values = host_numbers(d)
    if values is not None and n >= LARGE:
        matrix = _host_square(values, n)
        centre_in_place(matrix, unbiased=False)
        centred: Array = xp.asarray(np.reshape(matrix, (-1,)), device=device(d))
        return centred
    out: Array = xp.reshape(double_centre(xp, square_matrix(xp, d)), (n * n,))
    return out


def square_matrix(xp: Namespace, d: Array) -> Array:
    """Return the symmetric matrix (n, n) of entries ``d`` (n(n − 1)/2,) with a zero diagonal."""
    n = samples_of(d.shape[0])
    values = host_numbers(d)
    if values is not None:
        matrix: Array = xp.asarray(_host_square(values, n), device=device(d))
        return matrix
    where = np.full((n, n), d.shape[0])
    rows, columns = np.triu_indices(n, 1)
    where[rows, columns] = where[columns, rows] = np.arange(d.shape[0])
    index = xp.asarray(np.reshape(where, (-1,)), device=device(d))
    with_zero = xp.concat([d, xp.zeros_like(d[:1])])
    out: Array = xp.reshape(xp.take(with_zero, index, axis=0), (n, n))
    return out


def _host_square(values: np.ndarray[Any, Any], n: int) -> np.ndarray[Any, Any]:
    # Measured for n = 5000 on one core: 0.3 s instead of 2.7 s with a list of places.
    matrix = np.zeros((n, n), values.dtype)
    for i in range(n):
        start = i * (2 * n - i - 1) // 2
        matrix[i, i + 1 :] = values[start : start + n - 1 - i]
    matrix += matrix.T
    return matrix


def samples_of(pairs: int) -> int:
    """Return n of n(n − 1)/2 pairs; the largest n with no more pairs if no n has this number."""
    return (1 + math.isqrt(1 + 8 * pairs)) // 2
