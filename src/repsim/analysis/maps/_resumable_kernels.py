"""Kernels whose bandwidths have the same bits after a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from array_api_compat import device

from repsim._typing import Array
from repsim.arrays import to_numpy
from repsim.kernels import Kernel
from repsim.streaming import PilotKernels

__all__ = ["ResumableKernels"]


class ResumableKernels(PilotKernels):
    """Pilot kernels that a checkpoint can hold.

    >>> from repsim.kernels import RBF
    >>> x = torch.randn(8, 3)
    >>> first, second = ResumableKernels(RBF()), ResumableKernels(RBF())
    >>> gram = first.gram("layer", x)
    >>> second.resume(first.state())
    >>> torch.equal(second.gram("layer", x), gram)
    True

    A bandwidth keeps the dtype in which it was fixed; the first batch after a restart decides its
    device.
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self._saved: dict[str, list[Any]] = {}

    def gram(self, layer: str, x: Array) -> Array:
        """Return the Gram of ``x`` with the layer's kernel, fixed now or in an earlier run."""
        if layer not in self.fitted and layer in self._saved:
            value, dtype = self._saved[layer]
            sigma = torch.tensor(value, dtype=getattr(torch, dtype), device=device(x))
            self.fitted[layer] = replace(self.kernel, sigma=sigma)  # type: ignore[type-var]
        return super().gram(layer, x)

    def state(self) -> dict[str, list[Any]]:
        """Return every bandwidth with its dtype, by layer."""
        fitted = {
            layer: [float(to_numpy(sigma)), str(sigma.dtype).removeprefix("torch.")]
            for layer, kernel in self.fitted.items()
            if isinstance(sigma := getattr(kernel, "sigma", None), torch.Tensor)
        }
        return {**self._saved, **fitted}

    def resume(self, state: Mapping[str, list[Any]]) -> None:
        """Restore the bandwidths that :meth:`state` returned."""
        self._saved = dict(state)
