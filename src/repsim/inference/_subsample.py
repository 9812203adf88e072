"""Random halves of the samples: a standard error for any measure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim._options import as_count
from repsim._typing import Array
from repsim.arrays import Groups, Indices, paired, resolve_groups, to_numpy, without_autocast
from repsim.inference._chance import ends_at_one
from repsim.inference._draws import half, moments, resolve_seed
from repsim.inference._interval import Interval, check_level, interval
from repsim.inference._options import settings_for
from repsim.measures import Measure, resolve_measure
from repsim.measures.pairs import held

__all__ = ["check_halves", "factor_of_halves", "of_rows", "subsample"]


@without_autocast
def subsample(
    x: Array,
    y: Array,
    *,
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

    ::

        SE² = b/(n−b) · Var(θ_b),   θ_b the value of b = ⌊n/2⌋ samples drawn without replacement

    The interval is value ± q SE with q the normal quantile. For a similarity of at most 1 it is on
    Fisher's scale, tanh(artanh(value) ± q SE(artanh θ_b)).

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    measure : str or Measure, default "cka"
        A name from ``repsim.measures.MEASURES``, or your own ``Measure``. It must be defined for
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
        the ``replicates`` θ_b, as floats and a NumPy array.

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
    value, and the standard error is that of half as many samples. Cost: ``draws`` evaluations on
    n/2 samples, including the bandwidth of a kernel that follows the data.

    References
    ----------
    Politis, Romano 1994, "Large sample confidence regions based on subsamples under minimal
    assumptions", Annals of Statistics 22. Shao, Wu 1989, "A general theory for jackknife variance
    estimation", Annals of Statistics 17, for deleting half.
    """
    operation = "subsample"
    check_level(operation, level)
    chosen = resolve_measure(operation, measure, options)
    settings = settings_for(operation, chosen, options, groups)
    count = as_count(operation, "draws", draws)
    if count < 2:
        raise InputError(f"{operation}: one draw has no spread.\n  got draws={draws}")
    fewest, why = chosen.fewest(**settings)
    x, y = chosen.by_rows(operation, {"x": x, "y": y}, settings)
    xp, a, b = paired(operation, x, y, min_samples=fewest, why=why)
    n = a.shape[0]
    whole = resolve_groups(operation, groups, n)
    check_halves(operation, n, whole, fewest, why)
    rng = resolve_seed(operation, seed)

    @np.errstate(over="ignore")  # what overflows is reported below
    def value_of(u: Array, v: Array, settings: Mapping[str, Any]) -> Array:
        item_u = chosen.prepare(operation, u, name="x", **settings)
        item_v = chosen.prepare(operation, v, name="y", **settings)
        return chosen.compare(item_u, item_v, **settings)

    found = value_of(a, b, settings)
    value = float(held(operation, found, found.dtype))
    values: Any = np.full(0, math.nan)
    error = error_z = math.nan
    if not math.isnan(value):
        drawn = []
        for _ in range(count):
            rows = half(rng, n, whole)
            u, v = (chosen.taken(side, rows, settings) for side in (a, b))
            drawn.append(value_of(u, v, of_rows(settings, whole, rows)))
        values = np.asarray(to_numpy(xp.stack(drawn)), dtype=np.float64)
        factor = factor_of_halves(n, whole)
        error = factor * float(moments(values, ddof=1)[1])
        with np.errstate(divide="ignore", invalid="ignore"):  # artanh(±1) is infinite
            error_z = factor * float(np.std(np.arctanh(values), ddof=1))
    low, high = interval(value, error, error_z, level, fisher=ends_at_one(chosen))
    return Interval(
        measure=chosen.name,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        level=level,
        replicates=values,
        n_samples=n,
        n_groups=None if whole is None else len(whole.sizes),
    )


def of_rows(settings: Mapping[str, Any], groups: Groups | None, rows: Indices) -> Mapping[str, Any]:
    """Return the options for some of the samples: only these have labels of groups."""
    if groups is None or settings.get("groups") is None:
        return settings
    return {**settings, "groups": groups.labels[rows]}


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
