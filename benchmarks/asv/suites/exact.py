"""repsim.cka_matrix: all pairs of layers over all samples."""

from __future__ import annotations

import numpy as np

import repsim

from ._ratio import ratio


class Matrix:
    param_names = ("layers", "n", "p", "kernel")
    params = ([3, 12], [400, 4000], [32, 256], ["linear", "rbf"])

    def setup(self, layers: int, n: int, p: int, kernel: str) -> None:
        rng = np.random.default_rng(0)
        self.layers = {
            f"layer {i}": rng.standard_normal((n, p), dtype=np.float32) for i in range(layers)
        }
        self.kernel = kernel

    def _matrix(self) -> None:
        repsim.cka_matrix(self.layers, kernel=self.kernel)

    def time_cka_matrix(self, layers: int, n: int, p: int, kernel: str) -> None:
        self._matrix()

    def peakmem_cka_matrix(self, layers: int, n: int, p: int, kernel: str) -> None:
        self._matrix()

    def track_ratio_to_products(self, layers: int, n: int, p: int, kernel: str) -> float:
        """Relative to one product of all features with all, the least work of the linear kernel.

        Of other kernels, which need Grams, to a Gram for each layer.
        """
        both = np.concatenate(list(self.layers.values()), axis=1)
        if kernel == "linear":
            return ratio(self._matrix, lambda: both.T @ both, rounds=3)
        return ratio(self._matrix, lambda: [x @ x.T for x in self.layers.values()], rounds=3)

    track_ratio_to_products.unit = "ratio"
