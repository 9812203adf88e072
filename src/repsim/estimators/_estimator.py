"""The estimators of HSIC as values: a centring map, a scale, and the fewest samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from repsim._options import require_choice
from repsim._typing import Array, Namespace
from repsim.estimators._centring import double_centre, u_centre

__all__ = ["ESTIMATORS", "Estimator", "resolve_estimator"]


@dataclass(frozen=True, slots=True)
class Estimator:
    """An estimator of HSIC: ⟨centre(K), centre(L)⟩/divisor(n)."""

    name: str
    centre: Callable[[Namespace, Array], Array]
    divisor: Callable[[int], float]
    min_samples: int


# Functions with names, because accumulators hold an estimator and must be pickled. A float, because
# jax takes no integer of more than 32 bits beside its float32.
def _biased_divisor(n: int) -> float:
    return float((n - 1) ** 2)


def _unbiased_divisor(n: int) -> float:
    return float(n * (n - 3))


ESTIMATORS: dict[str, Estimator] = {
    "biased": Estimator(
        "biased", double_centre, _biased_divisor, min_samples=2
    ),  # Gretton et al. 2005, Eq. 9
    "unbiased": Estimator(
        "unbiased", u_centre, _unbiased_divisor, min_samples=4
    ),  # Song et al. 2012, Eq. 5
}


def resolve_estimator(operation: str, estimator: str) -> Estimator:
    """Return the estimator of a name, or raise an error that lists the names."""
    require_choice(operation, "estimator", estimator, ESTIMATORS)
    return ESTIMATORS[estimator]
