"""repsim.cka of two arrays in memory."""

from __future__ import annotations

import numpy as np

import repsim

from ._ratio import ratio


def pair(n: int, p: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p), dtype=np.float32) + 3
    return x, x + rng.standard_normal((n, p), dtype=np.float32)


def products(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """The matrix products of the form that takes fewer multiplications."""
    n, p = x.shape
    return [x.T @ x, x.T @ y, y.T @ y] if 2 * p < n else [x @ x.T, y @ y.T]


class Linear:
    param_names = ("n", "p", "estimator")
    params = ([500, 1000, 10_000], [64, 256, 768], ["biased", "unbiased"])

    def setup(self, n: int, p: int, estimator: str) -> None:
        self.x, self.y = pair(n, p)

    def time_cka(self, n: int, p: int, estimator: str) -> None:
        repsim.cka(self.x, self.y, estimator=estimator)

    def peakmem_cka(self, n: int, p: int, estimator: str) -> None:
        repsim.cka(self.x, self.y, estimator=estimator)

    def track_ratio_to_products(self, n: int, p: int, estimator: str) -> float:
        return ratio(
            lambda: repsim.cka(self.x, self.y, estimator=estimator),
            lambda: products(self.x, self.y),
        )

    track_ratio_to_products.unit = "ratio"


class Kernels:
    param_names = ("n", "kernel", "estimator")
    params = ([300, 1000, 4000], ["rbf", "polynomial", "cosine"], ["biased", "unbiased"])

    def setup(self, n: int, kernel: str, estimator: str) -> None:
        self.x, self.y = pair(n, 256)

    def time_cka(self, n: int, kernel: str, estimator: str) -> None:
        repsim.cka(self.x, self.y, kernel=kernel, estimator=estimator)

    def peakmem_cka(self, n: int, kernel: str, estimator: str) -> None:
        repsim.cka(self.x, self.y, kernel=kernel, estimator=estimator)

    def track_ratio_to_products(self, n: int, kernel: str, estimator: str) -> float:
        return ratio(
            lambda: repsim.cka(self.x, self.y, kernel=kernel, estimator=estimator),
            lambda: [self.x @ self.x.T, self.y @ self.y.T],
        )

    track_ratio_to_products.unit = "ratio"
