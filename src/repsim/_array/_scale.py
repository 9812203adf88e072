"""Scaling by powers of two, so features of size 1e±15 do not overflow a product of four factors."""

from __future__ import annotations

from repsim._typing import Array, Namespace

__all__ = ["unit_scale"]


def unit_scale(xp: Namespace, x: Array) -> tuple[Array, Array]:
    """Split ``x`` into ``(x / s, s)`` with ``max|x / s|`` in [1, 2), ``s`` a power of two.

    Dividing by a power of two changes no digit. The floor has a zero gradient, so automatic
    differentiation treats ``s`` as a constant. This is right for a scale-invariant measure.
    """
    largest = xp.max(xp.abs(x))
    usable = (largest > 0) & xp.isfinite(largest)
    exponent = xp.floor(xp.log2(xp.where(usable, largest, xp.ones_like(largest))))
    scale = xp.pow(xp.full_like(exponent, 2.0), exponent)
    return x / scale, scale
