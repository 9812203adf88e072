"""RSA of ready dissimilarity matrices, with and without missing pairs."""

from __future__ import annotations

from typing import Any, Literal

from repsim._errors import InputError, NonFiniteError
from repsim._options import require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    describe,
    known,
    namespace,
    promote,
    scalar,
    unit_scale,
    unlabelled,
    without_autocast,
)
from repsim.measures.parts.rdms._entries import (
    ASYMMETRY,
    COMPARISONS,
    RdmEntries,
    compare_entries,
    diagonal,
    rdm_entries,
    samples_of,
    square_matrix,
    upper_entries,
)

__all__ = ["rdm_item", "rdm_rows", "rsa_from_rdm"]

MISSING = ("raise", "omit")

FEWEST = 3
"""Pairs that RSA needs: with two, every correlation is −1 or 1."""


@without_autocast
def rsa_from_rdm(
    a: Array,
    b: Array,
    *,
    comparison: Literal[
        "spearman", "rho_a", "kendall", "kendall_a", "pearson", "cosine", "whitened"
    ] = "spearman",
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
    comparison : {"spearman", "rho_a", "kendall", "kendall_a", "pearson", "cosine", "whitened"}
        As in :func:`rsa`, by default ``"spearman"``. ``"whitened"`` needs all pairs.
    nan : {"raise", "omit"}, default "raise"
        What to do with missing dissimilarities (NaN): raise an error, or compare only the pairs of
        samples that both sides have. Infinity is an error in any case.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [−1, 1], without unit; 1 where the dissimilarities agree. Same namespace and device as
        the inputs; float32 for half precision and float32, float64 for float64 and integers.
        All but ranks are differentiable where the inputs are.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices; with ``"kendall"`` and
        ``"kendall_a"`` arrays whose values cannot be read, as in :func:`rsa`.
    InputError
        Not symmetric, a diagonal that is not zero, a number of entries that is not n(n−1)/2,
        different n, fewer than 3 samples or 3 pairs that both sides have, NaN or infinity
        (``NonFiniteError``), unknown comparison, ``"whitened"`` with ``nan="omit"``.

    Warns
    -----
    DegenerateWarning
        If all dissimilarities of a side are equal ("cosine": zero): NaN is returned.
    RepsimWarning
        If many different dissimilarities share a rank. The value may then be off by 1e-3.

    Notes
    -----
    Equal to ``rsa(x, y)`` for the RDMs that :func:`rdm` returns for x and y, up to their rounding.
    As in :func:`rsa`, dissimilarities get equal ranks if they agree to 17 bits (float32) or 32 bits
    (float64). If pairs are left out, each comparison uses other pairs, so values with different
    missing pairs are not exactly comparable. :func:`rsa` has no such option: drop samples with
    missing features from both sides. Cost O(n² log n), memory O(n²).

    References
    ----------
    Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis", Frontiers in
    Systems Neuroscience 2:4.
    """
    require_choice("rsa_from_rdm", "comparison", comparison, COMPARISONS)
    require_choice("rsa_from_rdm", "nan", nan, MISSING)
    if comparison == "whitened" and nan == "omit":
        raise InputError(
            "rsa_from_rdm: comparison='whitened' needs all pairs of samples.\n"
            "  got nan='omit'\n"
            "  Drop the samples that miss a pair, or choose another comparison."
        )
    a, b = unlabelled("rsa_from_rdm", {"a": a, "b": b})
    xp = namespace("rsa_from_rdm", a=a, b=b)
    sides = {
        name: _checked("rsa_from_rdm", xp, d, name, omit=nan == "omit")
        for name, d in (("a", a), ("b", b))
    }
    d_a, d_b = sides.values()
    if d_a.shape != d_b.shape:
        n_a, n_b = (_samples(d.shape[0]) for d in (d_a, d_b))
        raise InputError(
            f"rsa_from_rdm: a and b must describe the same samples.\n"
            f"  a: {tuple(a.shape)} → n={n_a}    b: {tuple(b.shape)} → n={n_b}\n"
            f"  Compute both RDMs from the same rows."
        )
    present = _present(xp, d_a, d_b) if nan == "omit" else None
    prepared = [
        _prepared("rsa_from_rdm", name, d, comparison, present) for name, d in sides.items()
    ]
    return scalar(xp, compare_entries(*prepared), xp.result_type(d_a.dtype, d_b.dtype))


def rdm_item(operation: str, given: Array, *, name: str, comparison: str) -> RdmEntries:
    """Prepare a ready RDM for RSA, as ``prepare`` of the measure does activations.

    >>> import numpy as np, repsim
    >>> d = repsim.rdm(np.array([[0.0], [1.0], [3.0]]))
    >>> repsim.measures.rdm_item("mine", d, name="d", comparison="spearman").vector.tolist()
    [-1.0, 1.0, 0.0]

    Parameters
    ----------
    operation : str
        The caller, for errors and warnings.
    given : array, shape (n, n) or (n(n−1)/2,)
        As in :func:`repsim.rsa_from_rdm`.
    name : str
        The name of the RDM in messages.
    comparison : str
        As in :func:`repsim.rsa`.

    Returns
    -------
    RdmEntries
        ``vector``, the entries above the diagonal as the comparison needs them, and ``square``.

    Raises
    ------
    InputError
        It is not an RDM, or has NaN or infinity (``NonFiniteError``).
    """
    xp = namespace(operation, **{name: given})
    d = _checked(operation, xp, given, name, omit=False)
    return _prepared(operation, name, d, comparison, None)


def rdm_rows(operation: str, given: Array, *, name: str) -> Array:
    """Return an RDM as (n, n), so that its samples are rows as those of activations.

    Parameters
    ----------
    operation, name : str
        For errors.
    given : array, shape (n, n) or (n(n−1)/2,)
        What the user passed; labels of entries above the diagonal are dropped.
    """
    (d,) = unlabelled(operation, {name: given})
    xp = namespace(operation, **{name: d})
    square = _is_square(operation, d, name)
    # Dropping rows, as for activations, would leave no RDM.
    _require_finite(operation, xp, promote(xp, d, operation, name), d, name, omit=False)
    return given if square else square_matrix(xp, d)


def _prepared(
    operation: str, name: str, d: Array, comparison: str, present: Array | None
) -> RdmEntries:
    xp = array_namespace(d)
    wide = xp.astype(d, accumulator_dtype(xp, d), copy=False)
    if present is not None:
        wide = xp.where(present, wide, xp.zeros_like(wide))
    # Inside a compiler these could not be checked before.
    defined = xp.all(xp.isfinite(wide))
    if present is not None:
        defined = defined & (_count(xp, present) >= FEWEST)
    scaled, _ = unit_scale(xp, wide)
    return rdm_entries(
        operation,
        name,
        scaled,
        comparison=comparison,
        resolution=float(xp.finfo(d.dtype).eps),
        zero="is zero for all pairs of samples",
        defined=defined,
        present=present,
    )


def _checked(operation: str, xp: Namespace, given: Array, name: str, *, omit: bool) -> Array:
    """Return the entries of an RDM above its diagonal in the dtype to compute in, or raise."""
    d = promote(xp, given, operation, name)
    square = _is_square(operation, given, name)
    if d.shape[0] < FEWEST:  # samples or pairs: three samples have three pairs
        raise InputError(
            f"{operation}: RSA needs at least 3 samples.\n"
            f"  {describe(name, given)}\n"
            f"  Bring more samples."
        )
    _require_finite(operation, xp, d, given, name, omit=omit)
    if not square:
        return d
    _require_dissimilarities(operation, xp, d, given, name)
    return upper_entries(xp, d)


def _is_square(operation: str, given: Array, name: str) -> bool:
    """Whether an RDM is (n, n) and not its entries above the diagonal; raise if it is neither."""
    if given.ndim == 2 and given.shape[0] == given.shape[1]:
        return True
    if given.ndim == 1 and _samples(given.shape[0]) is not None:
        return False
    repair = "If it holds activations, make their RDM with repsim.rdm, or use rsa."
    if given.ndim > 1:
        repair += "\n  If it holds the RDMs of several subjects, pass list(rdms)."
    raise InputError(
        f"{operation}: {name} must be an RDM, (n, n) or (n(n−1)/2,).\n"
        f"  {describe(name, given)}\n"
        f"  {repair}"
    )


def _samples(pairs: int) -> int | None:
    """Return n of n(n−1)/2 pairs, or nothing if no n has this number."""
    n = samples_of(pairs)
    return n if n * (n - 1) // 2 == pairs else None


def _require_finite(
    operation: str, xp: Namespace, d: Array, given: Array, name: str, *, omit: bool
) -> None:
    bad = ~xp.isfinite(d) & ~xp.isnan(d) if omit else ~xp.isfinite(d)
    if known(xp.any(bad)):
        repair = (
            "Missing dissimilarities are NaN; find where infinity arises."
            if omit
            else "If they are missing, rsa_from_rdm(nan='omit') compares the pairs that both have. "
            "A test then permutes the other RDM, which must be complete (see 'Ready RDMs' in the "
            "documentation). Otherwise leave the sample out of the rows and columns of all RDMs."
        )
        raise NonFiniteError(
            f"{operation}: {name} must be finite.\n"
            f"  {describe(name, given)}: {int(xp.sum(xp.astype(bad, xp.int32)))} entries are "
            f"{'infinite' if omit else 'NaN or infinite'}\n"
            f"  {repair}"
        )


def _require_dissimilarities(
    operation: str, xp: Namespace, d: Array, given: Array, name: str
) -> None:
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
            f"{operation}: {name} must be symmetric.\n"
            f"  {describe(name, given)}, {found}\n"
            f"  An RDM holds the dissimilarity of every sample to every sample. For activations "
            f"use rsa."
        )
    on = xp.max(xp.abs(diagonal(xp, filled)))
    if known(on > ASYMMETRY * largest):
        raise InputError(
            f"{operation}: {name} must have a zero diagonal.\n"
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
