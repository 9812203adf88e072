"""The bootstrap of RSA over conditions and subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from repsim._errors import InputError
from repsim._options import as_count, require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace, to_numpy, without_autocast
from repsim.inference._draws import resolve_seed
from repsim.inference._interval import check_level, difference_of, interval, p_value_of
from repsim.inference.repeats._interval import SubjectsInterval
from repsim.inference.repeats._subjects import (
    CONDITIONS,
    named_subjects,
    refuse_several,
    resolve_resample,
)
from repsim.inference.repeats._weighted import WEIGHTED, resampled_values
from repsim.measures import MEASURES
from repsim.measures.parts.rdms import samples_of

__all__ = ["bootstrap_rsa"]

Values = np.ndarray[Any, np.dtype[np.float64]]


@without_autocast
def bootstrap_rsa(
    x: Array,
    ys: Array | Sequence[Array] | Mapping[str, Array],
    *,
    minus: Array | None = None,
    rdm: Literal[
        "euclidean", "sqeuclidean", "correlation", "cosine", "crossnobis", "precomputed"
    ] = "euclidean",
    comparison: Literal["spearman", "pearson", "cosine"] = "spearman",
    repeats: int | None = None,
    resample: Literal["conditions", "subjects", "both"] | None = None,
    draws: int = 1000,
    level: float = 0.95,
    seed: int | np.random.Generator = 0,
) -> SubjectsInterval:
    """Confidence interval of RSA over other conditions, other subjects, or both.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> model = rng.standard_normal((30, 6))
    >>> subjects = [model @ rng.standard_normal((6, 20)) for _ in range(8)]
    >>> subjects = [s + 3 * rng.standard_normal(s.shape) for s in subjects]
    >>> found = repsim.inference.bootstrap_rsa(model, subjects, draws=200)
    >>> found.low < found.value < found.high, found.resampled
    (True, 'both')
    >>> bool(found.standard_error > found.error_of_subjects)
    True
    >>> part = model[:, :2]
    >>> more = repsim.inference.bootstrap_rsa(model, subjects, minus=part, draws=200)
    >>> more.low > 0, more.p_value < 0.05
    (True, True)

    ::

        value = mean over the R subjects of RSA(x, y_r), or of RSA(x, y_r) − RSA(minus, y_r)
        V_c, V_s, V_cs = variance of value over draws of conditions, of subjects, of both
        SE²(both) = f V_s + g V_c − f g (V_cs − V_s − V_c),   f = R/(R−1), g = n/(n−1)
        SE²(conditions) = g V_c,   SE²(subjects) = f V_s

    Conditions and subjects are drawn with replacement. A condition that is drawn c_i times is in
    c_i c_j pairs with another one; the pairs of a condition with its own copies are left out. Draws
    in which all dissimilarities of a side are equal have no value and are left out too. The
    interval is tanh(artanh(value) ± q SE/(1 − value²)), and that of a difference is value ± q SE,
    with q the quantile of Student's t. It has m − 1 degrees of freedom, with m the number of
    conditions or of subjects that are drawn; if both are drawn, m is the smaller one.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of the model for n ≥ 8 conditions; trailing axes are flattened.
    ys : array, shape (n, q) or (n, ...), or sequence or mapping of R arrays (n, q_r)
        The same conditions in the same order, of one subject or of several. Subjects may have
        different features. One framework and device. Ready RDMs of several subjects may be one
        array (R, n, n).
    minus : array, shape (n, r) or (n, ...), optional
        A second model of the same conditions. The interval is then that of the difference of both
        models, above zero if x is closer to the subjects. Both have the same draws, so what they
        share does not widen it.
    rdm : str, default "euclidean"
        As in :func:`repsim.rsa`. ``"precomputed"``: ``x`` and ``ys`` are ready RDMs, each (n, n) or
        its entries above the diagonal.
    comparison : {"spearman", "pearson", "cosine"}, default "spearman"
        As in :func:`repsim.rsa`; ranks are those among the drawn pairs. ``"rho_a"`` and
        ``"whitened"`` have no value for conditions with copies; Kendall's τ is not offered.
    repeats : int, optional
        As in :func:`repsim.rsa`.
    resample : {"both", "conditions", "subjects"}, optional
        What the interval is about. ``"conditions"``: other conditions of the same kind and these
        subjects. ``"subjects"``: these conditions and other subjects, at least 3. ``"both"``: other
        conditions and other subjects. By default ``"both"`` with several subjects, otherwise
        ``"conditions"``.
    draws : int, default 1000
        At least 50.
    level : float, default 0.95
        The level of the interval, in (0, 1).
    seed : int or numpy.random.Generator, default 0
        Source of the draws. The same seed gives the same result; a generator moves on.

    Returns
    -------
    SubjectsInterval
        ``value``, ``standard_error``, ``low``, ``high``, ``by_subject``, both parts of the error,
        and the ``replicates`` of what was drawn, as floats and NumPy arrays. With ``minus`` all of
        them are differences, and there is a ``p_value``; ``measure`` is "rsa difference".

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Fewer than 8 conditions or, where subjects are drawn, 3 subjects, because no coverage was
        measured for fewer; different n, NaN or infinity (``NonFiniteError``), unknown or unsuitable
        option.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: all values are NaN.

    Notes
    -----
    There is no bootstrap of :func:`cka`, because copies of a sample stand off the diagonal of its
    Gram, and centring mixes them into every entry. RSA compares pairs one by one, so the pairs of
    copies can be left out.

    The plain variance over draws of both counts the noise of single subjects with single conditions
    three times; the formula above counts it once. The result is never less than the variance of one
    factor. How often 95 % intervals contain the true value (``benchmarks/subjects.py``): 88 to 100
    % over both, 93 to 99 % over conditions, 88 to 94 % over subjects. It is low where some of about
    ten subjects are far noisier than the others: their values are then skewed, and Student's t
    assumes a normal distribution. It is high for very few subjects or conditions.

    Intervals of a difference over both contain the true one in 94 to 100 %
    (``benchmarks/differences.py``). Those of a paired t-test of subjects contain it in 68 to 95 %,
    because the test takes no account of the conditions.

    Independent conditions and subjects are assumed. Frames of one film, or several sessions of one
    subject, are not: average them first. The value itself depends on noise in the subjects' RDMs;
    compare it with :func:`repsim.noise_ceiling`. Cost: R + 1 RDMs, then O(draws R n²), and memory
    O(R n²).

    References
    ----------
    Schütt, Kipnis, Diedrichsen, Kriegeskorte 2023, "Statistical inference on representational
    geometries", eLife 12:e82566. Nili et al. 2014, PLoS Computational Biology 10.
    """
    operation = "bootstrap_rsa"
    check_level(operation, level)
    count = as_count(operation, "draws", draws, least=50)
    _require_weighted(operation, comparison)
    refuse_several(operation, x)
    dims = getattr(ys, "ndim", None)  # labelled arrays have it too
    stacked = dims == 3 and isinstance(rdm, str) and rdm == "precomputed"
    several = ys if dims is None or stacked else [ys]
    about, least = resolve_resample(operation, several, resample)
    models = {"x": x} if minus is None else {"x": x, "minus": minus}
    vectors = _entries(operation, models, several, rdm, comparison, repeats, least)
    rng = resolve_seed(operation, seed)
    first, *second, ys = vectors[0], *vectors[1 : len(models)], vectors[len(models) :]

    def values_of(counts: Values) -> Values:
        values = resampled_values(first, ys, counts, comparison)
        return values - resampled_values(second[0], ys, counts, comparison) if second else values

    n, r = samples_of(vectors.shape[1]), len(ys)
    by_subject = values_of(np.ones((1, n)))[0]
    value = float(np.mean(by_subject))
    value = difference_of(value, 0.0) if second else value
    nan = np.full(0, math.nan)
    replicates, error, of_conditions, of_subjects = nan, math.nan, math.nan, math.nan
    if not math.isnan(value):
        conditions = subjects = None
        if about != "subjects":
            conditions = values_of(_counts(rng, count, n))
            # Draws of hardly any different conditions have no correlation.
            conditions = conditions[~np.any(np.isnan(conditions), axis=1)]
        if about != "conditions":
            size = count if conditions is None else len(conditions)
            subjects = _counts(rng, size, r) / r
        replicates, error, of_conditions, of_subjects = _spread(by_subject, conditions, subjects, n)
    freedom = {"conditions": n, "subjects": r, "both": min(n, r)}[about] - 1
    low, high = interval(value, error, math.inf, level, fisher=not second, freedom=freedom)
    return SubjectsInterval(
        measure="rsa difference" if second else "rsa",
        similarity=True,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        level=level,
        replicates=replicates,
        n_samples=n,
        n_groups=None,
        resampled=about,
        by_subject=by_subject,
        error_of_conditions=of_conditions,
        error_of_subjects=of_subjects,
        n_subjects=r,
        p_value=p_value_of(value, error, freedom) if second else math.nan,
    )


def _require_weighted(operation: str, comparison: str) -> None:
    reasons = {
        "rho_a": "rho_a counts ties against a model, and copies of a condition are ties",
        "whitened": "the covariance of pairs is singular if a condition is drawn twice",
    }
    if isinstance(comparison, str) and comparison in reasons:
        raise InputError(
            f"{operation}: comparison={comparison!r} has no bootstrap.\n"
            f"  {reasons[comparison]}\n"
            f"  Pass one of {', '.join(map(repr, WEIGHTED))}, or use repsim.inference.subsample."
        )
    require_choice(operation, "comparison", comparison, WEIGHTED)


def _entries(
    operation: str,
    models: Mapping[str, Array],
    ys: Any,
    rdm: str,
    comparison: str,
    repeats: int | None,
    least: int,
) -> Values:
    """Return the entries of all RDMs, (models + subjects, m), those of the models first."""
    measure = MEASURES["rsa"]
    settings = {"rdm": rdm, "comparison": comparison, "repeats": repeats}
    arrays = named_subjects(
        operation,
        "ys",
        ys,
        fewest=CONDITIONS,
        why="the bootstrap of conditions",
        least=least,
        measure=measure,
        settings=settings,
        beside=models,
    )
    xp = array_namespace(next(iter(arrays.values())))
    dtype = xp.result_type(*(v.dtype for v in arrays.values()))
    out = []
    assert measure.entries is not None
    for name, v in arrays.items():
        v = xp.astype(v, dtype, copy=False)
        item = measure.prepare(operation, v, name=name, **settings)
        out.append(to_numpy(measure.entries(item)).astype(np.float64))
    return np.stack(out)


def _counts(rng: np.random.Generator, draws: int, units: int) -> Values:
    """Return how often each unit is drawn, (draws, units)."""
    drawn = rng.integers(0, units, (draws, units))
    out = np.zeros((draws, units))
    np.add.at(out, (np.arange(draws)[:, None], drawn), 1.0)
    return out


def _spread(
    by_subject: Values, conditions: Values | None, subjects: Values | None, n: int
) -> tuple[Values, float, float, float]:
    """Return replicates, and the standard errors of what was drawn, of conditions, of subjects.

    ``conditions`` (draws, subjects) are values over drawn conditions; ``subjects`` (draws,
    subjects) are shares of the drawn subjects.
    """
    r, g = len(by_subject), n / (n - 1)
    f = r / (r - 1) if r > 1 else math.nan
    if subjects is None:
        assert conditions is not None
        values = np.mean(conditions, axis=1)
        error = math.sqrt(g * float(np.var(values)))
        return values, error, error, math.nan
    alone = subjects @ by_subject
    v_s = float(np.var(alone))
    if conditions is None:
        return alone, math.sqrt(f * v_s), math.nan, math.sqrt(f * v_s)
    v_c = float(np.var(np.mean(conditions, axis=1)))
    both = np.sum(conditions * subjects, axis=1)
    v_cs = float(np.var(both))
    # Schütt et al. 2023: the interaction is in V_cs three times, and in V_c and V_s once.
    corrected = f * v_s + g * v_c - f * g * (v_cs - v_s - v_c)
    variance = max(corrected, f * v_s, g * v_c)
    return both, math.sqrt(variance), math.sqrt(g * v_c), math.sqrt(f * v_s)
