"""Dissimilarity matrices as results."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from array_api_compat import device

from repsim._errors import DegenerateWarning, InputError, warn
from repsim._options import got, require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import (
    as_samples,
    check_finite,
    known,
    labelled_like,
    namespace,
    root,
    unit_scale,
    unlabelled,
    without_autocast,
)
from repsim.kernels import squared_distances
from repsim.measures.parts._dissimilarity import (
    NO_DIRECTION,
    angular,
    placed,
    wide,
    without_float64,
)
from repsim.measures.parts.rdms._crossnobis import (
    as_repeats,
    crossvalidated,
    require_repeat_axis,
    require_repeats,
)
from repsim.measures.parts.rdms._noise import in_units_of_noise

__all__ = ["rdm"]

RDMS = (
    "euclidean",
    "sqeuclidean",
    "correlation",
    "cosine",
    "mahalanobis",
    "sqmahalanobis",
    "crossnobis",
)

SQUARED = ("sqeuclidean", "sqmahalanobis", "crossnobis")

ENDS = ("max", "smallest_normal")

NOISE = {"mahalanobis": True, "sqmahalanobis": True, "crossnobis": False}
"""The kinds that take a noise covariance, and whether they need one."""


@without_autocast
def rdm(
    x: Array,
    kind: Literal[
        "euclidean",
        "sqeuclidean",
        "correlation",
        "cosine",
        "mahalanobis",
        "sqmahalanobis",
        "crossnobis",
    ] = "euclidean",
    *,
    noise: Array | None = None,
    repeats: int | None = None,
) -> Array:
    """Representational dissimilarity matrix: how far every two samples are from each other.

    >>> import numpy as np, repsim
    >>> repsim.rdm(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])).round(3).tolist()
    [[0.0, 5.0, 1.0], [5.0, 0.0, 4.243], [1.0, 4.243, 0.0]]
    >>> x, y = np.random.default_rng(0).standard_normal((2, 30, 5))
    >>> same = repsim.rsa_from_rdm(repsim.rdm(x), repsim.rdm(y))
    >>> bool(np.isclose(same, repsim.rsa(x, y)))
    True
    >>> noise = np.random.default_rng(1).standard_normal((200, 2, 50))  # two repeats, no signal
    >>> biased = repsim.rdm(noise.mean(axis=1), "sqeuclidean") / 50
    >>> unbiased = repsim.rdm(noise, "crossnobis", repeats=2)
    >>> bool(biased.mean() > 0.9), bool(abs(unbiased.mean()) < 0.05)
    (True, True)

    ::

        euclidean      D_ij = ‖x_i − x_j‖
        sqeuclidean    D_ij = ‖x_i − x_j‖²
        correlation    D_ij = 1 − r(x_i, x_j), over the features of two samples
        cosine         D_ij = 1 − x_i·x_j/(‖x_i‖‖x_j‖)
        mahalanobis    D_ij = √(δᵀΣ⁻¹δ),   δ = x_i − x_j, Σ the covariance of the noise
        sqmahalanobis  D_ij = δᵀΣ⁻¹δ
        crossnobis     D_ij = Σ_{a≠b} δ_aᵀΣ⁻¹δ_b / (r(r − 1)p),   δ_a = x_ia − x_ja of repeat a

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...); "crossnobis": (n, repeats, p) or (n, repeats, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    kind : str, default "euclidean"
        The dissimilarity of two samples, one of the seven above.
    noise : array, shape (p, p) or (p,), optional
        Σ: covariance of the features' noise, or their variances if the noise is independent.
        "mahalanobis" and "sqmahalanobis" need it; "crossnobis" takes the identity without it; the
        other kinds do not take it. Same framework and device as ``x``.
    repeats : int, optional
        r ≥ 2: how often each sample was measured. Only for "crossnobis", which needs it.

    Returns
    -------
    array, shape (n, n)
        In the units of x ("euclidean"), in their square ("sqeuclidean", and "crossnobis" without
        noise), or without unit. Not negative, except for "crossnobis"; at most 2 for "correlation"
        and "cosine". Symmetric, with a diagonal of exact zeros. Same namespace and device as ``x``,
        differentiable where it is; float32 for half precision and float32, float64 for float64 and
        integers. A labelled array (xarray) gives a labelled one: the first dimension has the labels
        of the samples, which :func:`rsa_from_rdm` compares.

    Raises
    ------
    ArrayTypeError
        Not an array, or ``noise`` of another framework or device.
    InputError
        Fewer than 2 samples, one-dimensional or empty input, NaN or infinity (``NonFiniteError``),
        unknown kind, a noise covariance that is not symmetric, not positive definite or of another
        size, fewer than 2 repeats, an axis 1 of another length than ``repeats``.

    Warns
    -----
    DegenerateWarning
        If a sample is zero in all features ("cosine") or the same in all ("correlation"): its
        dissimilarities to others are NaN. If squares are outside the range of the dtype: these
        dissimilarities are NaN.

    Notes
    -----
    The Euclidean RDM is invariant to orthogonal maps and translation, the cosine RDM to orthogonal
    maps and scale, the correlation RDM to scale and adding one number to all features, the
    Mahalanobis RDM to translation. Measurement noise makes all of these larger. The crossnobis RDM
    multiplies differences from independent repeats, so noise averages to zero: it is unbiased, its
    entries may be negative, and zero means that two samples do not differ. Noise must be
    independent between the repeats. rsatoolbox divides its "euclidean" and "mahalanobis", which are
    squared, by p too.

    Digits are kept where samples share a large mean or have nearly the same direction. The
    derivative of a distance of zero is set to zero. Computed in float64 where the device has it.
    Cost O(n² p), times r + 1 for r repeats, and O(p³) with a covariance; memory O(n²).

    References
    ----------
    Kriegeskorte, Mur, Bandettini 2008, "Representational similarity analysis", Frontiers in
    Systems Neuroscience 2:4. Walther, Nili, Ejaz, Alink, Kriegeskorte, Diedrichsen 2016,
    "Reliability of dissimilarity measures for multi-voxel pattern analysis", NeuroImage 137, for
    crossnobis.
    """
    require_choice("rdm", "kind", kind, RDMS)
    r = require_repeats("rdm", kind, repeats)
    (plain,) = unlabelled("rdm", {"x": x})
    covariance = _covariance(kind, noise)
    arrays = {"x": plain} if covariance is None else {"x": plain, "noise": covariance}
    xp = namespace("rdm", **arrays)
    if r > 1:
        require_repeat_axis("rdm", "x", plain, r)
    a = as_samples("rdm", xp, plain, "x", min_samples=2, why="a dissimilarity matrix")
    check_finite("rdm", xp, a, "x")
    d = _angular(xp, a, kind) if kind in NO_DIRECTION else _distances(xp, a, kind, r, covariance)
    d = (d + xp.matrix_transpose(d)) / 2  # products may round the two halves in two ways
    out: Array = labelled_like(x, xp.astype(d, a.dtype, copy=False))
    return out


def _covariance(kind: str, noise: Any) -> Any:
    """Return the noise without labels if this kind takes it, or raise."""
    if noise is None:
        if NOISE.get(kind):
            raise InputError(
                f"rdm: {kind!r} needs the covariance of the noise.\n"
                f"  got noise=None\n"
                f"  Pass noise=, (p, p) or (p,), for example the covariance of the residuals of "
                f"repeated measurements."
            )
        return None
    if kind not in NOISE:
        raise InputError(
            f"rdm: {kind!r} takes no noise covariance.\n"
            f"  got noise={got(noise)}\n"
            f"  Expected with one of {', '.join(map(repr, NOISE))}."
        )
    return unlabelled("rdm", {"noise": noise})[0]


def _angular(xp: Namespace, a: Array, kind: str) -> Array:
    """Return 1 − cos or 1 − r, NaN for rows without a direction."""
    d, missing = angular(a, kind)
    if known(xp.any(missing)):
        warn(
            f"rdm: x {NO_DIRECTION[kind]}, so its dissimilarities are undefined and NaN is "
            f"returned for them.",
            DegenerateWarning,
        )
    rows = xp.arange(a.shape[0], device=device(a))
    other = rows[:, None] != rows[None, :]
    out: Array = xp.where(
        other & (missing | xp.matrix_transpose(missing)), xp.full_like(d, float("nan")), d
    )
    return out


def _distances(xp: Namespace, a: Array, kind: str, repeats: int, noise: Array | None) -> Array:
    """Return distances or squared distances, averaged over pairs of repeats where there are any."""
    z = as_repeats("rdm", xp, wide(xp, a), "x", repeats)
    r, n, p = z.shape
    # If the samples share a large mean, only their differences remain.
    z, scale = unit_scale(xp, z - z[:, :1, :])
    if noise is not None:
        flat, factor = in_units_of_noise("rdm", xp, xp.reshape(z, (r * n, p)), noise)
        z, scale = xp.reshape(flat, (r, n, p)), scale * factor
    if kind == "crossnobis":
        d = crossvalidated(xp, z) / (r * (r - 1) * p)
    else:
        values = without_float64(z[0, ...])
        if values is None:
            d = squared_distances(xp, z[0, ...])
        else:
            d = placed(squared_distances(np, values.astype(np.float64)), z)
    if kind not in SQUARED:
        return root(xp, d) * scale
    there = xp.abs(d) > 0
    exponent = xp.log2(xp.where(there, xp.abs(d), xp.ones_like(d))) + 2 * xp.log2(scale)
    most, least = (math.log2(float(getattr(xp.finfo(a.dtype), e))) for e in ENDS)
    lost = there & ((exponent >= most) | (exponent < least))
    if known(xp.any(lost)):
        warn(
            f"rdm: the squares of distances of x are outside the range of {a.dtype}, so NaN is "
            f"returned for them. Multiply x by a power of two.",
            DegenerateWarning,
        )
    squared = xp.where(lost, xp.zeros_like(d), d) * scale * scale
    out: Array = xp.where(lost, xp.full_like(d, float("nan")), squared)
    return out
