"""Sums of two stacks of features about shifts; batches add, and shifts move to the means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from repsim._typing import Array
from repsim.arrays import array_namespace, same_home, to_numpy
from repsim.estimators import unbiased_product

__all__ = ["Cuts", "Moments", "column_slices"]


@dataclass(frozen=True)
class Moments:
    """Sums over samples of two stacks of layers z and w about shifts s and t, all in float64.

    z' = z − s holds all layers side by side, and α_l = ‖z'_l‖² for layer l. Without a second stack,
    w is z.
    """

    n: int
    shift_z: Array  # (P,)
    shift_w: Array  # (Q,)
    z: Array  # Σ z', (P,)
    w: Array  # Σ w', (Q,)
    zw: Array  # Σ z' w'ᵀ, (P, Q)
    a: Array  # Σ α, (Lz,)
    b: Array  # Σ β, (Lw,)
    ab: Array  # Σ α β, (Lz, Lw)
    aw: Array  # Σ α w'ᵀ, (Lz, Q)
    zb: Array  # Σ z' βᵀ, (P, Lw)

    @classmethod
    def of(cls, z: Array, w: Array, shift_z: Array, shift_w: Array, cuts: Cuts) -> Moments:
        """Return the sums over the rows of one batch."""
        xp = array_namespace(z)
        same = w is z
        z = z - shift_z
        w = z if same else w - shift_w
        a = _by_layer(z * z, cuts.z)
        b = a if same else _by_layer(w * w, cuts.w)
        across, norms = xp.matrix_transpose(z), xp.matrix_transpose(a)
        return cls(
            z.shape[0],
            shift_z,
            shift_w,
            xp.sum(z, axis=0),
            xp.sum(w, axis=0),
            across @ w,
            xp.sum(a, axis=0),
            xp.sum(b, axis=0),
            norms @ b,
            norms @ w,
            across @ b,
        )

    def plus(self, other: Moments, cuts: Cuts) -> Moments:
        """Return the sums over the samples of both, about the shifts of this one."""
        if not same_home(self.zw, other.zw):
            return self.on_host().plus(other.on_host(), cuts)
        if other.shift_z is not self.shift_z or other.shift_w is not self.shift_w:
            other = other.about(self.shift_z, self.shift_w, cuts)
        summed = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name not in ("shift_z", "shift_w")
        }
        return Moments(**summed, shift_z=self.shift_z, shift_w=self.shift_w)

    def about(self, shift_z: Array, shift_w: Array, cuts: Cuts) -> Moments:
        """Return the sums about other shifts: z'' = z' + δ, α'' = α + 2 δ·z' + ‖δ‖²."""
        n = self.n
        d, e = self.shift_z - shift_z, self.shift_w - shift_w  # δ (P,) and ε (Q,)
        dd, ee = _by_layer(d * d, cuts.z), _by_layer(e * e, cuts.w)
        dz, ew = _by_layer(d * self.z, cuts.z), _by_layer(e * self.w, cuts.w)
        d_zw = _by_row(d[:, None] * self.zw, cuts.z)  # Σ (δ·z') w'ᵀ, (Lz, Q)
        zw_e = _by_layer(self.zw * e, cuts.w)  # Σ z' (ε·w'), (P, Lw)
        # α'' and β'' before their products with the shifted features
        ab = (
            self.ab
            + 2 * _by_layer(self.aw * e, cuts.w)
            + self.a[:, None] * ee
            + 2 * _by_row(d[:, None] * self.zb, cuts.z)
            + 4 * _by_layer(d_zw * e, cuts.w)
            + 2 * dz[:, None] * ee
            + dd[:, None] * (self.b + 2 * ew + n * ee)
        )
        a = self.a + 2 * dz + n * dd
        b = self.b + 2 * ew + n * ee
        aw = self.aw + 2 * d_zw + dd[:, None] * self.w + a[:, None] * e
        zb = self.zb + 2 * zw_e + self.z[:, None] * ee + d[:, None] * b
        zw = self.zw + d[:, None] * self.w + self.z[:, None] * e + n * d[:, None] * e
        return Moments(n, shift_z, shift_w, self.z + n * d, self.w + n * e, zw, a, b, ab, aw, zb)

    def on_host(self) -> Moments:
        """Return the same sums as NumPy arrays."""
        return Moments(
            self.n, *(to_numpy(getattr(self, f.name)) for f in fields(self) if f.name != "n")
        )

    def traces(self, cuts: Cuts) -> np.ndarray[Any, Any]:
        """Return Σ ‖z − z̄‖² of every layer, (Lz,)."""
        here = self.on_host()
        return to_numpy(here.a - _by_layer(here.z * here.z, cuts.z) / here.n)

    @staticmethod
    def all_traces(moments: Sequence[Moments], cuts: Sequence[Cuts]) -> np.ndarray[Any, Any]:
        """Return the traces of several, one after the other."""
        return np.concatenate([one.traces(c) for one, c in zip(moments, cuts, strict=True)])

    def products(self, cuts: Cuts, *, unbiased: bool) -> np.ndarray[Any, Any]:
        """Return ⟨A, B⟩ of the centred Grams of all layer pairs, (Lz, Lw)."""
        here = self.on_host()
        n = here.n
        about = here.about(here.shift_z + here.z / n, here.shift_w + here.w / n, cuts)
        total = _by_row(_by_layer(to_numpy(about.zw) ** 2, cuts.w), cuts.z)
        if unbiased:
            total = unbiased_product(n, total, about.ab, about.a[:, None], about.b)
        return to_numpy(total)


@dataclass(frozen=True)
class Cuts:
    """Where the layers of the two stacks start and end."""

    z: tuple[slice, ...]
    w: tuple[slice, ...]


def column_slices(widths: Sequence[int]) -> tuple[slice, ...]:
    """Where each layer lies among the columns of all layers side by side."""
    ends = np.cumsum(widths).tolist()
    return tuple(slice(e - p, e) for e, p in zip(ends, widths, strict=True))


def _by_layer(x: Array, cuts: tuple[slice, ...]) -> Any:
    """Sum the columns of each layer: (..., P) to (..., L)."""
    xp = array_namespace(x)
    return xp.stack([xp.sum(x[..., cut], axis=-1) for cut in cuts], axis=-1)


def _by_row(x: Array, cuts: tuple[slice, ...]) -> Any:
    """Sum the rows of each layer: (P, m) to (L, m)."""
    xp = array_namespace(x)
    return xp.stack([xp.sum(x[cut, :], axis=0) for cut in cuts], axis=0)
