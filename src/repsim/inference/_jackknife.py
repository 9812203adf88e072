"""The leave-one-out jackknife of unbiased CKA."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from array_api_compat import device

from repsim._errors import DegenerateWarning, InputError, warn
from repsim._typing import Array, KernelName, Namespace
from repsim.arrays import (
    Groups,
    Indices,
    accumulator_dtype,
    array_namespace,
    as_samples,
    check_finite,
    namespace,
    paired,
    require_same_n,
    resolve_groups,
    to_numpy,
    unlabelled,
    without_autocast,
)
from repsim.estimators import Products, alignment, resolve_estimator
from repsim.inference._interval import Interval, Values, check_level, interval
from repsim.kernels import Kernel, resolve_kernel
from repsim.measures import KernelItem, resolve_measure

__all__ = ["jackknife"]

FEWEST = 5
"""Fewest samples: after leaving one out, the unbiased estimator needs four."""

MOST = 1e-3
"""The share of ⟨A, A⟩ below which what other samples hold is computed from them alone."""


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
    >>> more.measure, more.low > 0
    ('cka difference', True)

    ::

        SE² = (k−1)/k · Σ_i (θ₍₋ᵢ₎ − θ̄)²        θ₍₋ᵢ₎ the CKA without sample (group) i, k of them
        interval: tanh(artanh θ ± q SE(artanh θ₍₋ᵢ₎)),   of a difference: θ ± q SE

    with q the normal quantile. The Grams are computed once: with A, B the U-centred Grams and r_i =
    Σ_j A_ij B_ij, the inner product without sample i is Σ r − 2 r_i (n−2)/(n−3).

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
        differences, and ``measure`` is "cka difference".

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
    contains it. With few samples or groups it is somewhat too short because it uses the normal
    quantile. If the CKA of the population is zero, its error is not normal; use
    :func:`repsim.permutation_test`.

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
    whole = resolve_groups(operation, groups, n)
    if whole is not None and n - max(whole.sizes) < FEWEST - 1:
        raise InputError(
            f"{operation}: without any group at least {FEWEST - 1} samples must be left.\n"
            f"  n={n}, the largest of {len(whole.sizes)} groups has {max(whole.sizes)} samples\n"
            f"  Bring more groups."
        )
    c = a if minus is None else _third(operation, xp, (x, y), a, minus)
    dtype = xp.result_type(a.dtype, c.dtype)
    a, b, c = (xp.astype(side, dtype, copy=False) for side in (a, b, c))
    value, without = _replicates(operation, {"x": a, "y": b}, whole, kernel)
    if minus is not None:
        other, without_other = _replicates(operation, {"minus": c, "y": b}, whole, kernel)
        value, without = value - other, without - without_other
    sizes = np.ones(n) if whole is None else np.asarray(whole.sizes)
    error = _standard_error(value, without, sizes)
    error_z = math.nan
    if minus is None:
        with np.errstate(divide="ignore", invalid="ignore"):  # artanh(±1): see `interval`
            error_z = _standard_error(np.arctanh(value), np.arctanh(without), sizes)
    low, high = interval(value, error, error_z, level, fisher=minus is None)
    return Interval(
        measure="cka" if minus is None else "cka difference",
        value=value,
        standard_error=error,
        low=low,
        high=high,
        level=level,
        replicates=without,
        n_samples=n,
        n_groups=None if whole is None else len(whole.sizes),
    )


def _third(
    operation: str, xp: Namespace, pair: tuple[Array, Array], like: Array, minus: Array
) -> Array:
    """Return a third array of the samples of a pair, (n, p); ``like`` is one of both, checked."""
    names = {"x": pair[0], "y": pair[1], "minus": minus}
    *_, minus = unlabelled(operation, names)
    namespace(operation, x=like, minus=minus)
    require_same_n(operation, "x and minus", ("x", like), ("minus", minus))
    why = "leaving one sample out"
    out = as_samples(operation, xp, minus, "minus", min_samples=FEWEST, why=why)
    check_finite(operation, xp, out, "minus")
    return out


def _replicates(
    operation: str, sides: Mapping[str, Array], whole: Groups | None, kernel: Any
) -> tuple[float, Values]:
    """Return the CKA of two arrays, by their names, and that without each sample (group)."""
    measure = resolve_measure(operation, "cka")
    options = measure.options(operation, {"kernel": kernel, "estimator": "unbiased"})
    items = [measure.prepare(operation, side, name=name, **options) for name, side in sides.items()]
    value = float(measure.compare(*items, **options))
    a, *_ = sides.values()
    xp, n = array_namespace(a), a.shape[0]
    wide = accumulator_dtype(xp, a)
    first, second = (xp.astype(item.form(False)[0], wide, copy=False) for item in items)
    left = [
        _without_each(u, v) if whole is None else _without_groups(u, v, whole)
        for u, v in ((first, second), (first, first), (second, second))
    ]
    products = Products(left[0], left[1], left[2])
    rows = [np.array([i]) for i in range(n)] if whole is None else list(whole.rows)
    without = np.array(to_numpy(alignment(xp, products)))
    if not math.isnan(value):
        places = _dominating(products, items)
        few = [rows[int(at)] for at in places]
        without[places], constant = _anew(operation, sides, few, options)
        _warn_of_constants(operation, constant, "sample" if whole is None else "group")
    return value, without


def _without_each(a: Array, b: Array) -> Array:
    """Return ⟨A, B⟩ without each sample (n,), up to a factor that depends on n.

    The rows of A and B sum to zero, so Song's estimator for n − 1 samples reduces to Σ r − 2 r_i −
    2 r_i/(n − 3).
    """
    xp, n = array_namespace(a), a.shape[0]
    rows = xp.sum(a * b, axis=1)
    out: Array = xp.sum(rows) - rows * (2 * (n - 2) / (n - 3))
    return out


def _without_groups(a: Array, b: Array, groups: Groups) -> Array:
    """Return ⟨A, B⟩ of the samples outside each group (g,), up to one factor per group.

    Song et al. 2012, Eq. 5 for the m remaining samples. With z the indicator of a group S, and A1 =
    B1 = 0: Σ A_ij over the remaining samples is zᵀAz, their row sums are −(Az)_i, and Σ A_ij B_ij
    is Σ r − 2 Σ_S r + zᵀ(A∘B)z.
    """
    xp, n = array_namespace(a), a.shape[0]
    indicator = np.zeros((n, len(groups.rows)))
    for g, rows in enumerate(groups.rows):
        indicator[rows, g] = 1.0
    z = xp.asarray(indicator, dtype=a.dtype, device=device(a))
    m = xp.asarray(n - np.asarray(groups.sizes, dtype=np.float64), dtype=a.dtype, device=device(a))
    both = a * b
    az, bz, both_z = a @ z, b @ z, both @ z
    pairs = xp.sum(both) - 2 * xp.sum(both_z, axis=0) + xp.sum(z * both_z, axis=0)
    total = xp.sum(z * az, axis=0) * xp.sum(z * bz, axis=0)
    rows_left = xp.sum((1 - z) * az * bz, axis=0)
    out: Array = pairs + total / ((m - 1) * (m - 2)) - 2 * rows_left / (m - 2)
    return out


def _dominating(left: Products, items: Sequence[Any]) -> Indices:
    """Return the few samples (groups) without which hardly anything is left of a side.

    There the difference of sums would be their rounding.
    """
    selves = zip((left.xx, left.yy), items, strict=True)
    few = [to_numpy(product < MOST * item.self_product(False)) for product, item in selves]
    return np.flatnonzero(few[0] | few[1])


def _anew(
    operation: str, sides: Mapping[str, Array], few: Sequence[Any], options: Mapping[str, Any]
) -> tuple[Values, dict[str, int]]:
    """Return the CKA without each of a few sets of rows, from the other rows alone.

    Also how often each side is constant without them; the CKA is NaN there.
    """
    out, constant = np.full(len(few), math.nan), dict.fromkeys(sides, 0)
    if not few:
        return out, constant
    (name_x, first), (name_y, _) = sides.items()
    xp, measure = array_namespace(first), resolve_measure(operation, "cka")
    kernel, estimator = resolve_kernel(operation, options["kernel"]), options["estimator"]
    # A bandwidth is that of all samples.
    kernels = [kernel.fit(side) for side in sides.values()]
    for at, rows in enumerate(few):
        kept = xp.asarray(np.delete(np.arange(first.shape[0]), rows), device=device(first))
        x, y = (
            KernelItem(
                operation,
                name,
                xp.take(side, kept, axis=0),
                fitted,
                resolve_estimator(operation, estimator),
            )
            for (name, side), fitted in zip(sides.items(), kernels, strict=True)
        )
        features = x.from_features(y, self_products=True)
        gone = {name: item.vanishes(features) for name, item in ((name_x, x), (name_y, y))}
        constant = {name: count + gone[name] for name, count in constant.items()}
        if not any(gone.values()):
            out[at] = float(measure.compare(x, y, **options))
    return out, constant


def _warn_of_constants(operation: str, constant: Mapping[str, int], unit: str) -> None:
    for name, count in constant.items():
        if count:
            warn(
                f"{operation}: {name} is constant without one of its {unit}s ({count} such "
                f"{unit}{'s' * (count > 1)}), so the standard error and the interval are NaN.",
                DegenerateWarning,
            )


def _standard_error(value: float, without: Values, sizes: Values) -> float:
    """Delete-m jackknife (Busing et al. 1999, Eq. 4); for equal m √((k−1)/k Σ (θ₍₋ᵢ₎ − θ̄)²)."""
    k, h = len(without), float(np.sum(sizes)) / sizes
    pseudo = h * value - (h - 1) * without
    estimate = k * value - np.sum((1 - 1 / h) * without)
    return float(np.sqrt(np.mean((pseudo - estimate) ** 2 / (h - 1))))
