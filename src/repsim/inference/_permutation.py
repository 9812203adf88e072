"""The permutation test: whether unrelated representations could be this similar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim._options import as_count, as_number
from repsim._typing import Array
from repsim.arrays import paired, resolve_groups, to_numpy, without_autocast
from repsim.inference._draws import moments_of_defined, random_order, resolve_seed
from repsim.inference._options import settings_for
from repsim.inference._rearranged import Rearranged, rounding_of
from repsim.measures import Measure, resolve_measure
from repsim.measures.pairs import held

__all__ = ["PermutationTest", "permutation_test", "run_test"]

CHUNK = 64
"""Permutations between two reads of values from the device."""

Values = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class PermutationTest:
    """The result of :func:`repsim.permutation_test`.

    Attributes
    ----------
    measure : str
        Name of the measure.
    similarity : bool
        Whether large values of the measure mean alike; False for a dissimilarity.
    value : float
        The value of the data, in the measure's unit.
    p_value : float
        (b+1)/(m+1), in (0, 1]. Under the null hypothesis, a p-value this small has at most this
        probability. After early stopping it is a bound on the same side of ``stop_at``; see there.
    z : float
        (value − null_mean)/null_sd. For a dissimilarity, z is negative if the data are more alike
        than by chance. NaN if every order of the samples has the same value.
    null_mean, null_sd : float
        Mean and standard deviation over permutations, in the measure's unit.
    exact_moments : bool
        True if the moments are over all n! permutations, in closed form; otherwise they are over
        the drawn permutations that have a value.
    null : array, shape (performed,), float64
        The value of each drawn permutation.
    exceedances : int
        b, the number of them that are at least as similar as the data.
    permutations : int
        m, the number requested.
    n_samples : int
        n.
    n_groups : int or None
        Number of groups that were permuted as a whole.
    """

    measure: str
    similarity: bool
    value: float
    p_value: float
    z: float
    null_mean: float
    null_sd: float
    exact_moments: bool
    null: Values
    exceedances: int
    permutations: int
    n_samples: int
    n_groups: int | None

    @property
    def stopped_early(self) -> bool:
        """Whether fewer permutations were drawn than requested."""
        return len(self.null) < self.permutations

    def __repr__(self) -> str:
        return (
            f"PermutationTest({self.measure}={self.value:.6g}, p_value={self.p_value:.4g}, "
            f"z={self.z:.4g}, {len(self.null)} of {self.permutations} permutations)"
        )


@without_autocast
def permutation_test(
    x: Array,
    y: Array,
    *,
    measure: str | Measure = "cka",
    permutations: int = 999,
    groups: Any = None,
    stop_at: float | None = None,
    seed: int | np.random.Generator = 0,
    **options: object,
) -> PermutationTest:
    """Test whether two representations share anything, by permuting the samples of one side.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.standard_normal((2, 50, 20))
    >>> test = repsim.permutation_test(x, x + 2 * noise, seed=1)
    >>> test.p_value, bool(test.z > 5)
    (0.001, True)
    >>> nothing = repsim.permutation_test(x, noise, stop_at=0.05, seed=1)
    >>> nothing.p_value > 0.05, nothing.stopped_early
    (True, True)

    ::

        p = (b + 1)/(m + 1),   b = #{π : f(x, y[π]) ≥ f(x, y)} of m random permutations π
        z = (f(x, y) − mean)/sd   over permutations; unbiased CKA: CKA · √(n(n−3)/2)

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    measure : str or Measure, default "cka"
        The statistic f: a name from ``repsim.measures.MEASURES``, or your own ``Measure``. For a
        dissimilarity, small values count as similar.
    permutations : int, default 999
        m ≥ 1. The p-value is a positive multiple of 1/(m+1).
    groups : sequence or one-dimensional array of n labels, optional
        Labels of samples that are not exchangeable one by one, such as the tokens of one image.
        Groups of equal size are permuted as a whole; the k-th sample of a group takes the place of
        the k-th sample of another. Without ``groups``, dependent samples give small p-values even
        for unrelated data. ``"predictivity"`` holds out whole groups too.
    stop_at : float, optional
        A level α in (0, 1): stop drawing as soon as it is certain whether p ≤ α. The decision is
        the same as with all m permutations; ``p_value`` is then a bound on the same side of α.
    seed : int or numpy.random.Generator, default 0
        Source of the permutations. The same seed gives the same result; a generator advances.
    **options
        Keyword options of the measure, for example ``kernel="rbf"``. The estimator is unbiased
        unless given; its null distribution has mean zero.

    Returns
    -------
    PermutationTest
        ``p_value``, ``value``, ``z`` and the null distribution, as floats and a NumPy array.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        As the measure raises it; groups of different sizes; a level that m permutations cannot
        reach; ``given`` of a partial alignment; an invalid seed.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: the value and the p-value are NaN.

    Notes
    -----
    The test is exact at any n, for any distribution: under independence P(p ≤ α) ≤ α, for samples
    (groups) that are exchangeable. Values that are equal up to rounding count as exceedances, and
    so do orders for which the measure is undefined; mean, deviation and z leave the latter out. The
    test says that two representations share something, not how much. Untrained networks pass it
    because they see the same images. The interval of :func:`repsim.jackknife` says how much they
    share.

    ``null_mean`` and ``null_sd`` are exact for CKA and HSIC of at least 4 samples without groups
    (:func:`repsim.inference.null_moments`), otherwise estimates from the permutations. z is not
    normal, because the null distribution is skewed.

    After early stopping with b exceedances among t permutations, the p-value is (b+1)/(t+1) if p >
    α is certain (Besag & Clifford 1991), and the largest value that was still possible if p ≤ α is
    certain.

    Cost for CKA, HSIC and angular CKA: the Grams, then O(n²) per permutation (from features O(n p
    q) if that is less), because the denominators do not change. RSA, RV2, distance correlation and
    measures of neighbours reorder their matrix, O(n²), or lists, O(n k log n). Other measures
    prepare y m times.
    Values are read once every 64 permutations.

    References
    ----------
    Gretton et al. 2007, "A kernel statistical test of independence". Phipson, Smyth 2010,
    "Permutation p-values should never be zero", for (b+1)/(m+1). Besag, Clifford 1991, "Sequential
    Monte Carlo p-values", Biometrika 78.
    """
    return run_test(
        "permutation_test",
        x,
        y,
        measure=resolve_measure("permutation_test", measure, options, function=permutation_test),
        permutations=permutations,
        groups=groups,
        stop_at=stop_at,
        seed=seed,
        options=options,
    )


def run_test(
    operation: str,
    x: Array,
    y: Array,
    *,
    measure: Measure,
    permutations: int,
    groups: Any,
    stop_at: float | None,
    seed: int | np.random.Generator,
    options: Mapping[str, object],
) -> PermutationTest:
    """Run the test for the function of this name, which its errors begin with."""
    settings = settings_for(operation, measure, options, groups)
    m = as_count(operation, "permutations", permutations)
    _check_level(operation, stop_at, m)
    fewest, why = measure.fewest(**settings)
    x, y = measure.by_rows(operation, {"x": x, "y": y}, settings)
    xp, a, b = paired(operation, x, y, min_samples=fewest, why=why)
    n = a.shape[0]
    whole = resolve_groups(operation, groups, n)
    places = None if whole is None else whole.same_size(operation)
    rng = resolve_seed(operation, seed)

    rearranged = Rearranged(operation, measure, settings, xp, a, b)
    found = rearranged.value()
    value = float(held(operation, found, found.dtype))
    null, slack = np.empty(0), 0.0
    if not math.isnan(value):
        slack = rounding_of(rearranged, measure, value, a)
        sign = 1 if measure.similarity else -1
        while len(null) < m:
            orders = [random_order(rng, n, places) for _ in range(min(CHUNK, m - len(null)))]
            drawn = np.asarray(to_numpy(rearranged.values(orders)), dtype=np.float64)
            null = np.concatenate([null, drawn])
            above = _reach(sign * null, sign * value - slack)
            if stop_at is not None and (end := _decided_after(above, m, stop_at)) is not None:
                null = null[:end]
                break
        exceedances = int(np.sum(_reach(sign * null, sign * value - slack)))
        p_value = _p_value_of(exceedances, len(null), m, stop_at)
    else:
        exceedances, p_value = 0, math.nan
    mean, sd, exact = _moments(rearranged, null, grouped=whole is not None)
    # The deviation of values that differ by rounding alone is that of rounding.
    defined = null[~np.isnan(null)]
    varies = sd > 0 and (exact or np.ptp([value, *defined]) > slack)
    return PermutationTest(
        measure=measure.name,
        similarity=measure.similarity,
        value=value,
        p_value=p_value,
        z=(value - mean) / sd if varies else math.nan,
        null_mean=mean,
        null_sd=sd,
        exact_moments=exact,
        null=null,
        exceedances=exceedances,
        permutations=m,
        n_samples=n,
        n_groups=None if whole is None else len(whole.rows),
    )


def _reach(null: Values, value: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which orders are as similar; one without a value is no evidence, so it counts too."""
    return ~(null < value)


def _check_level(operation: str, level: float | None, m: int) -> None:
    if level is None:
        return
    level = as_number(operation, "stop_at", level, above=0, below=1)
    if 1 / (m + 1) > level:
        raise InputError(
            f"{operation}: {m} permutations cannot give a p-value of {level}.\n"
            f"  the smallest is 1/{m + 1}\n"
            f"  Ask for at least {1 / level - 1:.0f}."
        )


def _decided_after(above: np.ndarray[Any, np.dtype[np.bool_]], m: int, level: float) -> int | None:
    """Return the number of permutations after which (b + 1)/(m + 1) ≤ α is decided, if any."""
    so_far = np.cumsum(above)
    left = m - np.arange(1, len(above) + 1)
    settled = ((so_far + 1) / (m + 1) > level) | ((so_far + left + 1) / (m + 1) <= level)
    first = int(np.argmax(settled))
    return first + 1 if settled[first] else None


def _p_value_of(exceedances: int, drawn: int, m: int, level: float | None) -> float:
    """Return (b + 1)/(m + 1); after early stopping, a bound on the same side of the level."""
    so_far = (exceedances + 1) / (m + 1)
    if drawn == m or level is None:
        return so_far
    if so_far > level:  # it can only grow, so the estimate from the drawn ones is above the level
        return (exceedances + 1) / (drawn + 1)
    return (exceedances + m - drawn + 1) / (m + 1)


def _moments(rearranged: Rearranged, null: Values, *, grouped: bool) -> tuple[float, float, bool]:
    """Mean and standard deviation by chance, and whether they are exact."""
    exact = None if grouped else rearranged.exact_moments()
    if exact is not None:
        return *exact, True
    if np.sum(~np.isnan(null)) < 2:
        return math.nan, math.nan, False
    mean, deviation = moments_of_defined(null, ddof=1)
    return float(mean), float(deviation), False
