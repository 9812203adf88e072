"""All layer pairs from Grams, one block at a time and without an n×n array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from repsim._errors import NonFiniteError
from repsim.kernels import RBF, Cosine, Laplacian, Linear
from repsim.streaming.exact._kernels import LayerKernel, Rows
from repsim.streaming.exact._sources import Floats, pick, row_slices

__all__ = ["GramBlocks"]

PILOT_COLUMNS = 256
"""Columns of the Gram from which the means of its rows are estimated first."""

CHUNK = 1 << 13
"""Entries of all Grams multiplied at a time; more would lose digits of the sum in float32."""

STATE = ("sums", "row_sums", "means", "scales", "sizes")


class GramBlocks:
    r"""Σ over blocks of Gram entries, for all layer pairs.

    Both estimators are invariant to adding a function of the row or of the column alone. The Gram
    that is summed is therefore K' = K − f_i − f_j with f near the row means. Its row sums r are
    small, so centring by them cancels no digits. With K'_ii = 0 for the unbiased estimator::

        biased     ⟨A, B⟩ = Σ_ij K'L' − 2/n Σ r_i s_i + Σr Σs/n²
        unbiased   ⟨A, B⟩ = Σ_ij K'L' − 2/(n−2) Σ r_i s_i + Σr Σs/((n−1)(n−2))

    One pass over the Gram computes Σ K'L', r and s, from the blocks on and above the diagonal;
    those above count twice.
    """

    def __init__(
        self, layers: Sequence[LayerKernel], lx: int, *, unbiased: bool, rows: int
    ) -> None:
        self.layers, self.lx, self.unbiased = layers, lx, unbiased
        self.n, self.rows = layers[0].source.n, rows
        self.blocks = list(row_slices(self.n, rows))
        self.tasks = [(i, j) for i in range(len(self.blocks)) for j in range(i, len(self.blocks))]
        self.sums = np.zeros((len(layers), len(layers)))
        self.row_sums = np.zeros((len(layers), self.n))
        self.means = np.zeros((len(layers), self.n))
        # A power of two near the entries of each Gram, and the largest entry met, divided by it.
        self.scales = np.ones(len(layers))
        self.sizes = np.zeros(len(layers))

    def start(self, rng: np.random.Generator) -> None:
        """Find f, near the means of the rows of every Gram."""
        count = min(PILOT_COLUMNS, self.rows)
        chosen = np.sort(rng.choice(self.n, count, replace=False))
        for index, (layer, means) in enumerate(zip(self.layers, self.means, strict=True)):
            if isinstance(layer.kernel, Linear):
                # Rows of XcXcᵀ sum to zero, and to −‖x_i‖² without the diagonal.
                if self.unbiased:
                    squares = layer.stats.squares
                    means[:] = -squares / (self.n - 2)
                    means += squares.sum() / (2 * (self.n - 1) * (self.n - 2))
                continue
            pilot = layer.prepared(pick(layer.source, chosen, self.rows))
            largest = 0.0
            with np.errstate(all="ignore"):  # non-finite values show in the sums
                for part in self.blocks:
                    k = layer.block(layer.rows(part), pilot, same=False)
                    if self.unbiased:  # the diagonal is not summed
                        k[part.start + np.arange(len(k))[:, None] == chosen] = 0
                    means[part] = k.mean(axis=1, dtype=np.float64)
                    largest = max(largest, _largest(k))
            if 0 < largest < np.inf and not 2**-20 < largest < 2**20:
                self.scales[index] = 2.0 ** np.floor(np.log2(largest))
            means /= self.scales[index]
            means -= means.mean() / 2

    def state(self) -> dict[str, Floats]:
        """Return all sums that tasks add to, and the estimates that they start from."""
        return {name: getattr(self, name) for name in STATE}

    def restore(self, state: dict[str, Floats]) -> None:
        """Restore what ``state`` returned."""
        for name in STATE:
            setattr(self, name, state[name])

    def run(self, task: int) -> None:
        """Add one pair of blocks of rows."""
        i, j = self.tasks[task]
        a, b = self.blocks[i], self.blocks[j]
        flat = np.empty(
            (len(self.layers), (a.stop - a.start) * (b.stop - b.start)), self.layers[0].dtype
        )
        with np.errstate(all="ignore"):  # non-finite values are reported with the name of the layer
            for index, layer in enumerate(self.layers):
                self._fill(index, layer, a, b, flat[index])
            self._multiply(flat, 1.0 if i == j else 2.0)
        self._check(a, b)

    def _fill(self, index: int, layer: LayerKernel, a: slice, b: slice, out: Floats) -> None:
        left: Rows = layer.rows(a)
        k = layer.block(left, left if a == b else layer.rows(b), same=a == b)
        if self.scales[index] != 1:
            k *= 1 / self.scales[index]
        if a == b and self.unbiased:
            np.fill_diagonal(k, 0)
        if not isinstance(layer.kernel, Linear):
            self.sizes[index] = max(self.sizes[index], _largest(k))
        means = self.means[index].astype(k.dtype)
        if self.unbiased or not isinstance(layer.kernel, Linear):
            k -= means[a, None]
            k -= means[None, b]
        if a == b and self.unbiased:
            np.fill_diagonal(k, 0)
        if not isinstance(layer.kernel, Linear):  # whose row sums are now zero
            self.row_sums[index, a] += k.sum(axis=1)
            if a != b:
                self.row_sums[index, b] += k.sum(axis=0)
        out[:] = k.reshape(-1)

    def _multiply(self, flat: Floats, weight: float) -> None:
        lx = self.lx
        total = np.zeros_like(self.sums)
        for start in range(0, flat.shape[1], CHUNK):  # summed in float64
            part = flat[:, start : start + CHUNK]
            if lx == len(self.layers):
                total += part @ part.T
            else:
                total[:lx, lx:] += part[:lx] @ part[lx:].T
                own = np.einsum("ij,ij->i", part, part)
                np.fill_diagonal(total, np.diagonal(total) + own)
        self.sums += weight * total

    def _check(self, a: slice, b: slice) -> None:
        for index in np.flatnonzero(~np.isfinite(np.diagonal(self.sums)))[:1]:
            source = self.layers[index].source
            raise NonFiniteError(
                f"{source.operation}: the Gram of {source.label} is not finite.\n"
                f"  kernel {self.layers[index].kernel!r}, rows {a.start}-{a.stop - 1} with "
                f"{b.start}-{b.stop - 1}\n"
                f"  A row of zeros has no cosine; large features overflow a power: divide them by "
                f"their size first."
            )

    def traces(self) -> Floats:
        """Return tr(Kc) of every layer, (L,), in the units of ``products``; NaN if unknown."""
        kernels = [layer.kernel for layer in self.layers]
        linear = [isinstance(kernel, Linear) for kernel in kernels]
        of_features = np.array([layer.stats.squares.sum() for layer in self.layers])
        # tr(HKH) = ΣK_ii − ΣK/n; only of these kernels is the diagonal known: it is 1.
        known = [isinstance(kernel, RBF | Laplacian | Cosine) for kernel in kernels]
        total = self.row_sums.sum(axis=1) + 2 * self.n * self.means.sum(axis=1)
        of_grams = np.where(known, self.n / self.scales - total / self.n, np.nan)
        return np.where(linear, of_features, of_grams)

    def products(self) -> Floats:
        """Return ⟨A, B⟩ of the centred Grams, (L, L); zero for pairs that were not requested."""
        n, r = self.n, self.row_sums
        total = r.sum(axis=1)
        # einsum instead of @, because BLAS may split the sum differently and change the bits.
        crossed = np.einsum("ai,bi->ab", r, r)
        if self.unbiased:
            centring = np.outer(total, total) / ((n - 1) * (n - 2)) - 2 / (n - 2) * crossed
        else:
            centring = np.outer(total, total) / n**2 - 2 / n * crossed
        out: Floats = self.sums + centring
        # If the entries of a Gram differ only by rounding, only that rounding remains. (Linear
        # Grams of constant features are exactly zero, because features are centred.)
        rounding = float(np.finfo(self.layers[0].dtype).eps) * self.sizes * n
        selves = np.diagonal(out)
        np.fill_diagonal(out, np.where(selves <= rounding**2, 0.0, selves))
        return out


def _largest(k: Floats) -> float:
    return max(float(k.max()), -float(k.min()))
