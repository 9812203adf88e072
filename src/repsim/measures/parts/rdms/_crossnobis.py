"""Squared distances between samples from independent repeats, whose noise averages to zero."""

from __future__ import annotations

from typing import Any

from repsim._errors import InputError
from repsim._options import as_count, got
from repsim._typing import Array, Namespace
from repsim.kernels import squared_distances

__all__ = ["as_repeats", "crossvalidated", "require_repeat_axis", "require_repeats"]


def require_repeats(operation: str, kind: str, repeats: Any) -> int:
    """Return the number of repeats that a crossvalidated distance needs, 1 for others, or raise."""
    if kind == "crossnobis":
        if repeats is None:
            raise InputError(
                f"{operation}: 'crossnobis' needs repeated measurements.\n"
                f"  got repeats=None\n"
                f"  Pass x as (n, repeats, p) and repeats= their number."
            )
        return as_count(operation, "repeats", repeats, least=2)
    if repeats is not None:
        raise InputError(
            f"{operation}: only 'crossnobis' takes repeats.\n"
            f"  got repeats={repeats!r} with {kind!r}\n"
            f"  Average the repeats for the other dissimilarities."
        )
    return 1


def require_repeat_axis(operation: str, name: str, x: Any, repeats: int) -> None:
    """Raise if the second axis of an array is not that of the repeats."""
    shape = tuple(getattr(x, "shape", ()))
    if len(shape) < 3 or shape[1] != repeats:
        more = (
            "\n  A model has no repeats. Compare RDMs: repsim.rsa_from_rdm(repsim.rdm(model, "
            f"'sqeuclidean'), repsim.rdm(recordings, 'crossnobis', repeats={repeats}))."
        )
        if operation == "rdm":
            more = ""
        raise InputError(
            f"{operation}: {name} must hold {repeats} repeats.\n"
            f"  expected (n, {repeats}, p)\n"
            f"  got {got(x)}\n"
            f"  Stack the repeats along axis 1: numpy.stack([first, second], axis=1).{more}"
        )


def as_repeats(operation: str, xp: Namespace, x: Array, name: str, repeats: int) -> Array:
    """Return ``x`` (n, repeats · p) as (repeats, n, p), or raise."""
    n, width = x.shape
    if width % repeats:
        raise InputError(
            f"{operation}: {name} must hold {repeats} repeats, (n, {repeats}, p).\n"
            f"  {name}: {n} samples of {width} numbers each, which {repeats} does not divide\n"
            f"  The second axis is that of the repeats."
        )
    out: Array = xp.permute_dims(xp.reshape(x, (n, repeats, width // repeats)), (1, 0, 2))
    return out


def crossvalidated(xp: Namespace, z: Array) -> Array:
    """Return Σ_{a≠b} (z_ai − z_aj)·(z_bi − z_bj) of all samples of ``z`` (r, n, p): (n, n).

    Equal to ‖Σ_a δ_a‖² − Σ_a ‖δ_a‖² with δ the difference of two samples.
    """
    out = squared_distances(xp, xp.sum(z, axis=0))
    for repeat in range(z.shape[0]):
        out = out - squared_distances(xp, z[repeat, ...])
    return out
