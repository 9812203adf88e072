"""The triangular root of a covariance: what all samples so far leave behind; parts join."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from array_api_compat import device, is_numpy_array, is_torch_array

from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, same_home, to_numpy
from repsim.kernels import centre_features
from repsim.measures import Contrasts

__all__ = ["Slices", "Triangle"]

Slices = Sequence[slice]


@dataclass(frozen=True)
class Triangle:
    """R with RᵀR = Σ zzᵀ over samples, z = (x − μ, α − ᾱ), in units of each layer.

    x holds all layers side by side, and α the squared norm ‖x_l − μ_l‖² of each layer. A QR
    decomposition makes R from rows without forming RᵀR, which would square the condition number.
    """

    n: int
    mean: Array  # μ, (P,), not divided
    unit: np.ndarray[Any, Any]  # (L,), powers of two, 0 for layers that are constant so far
    root: Array  # R, (r, P + L), r ≤ P + L: x divided by unit, α by unit²

    @classmethod
    def of(cls, x: Array, cuts: Slices) -> Triangle:
        """Return the triangle of the rows of one batch, (n, P)."""
        xp = array_namespace(x)
        centred = centre_features(xp, x)
        mean = x[0, :] - centred[0, :]
        unit = np.array([_power_of_two(float(xp.max(xp.abs(centred[:, cut])))) for cut in cuts])
        z = centred / _spread(xp, _divisor(unit), cuts, x)
        norms = _by_layer(xp, z * z, cuts)
        root = xp.concat([z, norms - xp.mean(norms, axis=0, keepdims=True)], axis=1)
        return cls(x.shape[0], mean, unit, _shortened(xp, root))

    @classmethod
    def joined(cls, parts: Sequence[Triangle], cuts: Slices) -> Triangle:
        """Return the triangle of the samples of all parts; on the host if their homes differ."""
        return reduce(lambda a, b: a._with(b, cuts), parts)

    def on_host(self) -> Triangle:
        """Return the same as NumPy arrays."""
        return Triangle(self.n, to_numpy(self.mean), self.unit, to_numpy(self.root))

    def contrasts(self, layer: int, cuts: Slices, double: bool) -> Contrasts:
        """Return the columns of a layer in the place of its samples; ``double`` tells the dtype."""
        unit = float(_divisor(self.unit)[layer])
        return Contrasts(
            self.root[:, cuts[layer]],
            array_namespace(self.root).asarray(
                unit, dtype=self.root.dtype, device=device(self.root)
            ),
            self.n - 1,
            float(np.finfo(np.float64 if double else np.float32).eps),
            self.mean[cuts[layer]] / unit,
            self.root[:, self.mean.shape[0] + layer],
        )

    def _with(self, other: Triangle, cuts: Slices) -> Triangle:
        if not same_home(self.root, other.root):
            return self.on_host()._with(other.on_host(), cuts)
        xp = array_namespace(self.root)
        n = self.n + other.n
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.n / n)
        shifts = [_power_of_two(float(xp.max(xp.abs(apart[cut])))) for cut in cuts]
        unit = np.maximum(np.maximum(self.unit, other.unit), shifts)
        moved = [part._about(xp, mean, unit, cuts) for part in (self, other)]
        # Both sides about the common mean: Σ over samples = Σ of each about its own + n_i δδᵀ.
        between = moved[0][1] - moved[1][1]
        row = math.sqrt(self.n * other.n / n) * between[None, :]
        rows = xp.concat([moved[0][0], moved[1][0], row], axis=0)
        return Triangle(n, mean, unit, _shortened(xp, rows))

    def _about(
        self, xp: Namespace, mean: Array, unit: np.ndarray[Any, Any], cuts: Slices
    ) -> tuple[Array, Array]:
        """Return R with α about another mean, in other units, and the mean of (x − mean, α).

        With δ = μ − mean, ‖x − mean‖² = ‖x − μ‖² + 2 δ·(x − μ) + ‖δ‖².
        """
        width = self.mean.shape[0]
        factor = self.unit / _divisor(unit)
        z = self.root[:, :width] * _spread(xp, factor, cuts, self.root)
        delta = (self.mean - mean) / _spread(xp, _divisor(unit), cuts, self.root)
        norms = self.root[:, width:] * xp.asarray(
            factor * factor, dtype=z.dtype, device=device(z)
        ) + 2 * _by_layer(xp, z * delta, cuts)
        level = xp.sum(_by_layer(xp, z * z, cuts), axis=0) / self.n
        level = level + _by_layer(xp, (delta * delta)[None, :], cuts)[0, :]
        return xp.concat([z, norms], axis=1), xp.concat([delta, level])


def _shortened(xp: Namespace, rows: Array) -> Array:
    """Return R of rows = QR where there are more rows than columns."""
    if rows.shape[0] <= rows.shape[1]:
        return rows
    # The namespaces that can leave out Q do so: it costs as much as R.
    if is_numpy_array(rows):
        return np.asarray(np.linalg.qr(rows, mode="r"))
    mode: Any = "r" if is_torch_array(rows) else "reduced"
    out: Array = xp.linalg.qr(rows, mode=mode)[1]
    return out


def _power_of_two(size: float) -> float:
    return math.ldexp(1.0, math.frexp(size)[1] - 1) if size > 0 else 0.0


def _divisor(unit: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(unit > 0, unit, 1.0)


def _spread(xp: Namespace, by_layer: np.ndarray[Any, Any], cuts: Slices, like: Array) -> Array:
    """Return a value of each layer (L,) for each of its columns, (P,)."""
    widths = [cut.stop - cut.start for cut in cuts]
    out: Array = xp.asarray(np.repeat(by_layer, widths), dtype=like.dtype, device=device(like))
    return out


def _by_layer(xp: Namespace, x: Array, cuts: Slices) -> Array:
    """Sum the columns of each layer: (n, P) to (n, L)."""
    out: Array = xp.stack([xp.sum(x[:, cut], axis=1) for cut in cuts], axis=1)
    return out
