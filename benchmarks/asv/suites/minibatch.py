"""repsim.MinibatchCKA: how it grows with layers, batch and features."""

from __future__ import annotations

import numpy as np

import repsim

from ._ratio import ratio


class Minibatch:
    param_names = ("layers", "n", "p")
    params = ([4, 16, 64], [32, 128, 512], [64, 1024])

    def setup(self, layers: int, n: int, p: int) -> None:
        rng = np.random.default_rng(0)
        self.batch = {
            f"layer {i}": rng.standard_normal((n, p), dtype=np.float32) for i in range(layers)
        }

    def _one_batch(self) -> None:
        repsim.MinibatchCKA().update(self.batch)

    def time_update(self, layers: int, n: int, p: int) -> None:
        self._one_batch()

    def peakmem_update(self, layers: int, n: int, p: int) -> None:
        self._one_batch()

    def track_ratio_to_products(self, layers: int, n: int, p: int) -> float:
        """To a Gram for each layer, and one product of all Grams with all."""
        flat = np.stack([(x @ x.T).reshape(-1) for x in self.batch.values()])
        return ratio(
            self._one_batch, lambda: ([x @ x.T for x in self.batch.values()], flat @ flat.T)
        )

    track_ratio_to_products.unit = "ratio"


class Result:
    param_names = ("layers", "batches")
    params = ([4, 16, 64], [4, 64])

    def setup(self, layers: int, batches: int) -> None:
        rng = np.random.default_rng(0)
        self.accumulator = repsim.MinibatchCKA()
        for _ in range(batches):
            self.accumulator.update(
                {f"layer {i}": rng.standard_normal((8, 4)) for i in range(layers)}
            )

    def time_compute(self, layers: int, batches: int) -> None:
        self.accumulator.compute()

    def time_standard_error(self, layers: int, batches: int) -> None:
        self.accumulator.standard_error()
