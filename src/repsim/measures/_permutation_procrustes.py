"""Permutation Procrustes: two configurations after the best order of the features."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from repsim._options import require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace, root
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._columns import Columns, centred_columns, matched
from repsim.measures.parts._geometry import Contrasts, angle, matched_distance, of_samples
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts._transport import pairing

__all__ = ["permutation_procrustes"]

SCORES = ("distance", "angle")


def permutation_procrustes(
    x: Array, y: Array, *, score: Literal["distance", "angle"] = "distance"
) -> Array:
    """Permutation Procrustes: the distance after the best one-to-one pairing of the features.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> float(repsim.permutation_procrustes(x, x[:, [2, 0, 1]] + 1))
    0.0
    >>> float(repsim.permutation_procrustes(x, 5 * x[:, [2, 0, 1]], score="angle"))
    0.0

    ::

        distance  min_P ‖Xc P − Yc‖_F = √(‖Xc‖² + ‖Yc‖² − 2 max_P tr(PᵀXcᵀYc))
        angle     arccos( max_P tr(PᵀXcᵀYc) / (‖Xc‖ ‖Yc‖) )

    over permutations P, with Xc, Yc the activations minus their column means, the narrower one
    filled up with zero features.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    score : {"distance", "angle"}, default "distance"
        The distance in the units of the features, or the angle, which does not depend on scale.

    Returns
    -------
    array, 0-d, or NumPy scalar
        The distance is at least 0, in the units of the features; the angle is in [0, π], in
        radians; 0 for features that are equal up to order and shift (and, for the angle, one
        positive scale). Same namespace and device as the inputs; float32 for half precision and
        float32, float64 for float64 and integers.

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
        If ``score="angle"`` and a representation is constant: NaN is returned. The distance of a
        constant x from y is ‖Yc‖.

    Notes
    -----
    Both are metrics among representations with the same number of features. With other widths the
    triangle inequality can fail: two opposite features, x and −x, are π apart, and each of them is
    only π/4 from (x, −x).

    Invariant to feature permutations and translation of either input, the angle also to isotropic
    scale; not to rotations. :func:`procrustes` and :func:`shape_distance` are the same over all
    rotations, so they are never larger. :func:`soft_matching` divides the features of the narrower
    side between several partners instead of adding zeros.

    SciPy computes the pairing, and derivatives treat it as fixed; they equal the true ones wherever
    the best pairing is unique and the value is not 0. A distance below about 1e-7 of the norms is
    the rounding error of a difference of squares, so exactly 0 is returned. Computed in float64
    where the device has it. Cost: O(n p q) and an assignment, O(min(p, q)² max(p, q)).

    References
    ----------
    Williams, Kunz, Kornblith, Linderman 2021, "Generalized shape metrics on neural
    representations", arXiv:2110.14739.
    """
    return evaluate("permutation_procrustes", x, y, score=score)


class _Normed(NamedTuple):
    """Features, and the norm of all of them."""

    columns: Columns
    norm: Array


def _prepare(operation: str, z: Contrasts, *, name: str, score: str) -> _Normed:
    require_choice(operation, "score", score, SCORES)
    xp = array_namespace(z.points)
    columns = centred_columns(operation, z, name=name)
    norm = root(xp, xp.sum(columns.features * columns.features))
    if score == "angle":
        undefined(operation, name, norm <= 0, "is constant over the samples")
    return _Normed(columns, norm)


def _compare(x: _Normed, y: _Normed, *, score: str) -> Array:
    a, b = x.columns, y.columns
    xp = array_namespace(a.features)
    product = matched(a, b, pairing)
    if score == "angle":
        defined = (x.norm > 0) & (y.norm > 0)
        norms = xp.where(defined, x.norm * y.norm, xp.ones_like(x.norm))
        return where_defined(xp, angle(xp, product / norms), defined)
    return matched_distance(xp, (a.scale, b.scale), (x.norm**2, y.norm**2), product)


for _name, _score, _more in (
    ("permutation_procrustes", "distance", frozenset[str]()),
    ("permutation_procrustes_angle", "angle", frozenset({"isotropic_scale"})),
):
    register(
        Measure(
            name=_name,
            family="matching",
            function=permutation_procrustes,
            range=(0.0, math.inf) if _score == "distance" else (0.0, math.pi),
            similarity=False,
            metric=False,  # with widths that differ; see the docstring
            symmetric=True,
            invariances=frozenset({"permutation", "translation"}) | _more,
            minimum_samples=2,
            cost="item O(n p), pair O(n p q) and an assignment, O(min(p, q)² max(p, q))",
            reference="Williams et al. 2021",
            prepare=of_samples(_prepare),
            prepare_contrasts=_prepare,
            compare=_compare,
            defined_for_constant=_score == "distance",
            differentiable=False,
            units="of the features" if _score == "distance" else "rad",
            growth=0.5 if _score == "distance" else 0.0,
            preset={"score": _score},
        )
    )
