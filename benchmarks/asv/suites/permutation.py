"""repsim.permutation_test beside the value that it tests."""

from __future__ import annotations

import numpy as np

import repsim

from ._ratio import ratio


class Permutation:
    param_names = ("n", "p", "kernel")
    params = ([50, 300, 1000], [10, 256], ["linear", "rbf"])
    PERMUTATIONS = 99

    def setup(self, n: int, p: int, kernel: str) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = (rng.standard_normal((n, p)) for _ in range(2))
        self.options = {"kernel": kernel, "estimator": "unbiased"}

    def _test(self) -> None:
        repsim.permutation_test(self.x, self.y, permutations=self.PERMUTATIONS, **self.options)

    def time_permutation_test(self, n: int, p: int, kernel: str) -> None:
        self._test()

    def peakmem_permutation_test(self, n: int, p: int, kernel: str) -> None:
        self._test()

    def track_ratio_to_one_value(self, n: int, p: int, kernel: str) -> float:
        """Of the whole test with 99 permutations to one CKA of the same arrays."""
        return ratio(self._test, lambda: repsim.cka(self.x, self.y, **self.options), rounds=3)

    track_ratio_to_one_value.unit = "ratio"
