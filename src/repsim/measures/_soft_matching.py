"""Soft matching: features paired one to one."""

from __future__ import annotations

from typing import Literal, NamedTuple

from repsim._options import require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.estimators import within_one
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._columns import Columns, centred_columns, matched, unit_norm_columns
from repsim.measures.parts._geometry import Contrasts, matched_distance, of_samples
from repsim.measures.parts._transport import transport_plan

__all__ = ["soft_matching"]

SCORES = ("distance", "correlation")


def soft_matching(
    x: Array, y: Array, *, score: Literal["distance", "correlation"] = "distance"
) -> Array:
    """Soft matching: how alike two representations are, feature by feature, in the best pairing.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> float(repsim.soft_matching(x, x[:, [2, 0, 1]] + 1))
    0.0
    >>> twice = np.concatenate([x, x], axis=1)
    >>> round(float(repsim.soft_matching(x, 5 * twice, score="correlation")), 6)
    1.0

    ::

        distance     √( min_P Σ_ij P_ij ‖x_i − y_j‖² )
        correlation  max_P Σ_ij P_ij r(x_i, y_j)

    over P ≥ 0 with rows that sum to 1/p and columns that sum to 1/q, x_i, y_j the centred columns
    and r their correlation. For p = q the best P is a permutation, divided by p.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    score : {"distance", "correlation"}, default "distance"
        The distance of matched features in their units, or their correlation.

    Returns
    -------
    array, 0-d, or NumPy scalar
        The distance is at least 0, in the units of the features; the correlation is in [−1, 1],
        without unit, 1 for features that are equal up to order, duplication, shift and positive
        scale. Same namespace and device as the inputs; float32 for half precision and float32,
        float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices; arrays whose values cannot be read
        (inside ``jax.jit``, ``jax.grad``, ``torch.compile`` and the transforms of ``torch.func``),
        because the pairing is computed on the CPU.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), unknown score.

    Warns
    -----
    DegenerateWarning
        If ``score="correlation"`` and a feature is constant, because it has no correlation: NaN is
        returned. The distance is defined for constant features.

    Notes
    -----
    Both scores are invariant to feature permutations and translation of either input and to
    duplicating all features; the correlation is also invariant to isotropic scale. Neither is
    invariant to rotations. The distance is a metric. Few samples bias the score, because the best
    pairing of independent features correlates by chance.

    SciPy computes the pairing, and derivatives treat it as fixed. In torch the derivative is thus
    that of the value at a fixed pairing; it equals the true derivative wherever the best pairing is
    unique. A distance below about 1e-7 of the norms is the rounding error of a difference of
    squares, so exactly 0 is returned. Computed in float64 where the device has it. Cost: O(n p q)
    and an assignment, O(max(p, q)³) for p = q (and where lcm(p, q) is at most 4 max(p, q)),
    otherwise a linear programme of p q variables, which takes minutes from some hundred features
    on.

    References
    ----------
    Khosla, Williams 2023, "Soft matching distance", arXiv:2311.09466, Eqs. 5 and 9.
    """
    return evaluate("soft_matching", x, y, score=score)


class _Weighed(NamedTuple):
    """Features, and the mean of their squared norms."""

    columns: Columns
    mean_square: Array


def _prepare(operation: str, z: Contrasts, *, name: str, score: str) -> _Weighed:
    require_choice(operation, "score", score, SCORES)
    xp = array_namespace(z.points)
    prepare = unit_norm_columns if score == "correlation" else centred_columns
    columns = prepare(operation, z, name=name)
    mean_square = xp.sum(columns.features * columns.features) / columns.features.shape[1]
    return _Weighed(columns, mean_square)


def _compare(x: _Weighed, y: _Weighed, *, score: str) -> Array:
    a, b = x.columns, y.columns
    xp = array_namespace(a.features)
    product = matched(a, b, transport_plan)
    if score == "correlation":
        nan = xp.full_like(product, float("nan"))
        correlation: Array = xp.where(a.defined & b.defined, within_one(xp, product), nan)
        return correlation
    return matched_distance(xp, (a.scale, b.scale), (x.mean_square, y.mean_square), product)


for _name, _score, _more in (
    ("soft_matching", "distance", frozenset[str]()),
    ("soft_matching_correlation", "correlation", frozenset({"isotropic_scale"})),
):
    register(
        Measure(
            name=_name,
            family="matching",
            function=soft_matching,
            range=(0.0, float("inf")) if _score == "distance" else (-1.0, 1.0),
            similarity=_score == "correlation",
            metric=_score == "distance",
            symmetric=True,
            invariances=frozenset({"permutation", "translation"}) | _more,
            minimum_samples=2,
            cost="item O(n p), pair O(n p q) and an assignment, O(max(p, q)³)",
            reference="Khosla & Williams 2023",
            prepare=of_samples(_prepare),
            prepare_contrasts=_prepare,
            compare=_compare,
            defined_for_constant=_score == "distance",
            differentiable=False,
            units="of the features" if _score == "distance" else "1",
            growth=0.5 if _score == "distance" else 0.0,
            preset={"score": _score},
        )
    )
