"""The results of a `MinibatchCKA`: CKA, its standard error, z-scores, and the sums."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import DegenerateWarning, StateError, warn
from repsim._version import __version__
from repsim.arrays import to_numpy, without_autocast
from repsim.estimators import few_digits, warn_of_few_digits
from repsim.kernels import Kernel
from repsim.results import map_of_layers
from repsim.streaming._blocks import BlockSums, cka_of_sums
from repsim.streaming._checks import not_finite, summary
from repsim.streaming._state import State

if TYPE_CHECKING:
    import xarray

__all__ = ["MIN_BATCH", "MinibatchResults"]

MIN_BATCH = 4
"""The unbiased HSIC needs four samples; the weight n(n − 3) of a smaller batch is not positive."""


class MinibatchResults:
    """The results of minibatch CKA, from the kernel and the accumulated sums."""

    kernel: Kernel
    _state: State

    @property
    def layers_x(self) -> list[str]:
        """The layers of x, in the order of the first batch."""
        return list(self._state.layers_x)

    @property
    def layers_y(self) -> list[str] | None:
        """The layers of y; None if x is compared with itself."""
        return None if self._state.layers_y is None else list(self._state.layers_y)

    @property
    def n_samples(self) -> int:
        """Samples accumulated."""
        return self._state.n_samples

    __repr__ = summary

    @property
    def n_batches(self) -> int:
        """Batches accumulated."""
        return self._state.n_batches

    @property
    def n_skipped_batches(self) -> int:
        """Batches of fewer than four samples."""
        return self._state.n_skipped_batches

    @property
    def n_skipped_samples(self) -> int:
        """Samples in the batches of fewer than four."""
        return self._state.n_skipped_samples

    @without_autocast
    def compute(self) -> xarray.DataArray:
        """Return the CKA of every layer of x with every layer of y.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, in [−1, 1]; coordinates are the layer names in the order of the first batch;
            ``attrs`` hold estimator, kernel, precision, n_samples, n_batches, n_skipped_batches,
            n_skipped_samples and repsim_version.

        Raises
        ------
        StateError
            If there was no batch of at least four samples.
        NonFiniteError
            If a layer was not finite on an accelerator; the message names layer and batch, and
            ``partial`` holds the result, with NaN for those layers.

        Warns
        -----
        RepsimWarning
            If batches of fewer than four samples were skipped, or if the entries of the Grams of a
            layer differ in so few digits that their rounding counts, as in :func:`repsim.cka`.
        DegenerateWarning
            If a layer is constant within every batch, or so small that the squares of its features
            vanish; its row is NaN. Multiply such features by a power of two.
        """
        self._require("compute")
        state = self._state
        total = state.blocks.total()
        values = cka_of_sums(total)
        sides = [("x", state.layers_x, to_numpy(total.xx))]
        if state.layers_y is not None:
            sides.append(("y", state.layers_y, to_numpy(total.yy)))
        for side, layers, selves in sides:
            constant = [name for name, own in zip(layers, selves, strict=True) if own == 0]
            if constant:
                warn(
                    f"MinibatchCKA: constant over the samples of every batch, or below 1e-18 "
                    f"(1e-76 in float64), where squares vanish, so its CKA is undefined (NaN): "
                    f"{side} {', '.join(map(repr, constant))}.",
                    DegenerateWarning,
                )
        few = [
            f"{side} {name!r}"
            for side, layers, selves in sides
            for name, is_few in zip(
                layers, few_digits(selves, to_numpy(state.rounding[side])), strict=True
            )
            if is_few
        ]
        warn_of_few_digits("MinibatchCKA", few, self.kernel)
        result = self._labelled(values, "cka")
        for side, layers, _ in sides:
            if side in state.first_bad:
                first = to_numpy(state.first_bad[side])
                names = [name for name, b in zip(layers, first, strict=True) if np.isfinite(b)]
                if names:
                    error = not_finite("MinibatchCKA.compute", side, names, int(first.min()))
                    error.partial = result.to_dataset()
                    raise error
        if self.n_skipped_batches:
            warn(
                f"MinibatchCKA: {self.n_skipped_batches} batch(es) of fewer than {MIN_BATCH} "
                f"samples ({self.n_skipped_samples} samples in all) were left out.",
            )
        return result

    @without_autocast
    def standard_error(self) -> xarray.DataArray:
        """Return the delete-one-batch jackknife standard error of :meth:`compute`.

        ::

            SE = √((k − 1)/k · Σ_b (θ₍₋b₎ − θ̄)²)

        with k batches and θ₍₋b₎ the CKA without batch b; an interval is θ ± t_{k−1} SE. Beyond 128
        batches, blocks of 2, 4, 8, ... adjacent batches are left out instead, which bounds the
        memory. The number of blocks k is in ``attrs["n_blocks"]``.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, at least zero; NaN (and a ``RepsimWarning``) for a single batch.

        Raises
        ------
        StateError
            If there was no batch of at least four samples.

        Warns
        -----
        DegenerateWarning
            If a layer varies in one block of batches alone: without it there is no CKA, so the
            standard errors of this layer are NaN.
        """
        self._require("standard_error")
        state = self._state
        blocks = state.blocks
        if len(blocks.blocks) < 2:
            warn(
                "MinibatchCKA.standard_error: one batch has no spread; NaN is returned. Use "
                "smaller batches to get several.",
            )
        else:
            sides = zip("xy", state.layers, blocks.in_one_block(), strict=True)
            for side, layers, lone in sides:
                if layers is None:
                    continue
                if names := [name for name, one in zip(layers, lone, strict=True) if one]:
                    warn(
                        f"MinibatchCKA.standard_error: constant over the samples of all batches "
                        f"but those of one block, so the standard error is NaN: {side} "
                        f"{', '.join(map(repr, names))}.",
                        DegenerateWarning,
                    )
        out = self._labelled(blocks.jackknife(), "standard_error")
        out.attrs["n_blocks"] = len(blocks.blocks)
        return out

    @without_autocast
    def z_scores(self) -> xarray.DataArray:
        """Return by how many standard deviations each CKA exceeds chance.

        ::

            z = Σ_b w_b h_b(x, y) / √(Σ_b Var_b),   Var_b = 2 ‖A_b‖² ‖B_b‖² / (n_b(n_b − 3))

        Var_b is the variance of w_b h_b(x, y) = ⟨A_b, B_b⟩ over all permutations of y's samples
        within batch b. It is exact for any data, and the mean is zero. Batches are permuted
        independently. The formula needs no permutations; the cost is one more (Lx, Ly) matrix.

        Returns
        -------
        xarray.DataArray, dims ("layer_x", "layer_y")
            float64, without unit, around 0 for independent layers; NaN for a constant layer.

        Raises
        ------
        StateError
            If there was no batch of at least four samples.

        Notes
        -----
        The samples of a batch must be exchangeable. Several crops or tokens of one image are not,
        and they make z too large. Over many batches, z of independent layers is close to normal.
        Over few batches it is skewed to the right, so large values are less rare. The probability
        of z > 3 is at most 1/(1 + 9) (Cantelli). It is about 2 % for one batch of layers with one
        direction each. A map has many entries; for an error rate of the whole map use
        :func:`repsim.max_t`.

        z measures evidence and grows with the number of samples. :meth:`compute` measures how alike
        two layers are, and :meth:`standard_error` how precise this value is.

        References
        ----------
        Song et al. 2012, JMLR 13, Eq. 5; Székely, Rizzo 2014, for the U-centred Grams A, B.
        """
        self._require("z_scores")
        assert self._state.null_sd is not None, "a batch has been added"
        sd, sums = to_numpy(self._state.null_sd), to_numpy(self._state.blocks.total().xy)
        values = np.full(sd.shape, np.nan)
        np.divide(sums, sd, out=values, where=sd > 0)
        return self._labelled(values, "z")

    @without_autocast
    def block_sums(self) -> BlockSums:
        """Return the sums of every block of batches as NumPy arrays.

        Use them for quantities that are linear in HSIC: sums of layers, partial CKA.
        ``blocks[b].xy`` is Σ w h(x, y) of block b, (Lx, Ly); ``xx`` and ``yy`` are those of each
        layer with itself.
        """
        return self._state.blocks.on_host()

    def _require(self, method: str) -> None:
        if not self.n_batches:
            raise StateError(
                f"MinibatchCKA.{method}: there is nothing to compute from.\n"
                f"  batches of at least {MIN_BATCH} samples: 0, shorter ones: "
                f"{self.n_skipped_batches}\n"
                f"  Call update with batches of {MIN_BATCH} samples or more first."
            )

    def _labelled(self, values: Any, name: str) -> xarray.DataArray:
        layers_x, layers_y = self.layers_x, self.layers_y
        return map_of_layers(
            values,
            layers_x,
            layers_x if layers_y is None else layers_y,
            name,
            {
                "estimator": "minibatch unbiased",
                "kernel": repr(self.kernel),
                "precision": getattr(self.kernel, "precision", "the kernel's own"),
                **self._state.counts,
                "repsim_version": __version__,
            },
        )
