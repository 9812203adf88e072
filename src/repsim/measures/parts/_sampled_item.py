"""The item of CKA for a representation whose features are a random sample."""

from __future__ import annotations

import math

from repsim._errors import InputError
from repsim._typing import Array
from repsim.arrays import accumulator_dtype, array_namespace, known
from repsim.estimators import Estimator, between_features, within_features
from repsim.kernels import Kernel, Linear
from repsim.measures._registry import undefined
from repsim.measures.parts._kernel_item import KernelItem

__all__ = ["SampledItem", "are_sampled", "range_with"]


class SampledItem(KernelItem):
    """As :class:`KernelItem`, with the self-product of the population of features.

    The product with another representation needs no correction, because its features are another
    sample, so all pairs of features are pairs of different features.
    """

    is_cosine = False  # the estimate of a population may be above 1

    def __init__(
        self, operation: str, name: str, x: Array, kernel: Kernel, estimator: Estimator
    ) -> None:
        if kernel != Linear():
            raise InputError(
                f"{operation}: features='sampled' is a correction of linear CKA.\n"
                f"  got kernel={kernel!r}\n"
                f"  Pass kernel='linear', or features='all'."
            )
        if x.shape[1] < 2:
            raise InputError(
                f"{operation}: features='sampled' needs at least 2 features.\n"
                f"  {name}: {tuple(x.shape)} → p={x.shape[1]}\n"
                f"  The products of different features are what the population is estimated from."
            )
        xp = array_namespace(x)
        # If a few features carry everything, this is a difference of nearly equal sums.
        super().__init__(
            operation,
            name,
            xp.astype(x, accumulator_dtype(xp, x), copy=False),
            kernel,
            estimator,
        )
        self._corrected: dict[bool, Array] = {}

    def self_product(self, features: bool) -> Array:
        """Return p² times the mean of ⟨A_α, A_β⟩ over different features, or zero and a warning."""
        if features not in self._corrected:
            total = super().self_product(features)
            a, scale = self.form(True)
            within = within_features(self.xp, a, self.estimator)
            within = within * (scale / self.form(features)[1]) ** 2
            left = between_features(self.xp, total, within, self.p)
            undefined(
                self._operation,
                self._name,
                known((total > 0) & (left <= 0)) is True,
                "has too few features for features='sampled' (different ones have nothing in "
                "common)",
            )
            self._corrected[features] = left
        return self._corrected[features]


def are_sampled(features: object) -> bool:
    """Whether this option, which is not checked yet, is "sampled"."""
    return isinstance(features, str) and features == "sampled"


def range_with(*, given: object, features: object, **_: object) -> tuple[float, float]:
    """Return the range of CKA with these options; the estimate of a population has no end."""
    if are_sampled(features):
        return 0.0, math.inf
    return (0.0, 1.0) if given is None else (-1.0, 1.0)
