"""Dissimilarity matrices as results, and RSA of ready ones."""

from __future__ import annotations

import math
from typing import Any, Literal

from array_api_compat import device

from repsim._errors import DegenerateWarning, InputError, NonFiniteError, warn
from repsim._options import require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import (
    accumulator_dtype,
    as_samples,
    check_finite,
    describe,
    known,
    labelled_like,
    namespace,
    promote,
    scalar,
    unit_scale,
    unlabelled,
    without_autocast,
)
from repsim.measures.parts._dissimilarity import (
    DISSIMILARITIES,
    NO_DIRECTION,
    angular,
    squared_euclidean,
)
from repsim.measures.parts._geometry import root
from repsim.measures.parts._rdm_entries import (
    ASYMMETRY,
    COMPARISONS,
    compare_entries,
    diagonal,
    rdm_entries,
    upper_entries,
)

__all__ = ["rdm", "rsa_from_rdm"]

MISSING = ("raise", "omit")

FEWEST = 3
"""Pairs that RSA needs: with two, every correlation is −1 or 1."""


@without_autocast
def rdm(x: Array, kind: Literal["euclidean", "correlation", "cosine"] = "euclidean") -> Array:
    """Representational dissimilarity matrix: how far every two samples are from each other.

    >>> import numpy as np, repsim
    >>> repsim.rdm(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])).round(3).tolist()
    [[0.0, 5.0, 1.0], [5.0, 0.0, 4.243], [1.0, 4.243, 0.0]]
    >>> x, y = np.random.default_rng(0).standard_normal((2, 30, 5))
    >>> same = repsim.rsa_from_rdm(repsim.rdm(x), repsim.rdm(y))
    >>> bool(np.isclose(same, repsim.rsa(x, y)))
    True

    ::

        euclidean    D_ij = ‖x_i − x_j‖
        correlation  D_ij = 1 − r(x_i, x_j), over the features of two samples
        cosine       D_ij = 1 − x_i·x_j/(‖x_i‖‖x_j‖)

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    kind : {"euclidean", "correlation", "cosine"}, default "euclidean"
        The dissimilarity of two samples; the names are those of ``rsa(rdm=)``.

    Returns
    -------
    array, shape (n, n)
        In the units of x ("euclidean"), or without unit in [0, 2]. Symmetric, with a diagonal of
        exact zeros. Same namespace and device as ``x``, differentiable where it is; float32 for
        half precision and float32, float64 for float64 and integers. A labelled array (xarray)
        gives a labelled one: the first dimension has the labels of the samples, which
        :func:`rsa_from_rdm` compares.

    Raises
    ------
    ArrayTypeError
        Not an array.
    InputError
        Fewer than 2 samples, one-dimensional or empty input, NaN or infinity (``NonFiniteError``),
        unknown kind.

    Warns
    -----
    DegenerateWarning
        If a sample is zero in all features ("cosine") or the same in all ("correlation"): its
        dissimilarities to others are NaN.

    Notes
    -----
    The Euclidean RDM is invariant to orthogonal maps and translation, the cosine RDM to orthogonal
    maps and scale, the correlation RDM to scale and adding one number to all features. Digits are
    kept where samples share a large mean or have nearly the same direction. The derivative of a
    Euclidean distance of zero is set to zero. Computed in float64 where the device has it. Cost
    O(n² p), memory O(n²).

    References
    ----------
    Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis", Frontiers in
    Systems Neuroscience 2:4.
    """
    require_choice("rdm", "kind", kind, DISSIMILARITIES)
    (plain,) = unlabelled("rdm", {"x": x})
    xp = namespace("rdm", x=plain)
    a = as_samples("rdm", xp, plain, "x", min_samples=2, why="a dissimilarity matrix")
    check_finite("rdm", xp, a, "x")
    if kind == "euclidean":
        d, scale = squared_euclidean(a)
        d = root(xp, d) * scale
    else:
        d, missing = angular(a, kind)
        if known(xp.any(missing)):
            warn(
                f"rdm: x {NO_DIRECTION[kind]}, so its dissimilarities are undefined and NaN is "
                f"returned for them.",
                DegenerateWarning,
            )
        rows = xp.arange(a.shape[0], device=device(a))
        other = rows[:, None] != rows[None, :]
        d = xp.where(
            other & (missing | xp.matrix_transpose(missing)), xp.full_like(d, float("nan")), d
        )
    d = (d + xp.matrix_transpose(d)) / 2  # products may round the two halves in two ways
    out: Array = labelled_like(x, xp.astype(d, a.dtype, copy=False))
    return out


@without_autocast
def rsa_from_rdm(
    a: Array,
    b: Array,
    *,
    comparison: Literal["spearman", "rho_a", "pearson", "cosine"] = "spearman",
    nan: Literal["raise", "omit"] = "raise",
) -> Array:
    """Representational similarity analysis of two ready dissimilarity matrices.

    >>> import numpy as np, repsim
    >>> x, y = np.random.default_rng(0).standard_normal((2, 30, 5))
    >>> a, b = repsim.rdm(x, "correlation"), repsim.rdm(y, "correlation")
    >>> bool(np.isclose(repsim.rsa_from_rdm(a, b), repsim.rsa(x, y, rdm="correlation")))
    True
    >>> judged = b.copy()
    >>> judged[2, 7] = judged[7, 2] = np.nan  # a pair that nobody has judged
    >>> bool(np.isclose(repsim.rsa_from_rdm(b, judged, nan="omit"), 1.0))
    True

    ::

        RSA = compare(d_a, d_b),   d = (D_12, D_13, …, D_{n−1,n})

    Parameters
    ----------
    a, b : array, shape (n, n) or (n(n−1)/2,)
        Dissimilarities of the same n ≥ 3 samples in the same order, in any unit: a symmetric matrix
        with a zero diagonal, or its entries above the diagonal row by row, as
        ``scipy.spatial.distance.squareform`` returns them. One framework and device. Entries may be
        negative, as those of crossvalidated distances are.
    comparison : {"spearman", "rho_a", "pearson", "cosine"}, default "spearman"
        As in :func:`rsa`.
    nan : {"raise", "omit"}, default "raise"
        What to do with missing dissimilarities (NaN): raise an error, or compare only the pairs of
        samples that both sides have. Infinity is an error in any case.

    Returns
    -------
    array, 0-d
        In [−1, 1], without unit; 1 where the dissimilarities agree. Same namespace and device as
        the inputs; float32 for half precision and float32, float64 for float64 and integers.
        Pearson and cosine are differentiable where the inputs are; ranks have no derivative.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Not symmetric, a diagonal that is not zero, a number of entries that is not n(n−1)/2,
        different n, fewer than 3 samples or 3 pairs that both sides have, NaN or infinity
        (``NonFiniteError``), unknown comparison.

    Warns
    -----
    DegenerateWarning
        If all dissimilarities of a side are equal ("cosine": zero): NaN is returned.

    Notes
    -----
    Equal to ``rsa(x, y)`` for the RDMs that :func:`rdm` returns for x and y, up to their rounding.
    As in :func:`rsa`, dissimilarities get equal ranks if they agree to 17 bits (float32) or 32 bits
    (float64). Pairwise deletion leaves other pairs to each comparison, so values with other missing
    pairs are not exactly comparable. :func:`rsa` has no such option: samples with missing features
    are best dropped from both sides. Cost O(n² log n), memory O(n²).

    References
    ----------
    Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis", Frontiers in
    Systems Neuroscience 2:4.
    """
    require_choice("rsa_from_rdm", "comparison", comparison, COMPARISONS)
    require_choice("rsa_from_rdm", "nan", nan, MISSING)
    a, b = unlabelled("rsa_from_rdm", {"a": a, "b": b})
    xp = namespace("rsa_from_rdm", a=a, b=b)
    sides = {name: _checked(xp, d, name, omit=nan == "omit") for name, d in (("a", a), ("b", b))}
    d_a, d_b = sides.values()
    if d_a.shape != d_b.shape:
        n_a, n_b = (_samples(d.shape[0]) for d in (d_a, d_b))
        raise InputError(
            f"rsa_from_rdm: a and b must describe the same samples.\n"
            f"  a: {tuple(a.shape)} → n={n_a}    b: {tuple(b.shape)} → n={n_b}\n"
            f"  Compute both RDMs from the same rows."
        )
    present = _present(xp, d_a, d_b) if nan == "omit" else None
    prepared = []
    for name, d in sides.items():
        wide = xp.astype(d, accumulator_dtype(xp, d), copy=False)
        if present is not None:
            wide = xp.where(present, wide, xp.zeros_like(wide))
        # Inside a compiler these could not be checked before.
        defined = xp.all(xp.isfinite(wide))
        if present is not None:
            defined = defined & (_count(xp, present) >= FEWEST)
        scaled, _ = unit_scale(xp, wide)
        prepared.append(
            rdm_entries(
                "rsa_from_rdm",
                name,
                scaled,
                comparison=comparison,
                resolution=float(xp.finfo(d.dtype).eps),
                zero="is zero for all pairs of samples",
                defined=defined,
                present=present,
            )
        )
    return scalar(xp, compare_entries(*prepared), xp.result_type(d_a.dtype, d_b.dtype))


def _checked(xp: Namespace, given: Array, name: str, *, omit: bool) -> Array:
    """Return the entries of an RDM above its diagonal in the dtype to compute in, or raise."""
    d = promote(xp, given, "rsa_from_rdm", name)
    square = d.ndim == 2 and d.shape[0] == d.shape[1]
    if not square and (d.ndim != 1 or _samples(d.shape[0]) is None):
        raise InputError(
            f"rsa_from_rdm: {name} must be an RDM, (n, n) or (n(n−1)/2,).\n"
            f"  {describe(name, given)}\n"
            f"  For activations use rsa, or make their RDM with rdm."
        )
    if d.shape[0] < FEWEST:  # samples or pairs: three samples have three pairs
        raise InputError(
            f"rsa_from_rdm: RSA needs at least 3 samples.\n"
            f"  {describe(name, given)}\n"
            f"  Bring more samples."
        )
    _require_finite(xp, d, given, name, omit=omit)
    if not square:
        return d
    _require_dissimilarities(xp, d, given, name)
    return upper_entries(xp, d)


def _samples(pairs: int) -> int | None:
    """Return n of n(n−1)/2 pairs, or nothing if no n has this number."""
    n = (1 + math.isqrt(1 + 8 * pairs)) // 2
    return n if n * (n - 1) // 2 == pairs else None


def _require_finite(xp: Namespace, d: Array, given: Array, name: str, *, omit: bool) -> None:
    bad = ~xp.isfinite(d) & ~xp.isnan(d) if omit else ~xp.isfinite(d)
    if known(xp.any(bad)):
        repair = (
            "Missing dissimilarities are NaN; find where infinity arises."
            if omit
            else "If they are missing, pass nan='omit' to compare the pairs that both sides have."
        )
        raise NonFiniteError(
            f"rsa_from_rdm: {name} must be finite.\n"
            f"  {describe(name, given)}: {int(xp.sum(xp.astype(bad, xp.int32)))} entries are "
            f"{'infinite' if omit else 'NaN or infinite'}\n"
            f"  {repair}"
        )


def _require_dissimilarities(xp: Namespace, d: Array, given: Array, name: str) -> None:
    """Raise if a square matrix is not symmetric or its diagonal is not zero."""
    absent = xp.isnan(d)
    # A pair that is missing on one side of the diagonal counts as a difference.
    filled = xp.where(absent, xp.zeros_like(d), d)
    largest = xp.max(xp.abs(filled))
    gap = xp.max(xp.abs(filled - xp.matrix_transpose(filled)))
    one_sided = xp.any(absent != xp.matrix_transpose(absent))
    if known((gap > ASYMMETRY * largest) | one_sided):
        found = (
            "some entries are NaN on one side of the diagonal alone"
            if known(one_sided)
            else f"largest |{name} - {name}ᵀ| = {float(gap):.3g}"
        )
        raise InputError(
            f"rsa_from_rdm: {name} must be symmetric.\n"
            f"  {describe(name, given)}, {found}\n"
            f"  An RDM holds the dissimilarity of every sample to every sample. For activations "
            f"use rsa."
        )
    on = xp.max(xp.abs(diagonal(xp, filled)))
    if known(on > ASYMMETRY * largest):
        raise InputError(
            f"rsa_from_rdm: {name} must have a zero diagonal.\n"
            f"  {describe(name, given)}, largest |diagonal| = {float(on):.3g}\n"
            f"  Is it a matrix of similarities? Then pass 1 − {name}, or what makes them "
            f"dissimilarities."
        )


def _present(xp: Namespace, a: Array, b: Array) -> Array:
    """Return which entries both sides have; raise if they are too few."""
    present: Array = ~xp.isnan(a) & ~xp.isnan(b)
    count = _count(xp, present)
    if known(count < FEWEST):
        raise InputError(
            f"rsa_from_rdm: RSA needs at least 3 pairs of samples that both sides have.\n"
            f"  {int(count)} of {a.shape[0]} pairs are in a and in b\n"
            f"  Bring RDMs that have more pairs in common."
        )
    return present


def _count(xp: Namespace, present: Array) -> Any:
    return xp.sum(xp.astype(present, xp.int32))
