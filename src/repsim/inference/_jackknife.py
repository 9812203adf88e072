"""The leave-one-out jackknife of unbiased CKA."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from repsim._typing import Array, KernelName
from repsim.arrays import accumulator_dtype, paired, without_autocast
from repsim.inference._interval import Interval, check_level, difference_of, interval, p_value_of
from repsim.inference._left_out import FEWEST, LeftOut
from repsim.inference._options import third_of
from repsim.inference._rearranged import slack_of
from repsim.kernels import Kernel

__all__ = ["jackknife"]


@without_autocast
def jackknife(
    x: Array,
    y: Array,
    *,
    minus: Array | None = None,
    kernel: KernelName | Kernel = "linear",
    groups: Any = None,
    level: float = 0.95,
) -> Interval:
    """Standard error and confidence interval of unbiased CKA, by leaving out each sample.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 4))
    >>> found = repsim.jackknife(x, x + rng.standard_normal((100, 4)))
    >>> round(found.value, 3), round(found.standard_error, 3)
    (0.53, 0.034)
    >>> 0.5 in found
    True
    >>> more = repsim.jackknife(x, x @ rng.standard_normal((4, 9)), minus=x[:, :2])
    >>> more.measure, more.low > 0, more.p_value < 0.001
    ('cka difference', True, True)

    ::

        SE² = (k−1)/k · Σ_i (θ₍₋ᵢ₎ − θ̄)²        θ₍₋ᵢ₎ the CKA without sample (group) i, k of them
        interval: tanh(artanh θ ± q SE(artanh θ₍₋ᵢ₎)),   of a difference: θ ± q SE
        p = 2 Φ(−|θ|/SE),   of a difference

    with q the quantile of the normal distribution Φ. The Grams are computed once: with A, B the
    U-centred Grams and r_i = Σ_j A_ij B_ij, the inner product without sample i is Σ r − 2 r_i
    (n−2)/(n−3).

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 5 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    minus : array, shape (n, r) or (n, ...), optional
        A third representation of the same samples. θ is then CKA(x, y) − CKA(minus, y), above zero
        if x is more like y. Both lack the same sample, so what they share does not widen the
        interval.
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`. A bandwidth that follows the data is computed from all samples.
    groups : sequence or one-dimensional array of n labels, optional
        Labels of samples that are dependent, such as the tokens of one image. Whole groups are left
        out; their sizes may differ (Busing et al. 1999). Without ``groups`` the interval of
        dependent samples is far too short.
    level : float, default 0.95
        The level of the interval, in (0, 1).

    Returns
    -------
    Interval
        ``value`` (unbiased CKA, in [−1, 1]), ``standard_error``, ``low``, ``high`` and the
        ``replicates`` θ₍₋ᵢ₎, as floats and a NumPy array. With ``minus`` all of them are
        differences, there is a ``p_value``, and ``measure`` is "cka difference".

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        As :func:`repsim.cka` raises it; fewer than 5 samples; a group so large that fewer than 4
        samples remain without it.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: all values are NaN. If it is constant after leaving out one
        of the samples: the standard error and the interval are NaN.

    Notes
    -----
    The interval is for the CKA of the population: the value that the same two networks would have
    on more images of the same kind. ``benchmarks/inference.py`` measures how often the interval
    contains it, and ``benchmarks/differences.py`` how often two equal CKAs differ with p ≤ .05.
    With few samples or groups it is somewhat too short because it uses the normal quantile. If the
    CKA of the population is zero, its error is not normal; use :func:`repsim.permutation_test`.

    There is no bootstrap of CKA. If a sample is drawn twice, the pair of its copies stands off the
    diagonal of the Gram but is as large as a diagonal entry, which the unbiased estimator leaves
    out. The bootstrap is therefore centred on the *biased* value. Its intervals are slightly off
    for few features, and with more features than samples on both sides they nearly always miss the
    true value.

    Invariances are those of CKA. Cost O(n² (p + q)), memory O(n²); with groups O(n² g) for g
    groups. Computed in float64 where the device has it.

    References
    ----------
    Efron, Stein 1981, "The jackknife estimate of variance", Annals of Statistics 9. Busing,
    Meijer, van der Leeden 1999, "Delete-m jackknife for unequal m", Statistics and Computing 9.
    Song et al. 2012, JMLR 13, for the estimator.
    """
    operation = "jackknife"
    check_level(operation, level)
    xp, a, b = paired(operation, x, y, min_samples=FEWEST, why="leaving one sample out")
    n = a.shape[0]
    needs = FEWEST, "leaving one sample out"
    c = a if minus is None else third_of(operation, xp, (x, y), a, minus, needs)
    dtype = xp.result_type(a.dtype, c.dtype)
    a, b, c = (xp.astype(side, dtype, copy=False) for side in (a, b, c))
    arrays = {"x": a, "y": b} | ({} if minus is None else {"minus": c})
    left = LeftOut(operation, arrays, kernel, groups)
    value, without = left.of("x", "y")
    if minus is not None:
        other, without_other = left.of("minus", "y")
        rounding = slack_of(float(xp.finfo(accumulator_dtype(xp, a)).eps), 1.0)
        value, without = difference_of(value, other, rounding), without - without_other
    error, error_z = left.standard_error(value, without), math.nan
    if minus is None:
        with np.errstate(divide="ignore", invalid="ignore"):  # artanh(±1): see `interval`
            error_z = left.standard_error(np.arctanh(value), np.arctanh(without))
    low, high = interval(value, error, error_z, level, fisher=minus is None)
    return Interval(
        measure="cka" if minus is None else "cka difference",
        similarity=True,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        level=level,
        replicates=without,
        n_samples=n,
        n_groups=None if left.groups is None else len(left.sizes),
        p_value=math.nan if minus is None else p_value_of(value, error),
    )
