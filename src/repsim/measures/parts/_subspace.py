"""The directions that a representation spans: an orthonormal basis and a rank."""

from __future__ import annotations

import math
from typing import NamedTuple

from array_api_compat import array_namespace, device

from repsim._errors import InputError
from repsim._typing import Array, Namespace
from repsim.arrays import known, unit_scale
from repsim.measures._registry import undefined
from repsim.measures.parts._geometry import contrasts

__all__ = [
    "Spectrum",
    "Subspace",
    "contrast_spectrum",
    "leading",
    "require_share",
    "subspace",
    "unit_columns",
]


class Spectrum(NamedTuple):
    """Left singular vectors (n − 1, r) of contrasts, singular values (r,), which of them count."""

    vectors: Array
    values: Array
    counts: Array


class Subspace(NamedTuple):
    """An orthonormal basis (n − 1, r) of the directions kept, and their number.

    If values can be read, the other columns are cut off. Inside ``jax.jit``, where a shape cannot
    depend on values, they remain and are zero.
    """

    basis: Array
    rank: Array
    defined: Array


def contrast_spectrum(xp: Namespace, z: Array, resolution: float) -> Spectrum:
    """Decompose contrasts (n − 1, p), and count the singular values that are above rounding.

    ``resolution`` is the rounding unit of the data, which may be coarser than that of ``z``. For
    example, a feature that is the sum of two others in float32 must not become a third direction in
    float64.
    """
    vectors, values, _ = xp.linalg.svd(z, full_matrices=False)
    # Rounding errors of the entries sum like a random walk along the longer side.
    floor = 8 * resolution * math.sqrt(max(z.shape)) * values[:1]
    return Spectrum(vectors, values, (values > floor) & (values > 0))


def subspace(
    operation: str,
    name: str,
    x: Array,
    *,
    variance: float | None = None,
    directions: int | None = None,
) -> tuple[Subspace, Array]:
    """Return the span of the centred columns of ``x`` (n, p), or its leading part, and the columns.

    Columns and basis are contrasts, (n − 1, p) and (n − 1, r). Without ``variance`` and
    ``directions`` the basis spans all columns. They are scaled to unit norm first, so a small
    feature is not mistaken for rounding.
    """
    xp = array_namespace(x)
    n = x.shape[0]
    z, _ = contrasts(xp, x)
    whole = variance is None and directions is None
    vectors, values, keep = contrast_spectrum(
        xp, unit_columns(xp, z) if whole else z, float(xp.finfo(x.dtype).eps)
    )
    power = xp.where(keep, values * values, xp.zeros_like(values))
    if variance is not None and variance < 1:
        keep = keep & leading(xp, power, variance)
    if directions is not None:
        keep = keep & (xp.arange(values.shape[0], device=device(values)) < directions)
    rank = xp.sum(xp.astype(keep, values.dtype))
    undefined(operation, name, rank <= 0, "is constant over the samples")
    undefined(
        operation,
        name,
        rank >= n - 1,
        f"spans all {n - 1} dimensions of {n} centred samples, so that every correlation with "
        f"anything is 1 (bring more samples than features, or keep fewer directions with svcca)",
    )
    basis = vectors * xp.astype(keep, vectors.dtype)
    if known(rank > 0) is not None:
        basis = basis[:, : max(1, int(rank))]
    return Subspace(basis, rank, (rank > 0) & (rank < n - 1)), z


def leading(xp: Namespace, power: Array, share: float) -> Array:
    """Mark the first entries of a descending ``power`` (r,) that hold this share of the sum."""
    before = xp.cumulative_sum(power) - power
    # Rounding of the sums must not decide whether an exact share is reached.
    rounding = 8 * float(xp.finfo(power.dtype).eps)
    out: Array = before < (share - rounding) * xp.sum(power)
    return out


def require_share(operation: str, name: str, share: object) -> None:
    """Raise if the value is not a number in (0, 1]."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(
            f"{operation}: {name} must be a number above 0 and up to 1.\n  got {share!r}"
        )


def unit_columns(xp: Namespace, z: Array) -> Array:
    """Scale each column to norm one; a column of zeros stays."""
    z, _ = unit_scale(xp, z, axis=0)  # because the square of 1e-30 is zero in float32
    norm = xp.linalg.vector_norm(z, axis=0)
    out: Array = z / xp.where(norm > 0, norm, xp.ones_like(norm))
    return out
