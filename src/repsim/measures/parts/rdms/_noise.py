"""Features in units of their noise: differences multiplied by the inverse root of a covariance."""

from __future__ import annotations

from repsim._errors import InputError
from repsim._typing import Array, Namespace
from repsim.arrays import describe, detached, known, promote, unit_scale

__all__ = ["in_units_of_noise"]

ASYMMETRY = 1e-6
"""A covariance is symmetric up to this share of its largest entry."""


def in_units_of_noise(operation: str, xp: Namespace, z: Array, noise: Array) -> tuple[Array, Array]:
    """Return ``z`` (m, p) in a basis in which the noise is white, and the factor it lacks (0-d).

    With Σ = LLᵀ, the rows of z become L⁻¹z, so that ‖L⁻¹z‖² = zᵀΣ⁻¹z.

    Parameters
    ----------
    operation : str
        For the error.
    xp : namespace
        Of both arrays.
    z : array, shape (m, p)
        Differences of samples, in the dtype to compute in.
    noise : array, shape (p, p) or (p,)
        Covariance of the noise, or its variances if the noise of the features is independent.
    """
    p = z.shape[1]
    if tuple(noise.shape) not in ((p, p), (p,)):
        raise InputError(
            f"{operation}: noise must be the covariance of the {p} features.\n"
            f"  expected ({p}, {p}), or their variances ({p},)\n"
            f"  got {describe('noise', noise)}"
        )
    given = promote(xp, noise, operation, "noise")
    rounding = p * float(xp.finfo(given.dtype).eps)
    if known(xp.all(xp.isfinite(given))) is False:
        raise InputError(
            f"{operation}: noise must be finite.\n"
            f"  {describe('noise', noise)}: some entries are NaN or infinite"
        )
    covariance, scale = unit_scale(xp, xp.astype(given, z.dtype, copy=False))
    root = xp.sqrt(scale)
    if covariance.ndim == 1:
        _require_positive(operation, xp, noise, xp.min(covariance), 0.0)
        return z / xp.sqrt(covariance)[None, :], 1 / root
    values = detached(covariance)
    gap = xp.max(xp.abs(values - xp.matrix_transpose(values)))
    if known(gap > ASYMMETRY):
        raise InputError(
            f"{operation}: noise must be symmetric.\n"
            f"  {describe('noise', noise)}, largest |noise - noiseᵀ| = {float(gap * scale):.3g}\n"
            f"  It is the covariance of the features' noise."
        )
    if known(gap > ASYMMETRY) is not None:  # a compiler would decompose for nothing
        _require_positive(operation, xp, noise, xp.min(xp.linalg.eigvalsh(values)), 2 * rounding)
    lower = xp.linalg.cholesky((covariance + xp.matrix_transpose(covariance)) / 2)
    return xp.matrix_transpose(xp.linalg.solve(lower, xp.matrix_transpose(z))), 1 / root


def _require_positive(
    operation: str, xp: Namespace, noise: Array, least: Array, rounding: float
) -> None:
    if known(least <= rounding):
        raise InputError(
            f"{operation}: noise must be positive definite, and a direction has no noise.\n"
            f"  {describe('noise', noise)}\n"
            f"  With fewer residuals than features the covariance is singular. Shrink it towards "
            f"its diagonal, or pass the variances alone."
        )
