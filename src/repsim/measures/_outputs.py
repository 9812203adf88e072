"""Similarity of what two models answer: their distributions over classes, and their choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from array_api_compat import device

from repsim._errors import DegenerateWarning, InputError, warn
from repsim._options import got, require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import (
    accumulator_dtype,
    describe,
    known,
    paired,
    scalar,
    to_numpy,
    unlabelled,
    without_autocast,
)
from repsim.measures.parts._subspace import where_defined

__all__ = ["disagreement", "jensen_shannon"]

VALUES = ("logits", "probabilities")

TOLERANCE = 0.01
"""How far the sum of a row of probabilities may be from 1, which half precision rounds to 2⁻⁸."""


@without_autocast
def jensen_shannon(
    x: Array, y: Array, *, values: Literal["logits", "probabilities"] = "logits"
) -> Array:
    """Mean Jensen–Shannon divergence between the class distributions of two models.

    >>> import numpy as np, repsim
    >>> x = np.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> float(repsim.jensen_shannon(x, x + 5))
    0.0
    >>> p, q = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    >>> round(float(repsim.jensen_shannon(p, q, values="probabilities")), 4)
    0.6931

    ::

        JS = mean_i ½ Σ_k [p_ik ln(p_ik/m_ik) + q_ik ln(q_ik/m_ik)],   m = (p + q)/2

    with p and q the softmax of the logits.

    Parameters
    ----------
    x : array, shape (n, K)
        Logits or probabilities of K ≥ 2 classes for n samples.
    y : array, shape (n, K)
        Those of the other model for the same samples in the same order, with the classes in the
        same order; same framework and device.
    values : {"logits", "probabilities"}, default "logits"
        What the arrays hold. Logarithms of probabilities are logits. Probabilities of a sample sum
        to 1 (within 0.01, for half precision), and are divided by their sum.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In nats, from 0, where all distributions are equal, to ln 2, where no two overlap. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n or K, not two-dimensional or empty input, NaN or infinity (``NonFiniteError``),
        unknown ``values``, probabilities that are negative or do not sum to 1.

    Notes
    -----
    Symmetric; a dissimilarity, and its square root is a metric. Invariant to a constant that is
    added to all logits of a sample. Not invariant to the order of the classes on one side.
    Differentiable where the inputs are. Computed in float64 where the device has it. Cost O(n K).

    References
    ----------
    Lin 1991, "Divergence measures based on the Shannon entropy". Klabunde et al. 2023,
    arXiv:2305.06329, section 4, for models.
    """
    require_choice("jensen_shannon", "values", values, VALUES)
    xp, a, b = _outputs("jensen_shannon", x, y)
    p, q = (_probabilities(xp, each, name, values) for name, each in (("x", a), ("y", b)))
    middle = (p + q) / 2
    # p = m(1 + d) and q = m(1 − d): no digit is lost where the two are nearly equal.
    d = (p - q) / 2 / xp.where(middle > 0, middle, xp.ones_like(middle))
    terms = middle * (_x_log_x(xp, d) + _x_log_x(xp, -d)) / 2
    return scalar(xp, xp.mean(xp.sum(terms, axis=1)), a.dtype)


@without_autocast
def disagreement(x: Array, y: Array, *, labels: Sequence[int] | Array | None = None) -> Array:
    """Share of samples that two models put into different classes.

    >>> import numpy as np, repsim
    >>> x = np.eye(4)[[0, 1, 2, 3, 0, 1, 2, 3]]
    >>> y = np.eye(4)[[0, 1, 2, 3, 0, 1, 3, 2]]
    >>> float(repsim.disagreement(x, y))
    0.25
    >>> float(repsim.disagreement(x, y, labels=[0, 1, 2, 3, 0, 1, 0, 0]))
    0.5

    ::

        d = mean_i [argmax_k x_ik ≠ argmax_k y_ik]
        with labels   (d − d_min)/(d_max − d_min)
        d_min = |e_x − e_y|,   d_max = min(e_x + e_y, 1)

    with e the error rates. With K = 2 classes two wrong answers are the same, so there
    d_max = min(e_x + e_y, 2 − e_x − e_y).

    Parameters
    ----------
    x : array, shape (n, K)
        Logits or probabilities of K ≥ 2 classes for n samples; if several values are the largest,
        the first decides.
    y : array, shape (n, K)
        Those of the other model for the same samples in the same order, with the classes in the
        same order; same framework and device.
    labels : sequence or array of n class numbers from 0, optional
        The right answers. With them the value is normalised by what the accuracies of the two
        models allow.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit. With labels, 0 is the least and 1 the greatest disagreement that
        the accuracies of the two models allow. Same namespace and device as the inputs; float32 for
        half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n or K, not two-dimensional or empty input, NaN or infinity (``NonFiniteError``),
        labels that are not n class numbers from 0 to K − 1.

    Warns
    -----
    DegenerateWarning
        With labels, if the accuracies allow only one value, for example because a model makes no
        error: NaN is returned.

    Notes
    -----
    Symmetric; a dissimilarity. Two models of accuracies .9 and .6 disagree in at least .3 and at
    most .5 of the samples, so without normalisation the value mostly shows the accuracies. The
    value has no derivative. Cost O(n K).

    References
    ----------
    Madani, Pennock, Flake 2004, "Co-validation: using model disagreement on unlabeled data to
    validate classification algorithms". Klabunde et al. 2023, arXiv:2305.06329, section 4, for the
    normalisation.
    """
    xp, a, b = _outputs("disagreement", x, y)
    chosen = [xp.argmax(each, axis=1) for each in (a, b)]
    differ = _share(xp, chosen[0] != chosen[1], a.dtype)
    if labels is None:
        return scalar(xp, differ, a.dtype)
    right = xp.asarray(_labels(labels, *a.shape), dtype=chosen[0].dtype, device=device(a))
    e_x, e_y = (_share(xp, each != right, a.dtype) for each in chosen)
    both = e_x + e_y
    most = xp.minimum(both, 2 - both if a.shape[1] == 2 else xp.ones_like(both))
    least = xp.abs(e_x - e_y)
    free = most - least > 0.5 / a.shape[0]  # shares are multiples of 1/n
    if known(free) is False:
        warn(
            f"disagreement: x and y have accuracies that allow only one value "
            f"({float(least):.3g}), so the normalised value is undefined and NaN is returned.",
            DegenerateWarning,
        )
    span = xp.where(free, most - least, xp.ones_like(most))
    return scalar(xp, where_defined(xp, (differ - least) / span, free), a.dtype)


def _outputs(operation: str, x: Array, y: Array) -> tuple[Namespace, Array, Array]:
    """Return checked outputs in the dtype to compute in: float64 where the device has it."""
    xp, a, b = paired(operation, x, y, min_samples=1, why=operation)
    for name, each in (("x", x), ("y", y)):
        if each.ndim != 2 or each.shape[1] < 2:
            raise InputError(
                f"{operation}: {name} must hold one row of K ≥ 2 classes for each sample.\n"
                f"  expected (n, K)\n"
                f"  got {describe(name, each)}\n"
                f"  Tokens are samples: flatten (n, T, K) to (n·T, K), without padding."
            )
    if a.shape[1] != b.shape[1]:
        raise InputError(
            f"{operation}: x and y must have the same classes.\n"
            f"  x: K={a.shape[1]}    y: K={b.shape[1]}"
        )
    return xp, a, b


def _probabilities(xp: Namespace, given: Array, name: str, values: str) -> Array:
    """Return probabilities, (n, K): the softmax of logits."""
    wide = xp.astype(given, accumulator_dtype(xp, given), copy=False)
    if values == "logits":
        powers = xp.exp(wide - xp.max(wide, axis=1, keepdims=True))
        out: Array = powers / xp.sum(powers, axis=1, keepdims=True)
        return out
    gap = xp.max(xp.abs(xp.sum(wide, axis=1) - 1))
    rounding = given.shape[1] * float(xp.finfo(given.dtype).eps) + TOLERANCE
    if known(xp.any(wide < 0) | (gap > rounding)):
        raise InputError(
            f"jensen_shannon: {name} must hold probabilities.\n"
            f"  least {float(xp.min(wide)):.3g}, largest |sum − 1| of a row {float(gap):.3g}\n"
            f"  Are these logits? Then leave values= out."
        )
    scaled: Array = wide / xp.sum(wide, axis=1, keepdims=True)
    return scaled


def _x_log_x(xp: Namespace, d: Array) -> Array:
    """Return (1 + d) ln(1 + d) for d ≥ −1, zero at −1."""
    end = d <= -1
    safe = xp.where(end, xp.zeros_like(d), d)
    out: Array = xp.where(end, xp.zeros_like(d), (1 + safe) * xp.log1p(safe))
    return out


def _share(xp: Namespace, flags: Array, dtype: Any) -> Array:
    out: Array = xp.mean(xp.astype(flags, dtype))
    return out


def _labels(labels: Any, n: int, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return labels as class numbers, or raise."""
    (plain,) = unlabelled("disagreement", {"labels": labels})
    try:
        found = np.asarray(to_numpy(plain))
    except (TypeError, ValueError):  # lists of several lengths
        found = np.asarray(None)
    whole = found.dtype.kind in "iub" and found.shape == (n,)
    if not whole or found.min() < 0 or found.max() >= classes:
        raise InputError(
            f"disagreement: labels must be n={n} class numbers from 0 to {classes - 1}.\n"
            f"  got {got(labels)}"
        )
    return found.astype(np.int64)
