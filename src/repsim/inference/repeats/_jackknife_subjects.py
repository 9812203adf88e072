"""The jackknife of unbiased CKA over conditions and subjects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from repsim._errors import InputError
from repsim._typing import Array, KernelName
from repsim.arrays import array_namespace, without_autocast
from repsim.inference._interval import Values, check_level, difference_of, interval, p_value_of
from repsim.inference._left_out import LeftOut
from repsim.inference.repeats._interval import SubjectsInterval
from repsim.inference.repeats._subjects import (
    CONDITIONS,
    named_subjects,
    refuse_several,
    resolve_resample,
)
from repsim.kernels import Kernel
from repsim.measures import resolve_measure

__all__ = ["jackknife_subjects"]


@without_autocast
def jackknife_subjects(
    x: Array,
    ys: Array | Sequence[Array] | Mapping[str, Array],
    *,
    minus: Array | None = None,
    kernel: KernelName | Kernel = "linear",
    groups: Any = None,
    resample: Literal["conditions", "subjects", "both"] | None = None,
    level: float = 0.95,
) -> SubjectsInterval:
    """Confidence interval of unbiased CKA over other conditions, other subjects, or both.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> model = rng.standard_normal((40, 6))
    >>> subjects = [model @ rng.standard_normal((6, 20)) for _ in range(8)]
    >>> subjects = [s + 3 * rng.standard_normal(s.shape) for s in subjects]
    >>> found = repsim.inference.jackknife_subjects(model, subjects)
    >>> found.low < found.value < found.high, found.resampled
    (True, 'both')
    >>> bool(found.standard_error >= found.error_of_conditions)
    True
    >>> more = repsim.inference.jackknife_subjects(model, subjects, minus=model[:, :2])
    >>> more.low > 0, more.p_value < 0.05
    (True, True)

    ::

        θ_r = CKA(x, y_r), or CKA(x, y_r) − CKA(minus, y_r);   value = θ̄, the mean over R subjects
        J(θ) = (k−1)/k · Σ_i (θ₍₋ᵢ₎ − mean of θ₍₋ᵢ₎)²   θ₍₋ᵢ₎ without condition (group) i, k of them
        V_c = J(θ̄),   V_s = Σ_r (θ_r − θ̄)² / (R(R−1)),   V_cs = Σ_r J(θ_r − θ̄) / (R(R−1))
        SE²(both) = V_c + V_s − V_cs,   SE²(conditions) = V_c,   SE²(subjects) = V_s

    The noise of single subjects with single conditions is in V_c and in V_s, so V_cs subtracts it
    once. SE²(both) is never less than the variance of one factor. The interval is
    tanh(artanh(value) ± q SE/(1 − value²)), and that of a difference is value ± q SE, with q the
    quantile of Student's t. It has m − 1 degrees of freedom, with m the number of conditions
    (groups) or of subjects; for both, m is the smaller one.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of the model for n ≥ 8 conditions; trailing axes are flattened.
    ys : array, shape (n, q) or (n, ...), or sequence or mapping of R arrays (n, q_r)
        The same conditions in the same order, of one subject or of several. Subjects may have
        different features. One framework and device.
    minus : array, shape (n, r) or (n, ...), optional
        A second model of the same conditions. The interval is then that of the difference of both
        models, above zero if x is closer to the subjects. Both lack the same conditions and have
        the same subjects, so what they share does not widen it.
    kernel : str or Kernel, default "linear"
        As in :func:`repsim.cka`. A bandwidth that follows the data is computed from all conditions.
    groups : sequence or one-dimensional array of n labels, optional
        Labels of conditions that are dependent, such as the frames of one film. Whole groups are
        left out. An interval about the same conditions (``"subjects"``) leaves none out, so it does
        not depend on them.
    resample : {"both", "conditions", "subjects"}, optional
        What the interval is about. ``"conditions"``: other conditions of the same kind and these
        subjects. ``"subjects"``: these conditions and other subjects, at least 3. ``"both"``: other
        conditions and other subjects. By default ``"both"`` with several subjects, otherwise
        ``"conditions"``.
    level : float, default 0.95
        The level of the interval, in (0, 1).

    Returns
    -------
    SubjectsInterval
        ``value``, ``standard_error``, ``low``, ``high``, ``by_subject`` and both parts of the
        error, as floats and NumPy arrays. ``replicates`` are the means over subjects without each
        condition (group), or over the other subjects for ``"subjects"``. With ``minus`` all of them
        are differences, and there is a ``p_value``; ``measure`` is "cka difference".

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Fewer than 8 conditions or, where the interval is about other subjects, 3 subjects, because
        no coverage was measured for fewer; a group so large that fewer than 4 conditions remain
        without it; different n, NaN or infinity (``NonFiniteError``), unknown option.

    Warns
    -----
    DegenerateWarning
        If a representation is constant: all values are NaN. If it is constant after leaving out one
        of the conditions: the standard error and the interval are NaN.

    Notes
    -----
    How often 95 % intervals contain the true value (``benchmarks/subjects_cka.py``): 94 to 100 %
    over both, 94 to 97 % over conditions, 87 to 98 % over subjects, and 94 to 100 % of a difference
    over both. It is low over subjects where some of about ten are far noisier than the others, and
    high for very few subjects or conditions. If the CKA of the population is zero, its error is not
    normal; use :func:`repsim.permutation_test` or, for several subjects, :func:`repsim.max_t`.

    With groups the interval of ``"both"`` is one for other groups. Independent subjects are
    assumed; several sessions of one subject are not: average them first. The value itself depends
    on noise in the recordings; compare it with :func:`repsim.noise_ceiling`. For RSA there is
    :func:`repsim.inference.bootstrap_rsa`. Cost: O(R n² p) and memory O(R n²).

    References
    ----------
    Efron, Stein 1981, "The jackknife estimate of variance", Annals of Statistics 9. Busing,
    Meijer, van der Leeden 1999, "Delete-m jackknife for unequal m", Statistics and Computing 9.
    Schütt, Kipnis, Diedrichsen, Kriegeskorte 2023, "Statistical inference on representational
    geometries", eLife 12:e82566, for the variance of two factors.
    """
    operation = "jackknife_subjects"
    check_level(operation, level)
    refuse_several(operation, x)
    several = ys if getattr(ys, "ndim", None) is None else [ys]
    about, least = resolve_resample(operation, several, resample)
    models = {"x": x} if minus is None else {"x": x, "minus": minus}
    arrays = _arrays(operation, models, several, kernel, least)
    left = LeftOut(operation, arrays, kernel, groups)
    k = len(left.sizes)
    if about != "subjects" and k < CONDITIONS:
        raise InputError(
            f"{operation}: at least {CONDITIONS} groups are needed, because no coverage was "
            f"measured for fewer.\n  got {k}\n  Bring more groups."
        )
    subjects = list(arrays)[len(models) :]
    by_subject, without = _of_all(left, "x", subjects, about)
    if minus is not None:
        others, without_others = _of_all(left, "minus", subjects, about)
        by_subject, without = by_subject - others, without - without_others
    value = float(np.mean(by_subject))
    value = difference_of(value, 0.0) if minus is not None else value
    replicates, both, of_conditions, of_subjects = _spread(left, by_subject, without, about)
    error = {"both": both, "conditions": of_conditions, "subjects": of_subjects}[about]
    r = len(subjects)
    freedom = {"conditions": k, "subjects": r, "both": min(k, r)}[about] - 1
    low, high = interval(value, error, math.inf, level, fisher=minus is None, freedom=freedom)
    return SubjectsInterval(
        measure="cka" if minus is None else "cka difference",
        similarity=True,
        value=value,
        standard_error=error,
        low=low,
        high=high,
        level=level,
        replicates=replicates,
        n_samples=next(iter(arrays.values())).shape[0],
        n_groups=None if left.groups is None else k,
        resampled=about,
        by_subject=by_subject,
        error_of_conditions=of_conditions,
        error_of_subjects=of_subjects,
        n_subjects=r,
        p_value=math.nan if minus is None else p_value_of(value, error, freedom),
    )


def _arrays(
    operation: str, models: Mapping[str, Array], ys: Any, kernel: Any, least: int
) -> dict[str, Array]:
    """Return all arrays in one precision, those of the models first."""
    named = named_subjects(
        operation,
        "ys",
        ys,
        fewest=CONDITIONS,
        why="the jackknife of conditions",
        least=least,
        measure=resolve_measure(operation, "cka"),
        settings={"kernel": kernel, "estimator": "unbiased"},
        beside=models,
    )
    xp = array_namespace(next(iter(named.values())))
    dtype = xp.result_type(*(each.dtype for each in named.values()))
    return {name: xp.astype(each, dtype, copy=False) for name, each in named.items()}


def _of_all(
    left: LeftOut, model: str, subjects: Sequence[str], about: str
) -> tuple[Values, Values]:
    """Return the CKA of a model with each subject (R,), and that without each condition (R, k).

    An interval about the same conditions leaves none out, so the latter is (R, 0).
    """
    if about == "subjects":
        values = [left.value(model, subject) for subject in subjects]
        return np.array(values), np.zeros((len(values), 0))
    found = [left.of(model, subject) for subject in subjects]
    return np.array([value for value, _ in found]), np.stack([without for _, without in found])


def _spread(
    left: LeftOut, by_subject: Values, without: Values, about: str
) -> tuple[Values, float, float, float]:
    """Return replicates, and the standard errors of both factors, of conditions, of subjects."""
    r, value = len(by_subject), float(np.mean(by_subject))
    of_subjects = float(np.std(by_subject, ddof=1)) / math.sqrt(r) if r > 1 else math.nan
    if about == "subjects":
        others = (r * value - by_subject) / (r - 1)
        return others, math.nan, math.nan, of_subjects
    means = np.mean(without, axis=0)
    of_conditions = left.standard_error(value, means)
    if about == "conditions":
        return means, math.nan, of_conditions, math.nan
    own = zip(by_subject - value, without - means, strict=True)
    shared = sum(left.standard_error(*each) ** 2 for each in own) / (r * (r - 1))
    variance = of_conditions**2 + of_subjects**2 - shared
    both = math.sqrt(max(variance, of_conditions**2, of_subjects**2))
    return means, both, of_conditions, of_subjects
