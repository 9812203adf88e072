"""Representational similarity analysis: whether the same samples are alike on both sides."""

from __future__ import annotations

from typing import Any, Literal

from repsim._errors import InputError
from repsim._options import require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace, describe, own_root, reordered_pairs, unit_scale
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures._rsa_from_rdm import rdm_item, rdm_rows
from repsim.measures.parts._dissimilarity import dissimilarities, wide
from repsim.measures.parts.rdms._crossnobis import (
    as_repeats,
    crossvalidated,
    require_repeat_axis,
    require_repeats,
)
from repsim.measures.parts.rdms._entries import (
    COMPARISONS,
    RANKED,
    RdmEntries,
    compare_entries,
    is_rdm,
    rdm_entries,
    reordered_entries,
    upper_entries,
)

__all__ = ["rsa"]

RDMS = ("euclidean", "sqeuclidean", "correlation", "cosine", "crossnobis", "precomputed")


def rsa(
    x: Array,
    y: Array,
    *,
    rdm: Literal[
        "euclidean", "sqeuclidean", "correlation", "cosine", "crossnobis", "precomputed"
    ] = "euclidean",
    comparison: Literal[
        "spearman", "rho_a", "kendall", "kendall_a", "pearson", "cosine", "whitened"
    ] = "spearman",
    repeats: int | None = None,
) -> Array:
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
        sqeuclidean  D_ij = ‖x_i − x_j‖²
        correlation  D_ij = 1 − r(x_i, x_j), over the features of two samples
        cosine       D_ij = 1 − x_i·x_j/(‖x_i‖‖x_j‖)
        crossnobis   D_ij = Σ_{a≠b} (x_ia − x_ja)·(x_ib − x_jb), a and b repeats

        whitened     d_xᵀV⁻¹d_y / √(d_xᵀV⁻¹d_x · d_yᵀV⁻¹d_y),   V = (CCᵀ)∘², each d minus its mean

    where C holds the contrasts of all pairs of samples, one row (…, 1, …, −1, …) for each.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...); "crossnobis": (n, repeats, p) or (n, repeats, ...)
        Activations of n ≥ 3 samples; trailing axes are flattened. "precomputed": a ready RDM,
        (n, n) or its entries above the diagonal, (n(n−1)/2,).
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    rdm : str, default "euclidean"
        The dissimilarity of two samples, for both sides: "euclidean", "sqeuclidean",
        "correlation", "cosine" or "crossnobis". ``"precomputed"``: x and y are RDMs already, of any
        kind, as in :func:`rsa_from_rdm`. This holds wherever a measure is named:
        ``permutation_test(a, b, measure="rsa", rdm="precomputed")`` permutes rows and columns
        together. :func:`rdm` has more kinds, with a noise covariance.
    comparison : {"spearman", "rho_a", "kendall", "kendall_a", "pearson", "cosine", "whitened"}
        By default ``"spearman"``. Rank correlation (equal entries share the mean of their ranks),
        linear correlation, or the cosine of the two vectors, which are not centred. ``"rho_a"`` is
        the mean rank correlation over all orders of equal entries: 12 Σ r_k s_k/(m³ − m) of the m
        centred ranks. Without equal entries it is ``"spearman"``; with them it does not prefer
        models that predict ties.
        ``"whitened"`` is a linear correlation that takes into account that the entries of an RDM
        share samples. V is meant for squared distances, "sqeuclidean" and "crossnobis".
        ``"kendall"`` is Kendall's τ_b: concordant minus discordant pairs of entries, divided by
        √(pairs not tied in x · pairs not tied in y). ``"kendall_a"`` is τ_a, divided by all pairs.
    repeats : int, optional
        r ≥ 2: how often each sample was measured. Only for "crossnobis", which needs it.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [−1, 1] (``"cosine"``: [0, 1], except of "crossnobis"), without unit; 1 where the
        dissimilarities agree (``"rho_a"``, ``"kendall_a"``: and no two are equal). Same namespace
        and device as the inputs; float32 for half precision and float32, float64 for float64 and
        integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices; with ``"kendall"`` and
        ``"kendall_a"`` arrays whose values cannot be read (inside ``jax.jit``, ``jax.grad``,
        ``torch.compile`` and the transforms of ``torch.func``), because SciPy computes them.
    InputError
        Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), unknown RDM or comparison, repeats that do not fit. An input that
        looks like an RDM (n = p, symmetric, with a zero diagonal), because taken as activations it
        gives a number that means nothing: pass ``rdm="precomputed"``.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, if it has the same dissimilarity between all samples
        (except with ``comparison="cosine"``), or if it has a row without a direction: NaN is
        returned.
    RepsimWarning
        If many different dissimilarities share a rank. The value may then be off by 1e-3.

    Notes
    -----
    The whitened cosine of squared Euclidean distances, without subtracting the mean, is linear
    :func:`cka`, so it has no name here. Ranks of "sqeuclidean" are those of "euclidean".

    With the Euclidean RDM and rank or linear correlation, the value is invariant to orthogonal
    maps, isotropic scale, feature permutations and translation of either input. With the cosine RDM
    it is not invariant to translation. With the correlation RDM it is invariant only to isotropic
    scale, feature permutations and adding one number to all features. Symmetric; a similarity, not
    a metric. The entries of an RDM share samples, so a p-value that treats them as independent is
    far too small.

    Dissimilarities that differ only by rounding get equal ranks: those that agree to 17 bits
    (float32) or 32 bits (float64). All comparisons but ranks are differentiable where the inputs
    are. Computed in float64 where the device has it. Cost: O(n² p + n² log n) once for each array,
    O(n²) for a pair (Kendall: O(n² log n)); memory O(n²), also for ``"whitened"``, which does not
    build V.

    References
    ----------
    Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis", Frontiers in
    Systems Neuroscience 2:4. Schütt, Kipnis, Diedrichsen, Kriegeskorte 2023, "Statistical inference
    on representational geometries", eLife 12:e82566, for rho_a. Diedrichsen, Berlot, Mur, Schütt,
    Shahbazi, Kriegeskorte 2020, "Comparing representational geometries using whitened unbiased-
    distance-matrix similarity", arXiv:2007.02789, for whitened.
    """
    if isinstance(rdm, str) and rdm == "crossnobis" and repeats is not None:
        for name, array in (("x", x), ("y", y)):
            require_repeat_axis("rsa", name, array, require_repeats("rsa", rdm, repeats))
    return evaluate("rsa", x, y, rdm=rdm, comparison=comparison, repeats=repeats)


def _prepare(
    operation: str, x: Array, *, name: str, rdm: str, comparison: str, repeats: int | None
) -> RdmEntries:
    if isinstance(rdm, str) and rdm in ("mahalanobis", "sqmahalanobis"):
        raise InputError(
            f"{operation}: {rdm!r} needs the noise covariance of each side.\n"
            f"  got rdm={rdm!r}\n"
            f"  Pass rdm(x, {rdm!r}, noise=...) and that of y with rdm='precomputed'."
        )
    require_choice(operation, "rdm", rdm, RDMS)
    r = require_repeats(operation, rdm, repeats)
    require_choice(operation, "comparison", comparison, COMPARISONS)
    if rdm == "precomputed":
        return rdm_item(operation, x, name=name, comparison=comparison)
    xp = array_namespace(x)
    if is_rdm(xp, x):
        raise InputError(
            f"{operation}: {name} must be activations, and it looks like an RDM.\n"
            f"  {describe(name, x)}, symmetric with a zero diagonal\n"
            f"  Compare ready RDMs with rdm='precomputed', or with rsa_from_rdm. If the rows of "
            f"{name} are meant as activations, pass repsim.rdm({name}) there."
        )
    if rdm == "crossnobis":
        z = as_repeats(operation, xp, wide(xp, x), name, r)
        matrix = crossvalidated(xp, unit_scale(xp, z - z[:, :1, :])[0])
        defined = xp.all(xp.isfinite(x))
    else:
        matrix, defined = dissimilarities(operation, name, x, rdm.removeprefix("sq"))
    d = upper_entries(xp, matrix)
    if rdm == "euclidean" and comparison not in RANKED:
        d = own_root(xp, d)  # which changes no rank
    return rdm_entries(
        operation,
        name,
        d,
        comparison=comparison,
        resolution=float(xp.finfo(x.dtype).eps),
        zero="is the same for all samples (its RDM is zero)",
        defined=defined,
    )


def _as_rows(operation: str, x: Array, *, name: str, rdm: str, **_: object) -> Array:
    ready = isinstance(rdm, str) and rdm == "precomputed"
    return rdm_rows(operation, x, name=name) if ready else x


def _take(x: Array, places: Any, *, rdm: str, **_: object) -> Array:
    if rdm == "precomputed":
        return reordered_pairs(x, places)
    out: Array = array_namespace(x).take(x, places, axis=0)
    return out


def _compare(x: RdmEntries, y: RdmEntries, **_: object) -> Array:
    return compare_entries(x, y)


def _entries(item: RdmEntries) -> Array:
    """Return the entries whose cosine is compared; NaN for an RDM that is undefined."""
    xp, vector = array_namespace(item.vector), item.vector
    out: Array = xp.where(item.square > 0, vector, xp.full_like(vector, float("nan")))
    return out


_RIGID = frozenset({"orthogonal", "permutation", "isotropic_scale"})
for _name, _preset, _invariances in (
    ("rsa", {"rdm": "euclidean"}, _RIGID | {"translation"}),
    ("rsa_cosine", {"rdm": "cosine"}, _RIGID),
    ("rsa_correlation", {"rdm": "correlation"}, _RIGID - {"orthogonal"}),
    ("rsa_whitened", {"rdm": "sqeuclidean", "comparison": "whitened"}, _RIGID | {"translation"}),
):
    _white = "comparison" in _preset
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
            cost="item O(n² p), pair O(n²)" if _white else "item O(n² p + n² log n), pair O(n²)",
            reference="Diedrichsen et al. 2020" if _white else "Kriegeskorte et al. 2008",
            prepare=_prepare,
            reorder=reordered_entries,
            compare=_compare,
            entries=_entries,
            as_rows=_as_rows,
            take=_take,
            # 1 only if no two dissimilarities are equal.
            self_is_best_with=lambda comparison, **_: comparison not in ("rho_a", "kendall_a"),
            differentiable=_white,
            preset=_preset,
        )
    )
