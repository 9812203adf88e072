"""The similarity of unrelated data, and the similarity above it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import DegenerateWarning, InputError, warn
from repsim._options import as_count, as_number
from repsim._typing import Array, KernelName
from repsim.arrays import paired, scalar, without_autocast
from repsim.inference._interval import Values
from repsim.inference._null_moments import expected_by_chance
from repsim.inference._permutation import run_test
from repsim.kernels import Kernel
from repsim.measures import Measure, resolve_measure

__all__ = [
    "CalibratedScore",
    "calibrated_score",
    "chance_floor",
    "ends_at_one",
    "rank_of",
    "score_above",
]


@without_autocast
def chance_floor(x: Array, y: Array, *, kernel: KernelName | Kernel = "linear") -> Array:
    """Biased CKA of these representations by chance; print it beside the value.

    >>> import numpy as np, repsim
    >>> x, y = np.random.default_rng(0).standard_normal((2, 50, 500))
    >>> round(float(repsim.cka(x, y)), 2), round(float(repsim.chance_floor(x, y)), 2)
    (0.91, 0.91)

    ::

        mean over permutations of CKA(x, y[π]) = √(R_x R_y)/(n−1),   R = tr(Kc)²/‖Kc‖²

    with Kc the centred Gram. R is the effective number of directions of a representation, between 1
    and n − 1.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In (0, 1], on the scale of CKA; near 1 if there are many features compared with n. Same
        namespace, device and dtype as :func:`repsim.cka` returns, differentiable where the inputs
        are.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        As :func:`repsim.cka` raises it.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: NaN is returned.

    Notes
    -----
    This is the exact mean over all n! permutations, not an estimate. The floor of unbiased CKA is
    zero. :func:`repsim.permutation_test` tests whether a value is above the floor by more than
    chance. Invariant as CKA is, and to permuting the samples of one side too. Cost as
    :func:`repsim.cka`. Works under ``jax.jit``.

    References
    ----------
    Kazi-Aoual, Hitier, Sabatier, Lebreton 1995, "Refined approximations to permutation tests for
    multivariate inference". Murphy, Zylberberg, Fyshe 2024, "Correcting biased centered kernel
    alignment measures in biological and artificial neural networks", arXiv:2405.01012.
    """
    operation = "chance_floor"
    xp, a, b = paired(operation, x, y, min_samples=2, why="biased CKA")
    measure = resolve_measure(operation, "cka")
    options = measure.options(operation, {"kernel": kernel, "estimator": "biased"})
    floor = expected_by_chance(
        measure.prepare(operation, a, name="x", **options),
        measure.prepare(operation, b, name="y", **options),
    )
    return scalar(xp, floor, a.dtype)


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibratedScore:
    """The result of :func:`repsim.calibrated_score`.

    Attributes
    ----------
    measure : str
        Name of the measure.
    score : float
        In [0, 1]: 0 at the threshold of chance, 1 for equal representations.
    value : float
        Of the measure itself.
    threshold : float
        τ, which chance exceeds with probability at most α, in the measure's unit.
    alpha : float
        α.
    permutations : int
        m.
    n_samples : int
        n.
    """

    measure: str
    score: float
    value: float
    threshold: float
    alpha: float
    permutations: int
    n_samples: int

    def __repr__(self) -> str:
        return (
            f"CalibratedScore({self.measure}={self.value:.4f}, score={self.score:.4f}, "
            f"threshold={self.threshold:.4f} at alpha={self.alpha:g})"
        )


@without_autocast
def calibrated_score(
    x: Array,
    y: Array,
    *,
    measure: str | Measure = "cka",
    alpha: float = 0.05,
    permutations: int = 999,
    groups: Any = None,
    seed: int | np.random.Generator = 0,
    **options: Any,
) -> CalibratedScore:
    """Similarity above chance: 0 for independent representations, 1 for equal ones.

    >>> import numpy as np, repsim
    >>> x, y = np.random.default_rng(0).standard_normal((2, 40, 300))
    >>> repsim.calibrated_score(x, 3 * x, estimator="biased").score > 0.999
    True
    >>> found = repsim.calibrated_score(x, y, estimator="biased")
    >>> found.value > 0.8, found.score
    (True, 0.0)

    ::

        score = max(0, (s − τ)/(1 − τ)),   τ the ⌈(1−α)(m+1)⌉-th smallest of s and m permuted values

    with s = f(x, y) and the permuted values f(x, y[π]).

    Parameters
    ----------
    x, y : array, shapes (n, p) and (n, q), or (n, ...)
        As in :func:`repsim.permutation_test`.
    measure : str or Measure, default "cka"
        A similarity whose greatest value is 1.
    alpha : float, default 0.05
        In (0, 1): an upper bound on the probability that independent representations score above
        zero. α(m+1) ≥ 1.
    permutations, groups, seed, **options
        As in :func:`repsim.permutation_test`; the estimator is unbiased unless given.

    Returns
    -------
    CalibratedScore
        ``score``, ``value`` s and ``threshold`` τ, as floats.

    Raises
    ------
    ArrayTypeError, InputError
        As :func:`repsim.permutation_test` raises them; the measure is a dissimilarity or its
        greatest value is not 1; too few permutations for α.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, or if chance alone reaches 1 (τ = 1): the score is NaN.

    Notes
    -----
    The score is above zero only if the p-value of the permutation test is at most α. It makes
    measures and layer widths with different floors comparable, at the same n and α. It does not
    estimate a population value, because τ falls as n grows. The score is clamped at zero by
    definition; use ``value`` and ``threshold`` for averages. Invariances and cost are those of the
    test.

    References
    ----------
    Gröger et al. 2026, arXiv:2602.14486.
    """
    operation = "calibrated_score"
    chosen = resolve_measure(operation, measure, options, function=calibrated_score)
    if not ends_at_one(chosen):
        raise InputError(
            f"{operation}: measure must be a similarity whose greatest value is 1.\n"
            f"  {chosen.name}: {'similarity' if chosen.similarity else 'dissimilarity'}, "
            f"range {chosen.range}\n"
            f"  Use repsim.permutation_test, which takes any."
        )
    as_count(operation, "permutations", permutations)
    rank = rank_of(operation, alpha, permutations)
    test = run_test(
        operation,
        x,
        y,
        measure=chosen,
        permutations=permutations,
        groups=groups,
        stop_at=None,
        seed=seed,
        options=options,
    )
    score, threshold = math.nan, math.nan
    if not math.isnan(test.value):
        threshold, score = score_above(test.value, test.null, test.exceedances, rank)
        if math.isnan(score):
            warn(
                f"{operation}: permuted samples reach the greatest value too (τ = 1), so the "
                f"score is undefined and NaN is returned.",
                DegenerateWarning,
            )
    return CalibratedScore(
        measure=chosen.name,
        score=score,
        value=test.value,
        threshold=threshold,
        alpha=alpha,
        permutations=test.permutations,
        n_samples=test.n_samples,
    )


def ends_at_one(measure: Measure) -> bool:
    """Whether equal representations have the greatest value, 1.

    Angles and distances end elsewhere; HSIC has no greatest value.
    """
    return measure.similarity and measure.range[1] == 1 and measure.self_is_best


def score_above(value: float, null: Values, exceedances: int, rank: int) -> tuple[float, float]:
    """Return τ, the value of this rank among the permuted ones and ``value``, and the score.

    The score is NaN if chance reaches 1. The greatest ``exceedances`` permuted values are at least
    ``value``: those that rounding makes smaller are equal to it, and so are orders without a value,
    as in the p-value.
    """
    ordered = np.sort(null)  # NaN comes last
    first = len(ordered) - exceedances
    ordered[first:] = np.fmax(ordered[first:], value)
    threshold = float(np.sort([value, *ordered])[rank - 1])
    score = max(0.0, (value - threshold) / (1 - threshold)) if threshold < 1 else math.nan
    return threshold, score


def rank_of(operation: str, alpha: float, permutations: int) -> int:
    """Return the rank of τ among m permuted values and that of the data, ⌈(1−α)(m+1)⌉."""
    as_number(operation, "alpha", alpha, above=0, below=1)
    rank = math.ceil(round((1 - alpha) * (permutations + 1), 9))
    if rank > permutations:
        raise InputError(
            f"{operation}: {permutations} permutations have no quantile for alpha={alpha}.\n"
            f"  Ask for at least {1 / alpha - 1:.0f}."
        )
    return rank
