"""Random halves of the samples: a standard error for any measure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim._options import as_count
from repsim._typing import Array, Namespace
from repsim.arrays import Groups, Indices, paired, resolve_groups, to_numpy, without_autocast
from repsim.inference._chance import ends_at_one
from repsim.inference._draws import half, moments, resolve_seed
from repsim.inference._interval import (
    Interval,
    Values,
    check_level,
    difference_of,
    interval,
    p_value_of,
)
from repsim.inference._options import settings_for, third_of
from repsim.inference._rearranged import size_of, slack_of
from repsim.measures import Measure, resolve_measure
from repsim.measures.pairs import held

__all__ = ["check_halves", "factor_of_halves", "of_rows", "scale_of_halves", "subsample"]


@without_autocast
def subsample(
    x: Array,
    y: Array,
    *,
    minus: Array | None = None,
    measure: str | Measure = "cka",
    draws: int = 200,
    groups: Any = None,
    level: float = 0.95,
    seed: int | np.random.Generator = 0,
    **options: object,
) -> Interval:
    """Standard error and confidence interval of a measure, from random halves of the samples.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 4))
    >>> y = x + rng.standard_normal((100, 4))
    >>> found = repsim.inference.subsample(x, y, measure="mutual_knn", k=5)
    >>> 0 < found.low < found.value < found.high < 1
    True
    >>> more = repsim.inference.subsample(x, y, minus=x[:, :1], measure="mutual_knn", k=5)
    >>> more.measure, more.low > 0, more.p_value < 0.001
    ('mutual_knn difference', True, True)

    ::

        SE² = b/(n−b) · Var((n/b)^g θ_b),   θ_b of b = ⌊n/2⌋ samples drawn without replacement
        p = 2 Φ(−|value|/SE),   of a difference

    g is 0, or the power of n with which the measure grows (``Measure.growth``), such as 1/2 for the
    Procrustes distance. The interval is value ± q SE with q the quantile of the normal distribution
    Φ. For a similarity of at most 1 it is on Fisher's scale, tanh(artanh(value) ± q SE(artanh
    θ_b)); that of a difference is not.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    minus : array, shape (n, r) or (n, ...), optional
        A third representation of the same samples. θ is then f(x, y) − f(minus, y), above zero if x
        is more like y; for a dissimilarity it is below zero. Both have the same halves, so what
        they share does not widen the interval.
    measure : str or Measure, default "cka"
        f: a name from ``repsim.measures.MEASURES``, or your own ``Measure``. It must be defined for
        half of the samples.
    draws : int, default 200
        Number of halves, at least 2. The standard error itself has a relative error of 1/√(2
        draws): 5 % for 200.
    groups : sequence or one-dimensional array of n labels, optional
        Labels of samples that are dependent. Half of the groups are drawn, each as a whole; their
        sizes may differ. ``"predictivity"`` holds out whole groups too.
    level : float, default 0.95
        The level of the interval, in (0, 1).
    seed : int or numpy.random.Generator, default 0
        Source of the halves. The same seed gives the same result; a generator moves on.
    **options
        Keyword options of the measure. The estimator is unbiased unless given.

    Returns
    -------
    Interval
        ``value`` of all samples, ``standard_error``, ``low``, ``high`` in the measure's unit, and
        the ``replicates`` (n/b)^g θ_b, as floats and a NumPy array. With ``minus`` all of them are
        differences, there is a ``p_value``, and ``measure`` is the name with " difference".

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        As the measure raises it; half of the samples are too few for it; ``given`` of a partial
        alignment.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: all values are NaN.

    Notes
    -----
    Without replacement, every pair is a pair of different samples. With replacement (the
    bootstrap), a sample is also paired with its copies, which CKA, neighbours and distances treat
    as real pairs: see :func:`repsim.jackknife`. The jackknife of CKA is cheaper and not random; use
    this function for measures without a jackknife. Halves share samples; the factor b/(n−b)
    accounts for this.

    The interval is for the value of the measure *at this n*, around the value of all samples. If
    the mean of the measure depends on n (biased CKA, CCA, neighbours), this is not the population
    value, and the standard error is that of half as many samples. ``benchmarks/differences.py``
    measures how often two equal similarities differ with p ≤ .05.

    Cost: ``draws`` evaluations on n/2 samples, including the bandwidth of a kernel that follows the
    data.

    References
    ----------
    Politis, Romano 1994, "Large sample confidence regions based on subsamples under minimal
    assumptions", Annals of Statistics 22. Shao, Wu 1989, "A general theory for jackknife variance
    estimation", Annals of Statistics 17, for deleting half.
    """
    operation = "subsample"
    check_level(operation, level)
    chosen = resolve_measure(operation, measure, options, function=subsample)
    settings = settings_for(operation, chosen, options, groups)
    count = as_count(operation, "draws", draws)
    if count < 2:
        raise InputError(f"{operation}: one draw has no spread.\n  got draws={draws}")
    needs = chosen.fewest(**settings)
    sides = {"x": x, "y": y} | ({} if minus is None else {"minus": minus})
    xp, arrays = _checked(operation, chosen, settings, sides, needs)
    n = arrays["x"].shape[0]
    whole = resolve_groups(operation, groups, n)
    check_halves(operation, n, whole, *needs)
    rng = resolve_seed(operation, seed)

    @np.errstate(over="ignore")  # what overflows is reported below
    def values_of(arrays: Mapping[str, Array], settings: Mapping[str, Any]) -> list[Array]:
        """Return the measure of x and y, and that of minus and y."""
        items = {
            name: chosen.prepare(operation, side, name=name, **settings)
            for name, side in arrays.items()
        }
        item_y = items.pop("y")
        return [chosen.compare(item, item_y, **settings) for item in items.values()]

    found = values_of(arrays, settings)
    singles = [float(held(operation, each, each.dtype)) for each in found]
    value, values = _less(singles), np.full(0, math.nan)
    error = error_z = math.nan
    if not math.isnan(value):
        halves, drawn = [half(rng, n, whole) for _ in range(count)], []
        for rows in halves:
            some = {name: chosen.taken(side, rows, settings) for name, side in arrays.items()}
            drawn.append(xp.stack(values_of(some, of_rows(settings, whole, rows))))
        values = _less(np.asarray(to_numpy(xp.stack(drawn, axis=1)), dtype=np.float64))
        values = values * scale_of_halves(chosen, n, halves)
        factor = factor_of_halves(n, whole)
        error = factor * float(moments(values, ddof=1)[1])
        with np.errstate(divide="ignore", invalid="ignore"):  # artanh(±1) is infinite
            error_z = (
                factor * float(np.std(np.arctanh(values), ddof=1)) if minus is None else math.nan
            )
    if minus is not None:
        size = size_of(chosen, max(map(abs, singles)))
        rounding = slack_of(float(xp.finfo(arrays["x"].dtype).eps), size)
        value = difference_of(singles[0], singles[1], rounding)
    fisher = minus is None and ends_at_one(chosen)
    low, high = interval(value, error, error_z, level, fisher=fisher)
    return Interval(
        measure=chosen.name if minus is None else f"{chosen.name} difference",
        similarity=chosen.similarity,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        level=level,
        replicates=values,
        n_samples=n,
        n_groups=None if whole is None else len(whole.sizes),
        p_value=math.nan if minus is None else p_value_of(value, error),
    )


def _checked(
    operation: str,
    measure: Measure,
    settings: Mapping[str, Any],
    sides: Mapping[str, Array],
    needs: tuple[int, str],
) -> tuple[Namespace, dict[str, Array]]:
    """Return the namespace, and x, y and minus (if it is there) as (n, p) in one dtype."""
    x, y, *third = measure.by_rows(operation, sides, settings)
    xp, a, b = paired(operation, x, y, min_samples=needs[0], why=needs[1])
    third = [third_of(operation, xp, (x, y), a, minus, needs) for minus in third]
    dtype = xp.result_type(a.dtype, *(c.dtype for c in third))
    every = zip(sides, (a, b, *third), strict=True)
    return xp, {name: xp.astype(side, dtype, copy=False) for name, side in every}


def _less(values: Any) -> Any:
    """Return the first value, less the second one if there is one."""
    return values[0] if len(values) == 1 else values[0] - values[1]


def of_rows(settings: Mapping[str, Any], groups: Groups | None, rows: Indices) -> Mapping[str, Any]:
    """Return the options for some of the samples: only these have labels of groups."""
    if groups is None or settings.get("groups") is None:
        return settings
    return {**settings, "groups": groups.labels[rows]}


def scale_of_halves(measure: Measure, n: int, halves: Sequence[Indices]) -> Values:
    """Return (n/b)^g for halves of b samples: what the value of each one is multiplied by."""
    return (n / np.array([len(rows) for rows in halves])) ** measure.growth


def factor_of_halves(n: int, groups: Groups | None) -> float:
    """Return √(b/(n−b)): what the spread of halves of b samples (groups) is multiplied by."""
    units = n if groups is None else len(groups.sizes)
    return math.sqrt((units // 2) / (units - units // 2))


def check_halves(operation: str, n: int, whole: Groups | None, fewest: int, why: str) -> None:
    """Raise if the smallest half has fewer samples than the measure needs."""
    smallest = n // 2 if whole is None else sum(sorted(whole.sizes)[: len(whole.sizes) // 2])
    if smallest < fewest:
        raise InputError(
            f"{operation}: {why} needs at least {fewest} samples in every half.\n"
            f"  n={n}, the smallest half has {smallest}\n"
            f"  Bring more samples."
        )
