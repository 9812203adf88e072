"""Kernels between two blocks of rows, for Grams that are never in memory as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from repsim._errors import BandwidthError, InputError
from repsim.arrays import row_blocks, to_numpy, unit_scale
from repsim.kernels import RBF, Cosine, Kernel, Laplacian, Linear, Polynomial
from repsim.streaming.exact._columns import ColumnStats, scaled_about
from repsim.streaming.exact._sources import Floats, Source
from repsim.streaming.exact._work import Work

__all__ = [
    "PILOT_ROWS",
    "LayerKernel",
    "Rows",
    "bandwidth",
    "follows_data",
    "require_blockwise",
]

PILOT_ROWS = 2048
"""The most rows from which a bandwidth is computed. Up to this number of samples it is that of all
data."""

BLOCKWISE = (Linear, Polynomial, Cosine, RBF, Laplacian)


class Rows(NamedTuple):
    """Prepared rows of a layer, and half of their squared norms if the kernel needs them."""

    x: Floats
    halves: Floats | None


def require_blockwise(operation: str, kernel: Kernel) -> None:
    """Raise if the kernel is not one of ours, because it must be known between any two samples."""
    if type(kernel) not in BLOCKWISE:
        raise InputError(
            f"{operation}: the kernel must be one of repsim.kernels, because blocks of its Gram "
            f"are computed apart.\n"
            f"  expected one of {', '.join(k.__name__ for k in BLOCKWISE)}\n"
            f"  got {kernel!r}\n"
            f"  Use repsim.cka on samples that fit in memory, or repsim.MinibatchCKA."
        )
    if kernel.precision != "highest":  # type: ignore[attr-defined]
        raise InputError(
            f"{operation}: products are made by the processor, in the precision of the features.\n"
            f"  got {kernel!r}\n"
            f"  Leave precision out; repsim.MinibatchCKA and repsim.compare have the option."
        )


def follows_data(kernel: Kernel) -> bool:
    """Whether a bandwidth must still be computed from the data."""
    return isinstance(kernel, RBF | Laplacian) and kernel.sigma is None


@dataclass
class LayerKernel:
    """The kernel of one layer: it prepares rows and computes kernel values of two blocks.

    It is small and can be sent to other processes.
    """

    kernel: Kernel
    label: str
    p: int
    dtype: np.dtype[Any]
    shift: Floats
    rest: Floats
    scale: float
    """(x − shift) − rest, divided by ``scale``, is what the kernel gets; that of radial kernels is
    divided by the bandwidth. Of the cosine, ``shift`` is subtracted from unit vectors."""
    power_scale: float = 1.0
    sigma: float = float("nan")
    least: float = 0.0
    """A bandwidth below this one gives zeros and ones, and would overflow the squares."""

    @classmethod
    def of(
        cls, kernel: Kernel, source: Source, stats: ColumnStats, dtype: np.dtype[Any], work: Work
    ) -> LayerKernel:
        """Return the kernel of a layer; a bandwidth that follows the data is set later."""
        shift, rest, scale = stats.shift, stats.rest, stats.scale
        power, sigma, least = 1.0, float("nan"), 0.0
        if isinstance(kernel, RBF | Laplacian):
            # Subtract the sample nearest to the mean: one outlier moves the mean away from the
            # data, and |a|² + |b|² − 2a·b loses its digits far from the origin.
            nearest = int(np.argmin(stats.squares))
            shift = work.read([(source, slice(nearest, nearest + 1))])[0][0].astype(dtype)
            rest, scale = np.zeros(1, dtype), 1.0
            reach = 2 * np.sqrt(stats.squares.max()) * stats.scale
            least = 4 * reach / np.sqrt(float(np.finfo(dtype).max))
            if kernel.sigma is not None:
                sigma = float(to_numpy(kernel.sigma))
        elif isinstance(kernel, Polynomial):
            power = _power_scale(kernel, stats, source.p)
        elif isinstance(kernel, Cosine):
            # HSIC does not depend on it, and cosines far from the origin are all near 1.
            mean = shift.astype(np.float64) + rest
            mean /= np.abs(mean).max() or 1.0
            shift = (mean / (np.linalg.norm(mean) or 1.0)).astype(dtype)
        return cls(kernel, source.label, source.p, dtype, shift, rest, scale, power, sigma, least)

    def prepared(self, raw: Floats) -> Rows:
        """Prepare rows (b, p) once for all blocks that they are multiplied with."""
        if isinstance(self.kernel, Linear):
            return Rows(scaled_about(raw, self.shift, self.rest, self.scale, self.dtype), None)
        if isinstance(self.kernel, RBF | Laplacian):
            # a·b − |a|²/2 − |b|²/2 is then the exponent of RBF, and minus its square of Laplacian.
            unit = max(self.sigma, self.least) / (1 if isinstance(self.kernel, RBF) else 2**0.5)
            x = scaled_about(raw, self.shift, self.rest, unit, self.dtype)
            halves = np.einsum("ij,ij->i", x, x)
            halves *= 0.5
            return Rows(x, halves)
        x = raw.astype(self.dtype, copy=False)
        if isinstance(self.kernel, Cosine):
            largest = np.abs(x).max(axis=1, keepdims=True)
            x = x / np.where(largest > 0, largest, np.nan)  # a row of zeros has no direction
            x /= np.linalg.norm(x, axis=1, keepdims=True)
            x -= self.shift
        return Rows(x, None)

    def block(self, a: Rows, b: Rows, *, same: bool) -> Floats:
        """Return the kernel values (i, j) of two blocks of rows."""
        k: Floats = a.x @ b.x.T
        for part in row_blocks(k):
            self.of_products(k, part, a, b, same=same)
        return k

    def of_products(self, k: Floats, part: slice, a: Rows, b: Rows, *, same: bool) -> None:
        """Make kernel values of the products of two blocks of rows, in place, for some rows.

        Parameters
        ----------
        k : array, shape (rows of a, rows of b)
            The products; changed in these rows.
        part : slice
            Few rows, which stay in the cache for all steps.
        a, b : Rows
            Both blocks, prepared.
        same : bool
            They are the same block, and the diagonal of ``k`` is that of the Gram.
        """
        kernel, some = self.kernel, k[part]
        if isinstance(kernel, Polynomial):
            gamma = 1.0 / self.p if kernel.gamma is None else kernel.gamma
            some *= gamma / self.power_scale
            some += kernel.coef0 / self.power_scale
            np.power(some, int(kernel.degree), out=some)
        if isinstance(kernel, RBF | Laplacian):
            assert a.halves is not None
            assert b.halves is not None
            if same:  # never nearer than other pairs below
                np.fill_diagonal(k[part, part], -np.inf)
            self._radial(some, a.halves[part], b.halves)
            if same:
                np.fill_diagonal(k[part, part], 1)

    def _radial(self, k: Floats, a: Floats, b: Floats) -> None:
        """Make kernel values of products, in place, with half of the squared norms of both sides.

        Each step reads and writes all entries, so there are as few as possible.
        """
        k -= a[:, None]
        k -= b
        unit = 8 * np.finfo(self.dtype).eps
        # Rows whose distance is below the rounding of the products are duplicates. Most parts have
        # none. (The comparisons have these directions because they are false for NaN, and NaN must
        # stay NaN.)
        if not k.max() < -unit * (a.max() + b.max()):
            np.copyto(k, 0, where=k >= -unit * (a[:, None] + b))
        if isinstance(self.kernel, Laplacian):
            np.negative(k, out=k)
            np.sqrt(k, out=k)
            np.negative(k, out=k)
        np.exp(k, out=k)


def bandwidth(rows: Floats, kernel: Kernel, dtype: np.dtype[Any], label: str) -> float:
    """Compute the bandwidth from these rows (m, p), as ``repsim.cka`` does from all rows."""
    # The square of 1e-23 is 0 in float32.
    scaled, scale = unit_scale(np, rows.astype(dtype, copy=False))
    try:
        fitted: Any = kernel.fit(scaled)
    except BandwidthError as error:
        raise error.named("cka_matrix", label) from None
    return float(to_numpy(fitted.sigma)) * float(scale)


def _power_scale(kernel: Polynomial, stats: ColumnStats, p: int) -> float:
    """A power of two near the largest base, so powers of the scaled base stay in range."""
    gamma = 1.0 / p if kernel.gamma is None else kernel.gamma
    # ‖x‖ ≤ ‖x − mean‖ + ‖mean‖; an upper bound suffices.
    mean = np.linalg.norm(stats.shift.astype(np.float64))
    norm = np.sqrt(stats.squares.max()) * stats.scale + mean
    return float(2.0 ** np.ceil(np.log2(gamma * norm**2 + kernel.coef0 or 1.0)))
