"""Kernels whose bandwidth is fixed on the first batch of each layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from repsim._errors import BandwidthError, StateError
from repsim._typing import Array
from repsim.arrays import same_home, to_numpy
from repsim.kernels import Kernel

__all__ = ["PilotKernels"]


class PilotKernels:
    """One kernel for many layers, each with the bandwidth of its first batch.

    If the bandwidth changed from batch to batch, the sum would mix HSICs of different kernels and
    estimate no quantity.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.fitted: dict[str, Kernel] = {}

    def gram(self, layer: str, x: Array) -> Array:
        """Return the Gram (n, n) of ``x`` (n, p); the first batch fixes the layer's kernel."""
        kernel = self.fitted.get(layer)
        if kernel is None:
            kernel = self.fitted[layer] = self._fit(layer, x)
        sigma = getattr(kernel, "sigma", None)
        if sigma is not None and not isinstance(sigma, int | float) and not same_home(sigma, x):
            kernel = self.fitted[layer] = replace(kernel, sigma=float(to_numpy(sigma)))  # type: ignore[type-var]
        return kernel.gram(x)

    def _fit(self, layer: str, x: Array) -> Kernel:
        try:
            return self.kernel.fit(x)
        except BandwidthError as error:
            raise error.named("kernel bandwidth", f"layer {layer!r}") from None

    def bandwidths(self) -> dict[str, float]:
        """Return the bandwidths fixed so far, by layer; empty for kernels without one."""
        return {
            layer: float(to_numpy(sigma))
            for layer, kernel in self.fitted.items()
            if (sigma := getattr(kernel, "sigma", None)) is not None
        }

    def restore(self, bandwidths: Mapping[str, float]) -> None:
        """Restore bandwidths that :meth:`bandwidths` returned."""
        for layer, sigma in bandwidths.items():
            self.fitted[layer] = replace(self.kernel, sigma=sigma)  # type: ignore[type-var]

    def agree(self, other: PilotKernels) -> None:
        """Raise if the kernels of another accumulator differ from these."""
        if self.kernel != other.kernel:
            raise StateError(
                f"MinibatchCKA.merge: both accumulators must use one kernel.\n"
                f"  this: {self.kernel!r}    other: {other.kernel!r}"
            )
        mine, theirs = self.bandwidths(), other.bandwidths()
        for layer in (name for name in mine if name in theirs):
            if abs(mine[layer] - theirs[layer]) > 1e-6 * mine[layer]:
                raise StateError(
                    f"MinibatchCKA.merge: both accumulators must use one bandwidth.\n"
                    f"  layer {layer!r}: this {mine[layer]:.6g}, other {theirs[layer]:.6g}, each "
                    f"fixed on its own first batch\n"
                    f"  Show one accumulator the pilot batch and start the others from "
                    f"accumulator.spawn(), or give the kernel a sigma."
                )
