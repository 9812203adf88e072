"""Aligned cosine: the cosines of the samples after the best rotation."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from repsim._errors import warn
from repsim._typing import Array, Namespace
from repsim.arrays import accumulator_dtype, array_namespace, known, unit_scale
from repsim.estimators import within_one
from repsim.measures._procrustes import configuration
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import NO_DIRECTION, directions
from repsim.measures.parts._rounding import pairs_beyond_rounding
from repsim.measures.parts._subspace import where_defined

__all__ = ["aligned_cosine"]

ALIKE = 0.01
"""A direction is that of both sides if their values in it have at least this cosine.

Directions of one side that are orthogonal to the other fix no rotation, and they have none.
"""

MOST = 1e-3
"""The largest change of the value by directions that are left out without a warning."""


def aligned_cosine(x: Array, y: Array) -> Array:
    """Aligned cosine similarity: the mean cosine of each sample with itself after a rotation.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> round(float(repsim.aligned_cosine(x, -2 * x[:, ::-1])), 6)
    1.0
    >>> bool(repsim.aligned_cosine(x, x * [1.0, 1.0, 9.0]) < 0.9)
    True

    ::

        mean_i cos(x_i Q, y_i),   Q = argmin ‖x Q − y‖_F over orthogonal Q

    with rows x_i and y_i that are not centred, the narrower side filled up with zeros. With xᵀy =
    U S Vᵀ, Q = U Vᵀ.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [−1, 1], without unit; 1 for representations whose rows are equal up to one rotation or
        reflection and one scale. Same namespace and device as the inputs; float32 for half
        precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``).

    Warns
    -----
    DegenerateWarning
        If a row of zeros has no direction: NaN is returned.
    RepsimWarning
        If directions that both sides share are left out as rounding and may change the value by
        more than 1e-3.

    Notes
    -----
    Symmetric, and invariant to orthogonal maps, isotropic scale and feature permutations of either
    input; not to translation. A similarity, not a metric. A mean that both sides share raises the
    value: centre the features first to leave it out.

    Singular values of xᵀy below the rounding of the data fix no rotation, so their directions add
    nothing to the products of rows. This happens if some direction of x is orthogonal to all of y,
    or if the data vary by far less in it than in others: by 1e-6 in float32 (1e-7 in float64, and
    2e-3 if the device has no float64). Differentiable where the other singular values are distinct.
    Computed in float64 where the device has it. Cost: O(n² p) once for each p > n, then O(n p q +
    p q min(p, q)) with p and q at most n.

    References
    ----------
    Hamilton, Leskovec, Jurafsky 2016, "Diachronic word embeddings reveal statistical laws of
    semantic change", arXiv:1605.09096. Klabunde et al. 2023, arXiv:2305.06329.
    """
    return evaluate("aligned_cosine", x, y)


class _Rows(NamedTuple):
    """Samples in the fewest coordinates that hold them, (n, min(n, p)), and as unit vectors."""

    points: Array
    directions: Array
    defined: Array
    resolution: float
    operation: str
    name: str


def _prepare(operation: str, x: Array, *, name: str) -> _Rows:
    xp = array_namespace(x)
    wide, scale = unit_scale(xp, xp.astype(x, accumulator_dtype(xp, x), copy=False))
    points = configuration(xp, wide, scale).points
    rows, missing = directions(points, "cosine")
    none = xp.any(missing)
    undefined(operation, name, none, NO_DIRECTION["cosine"])
    return _Rows(points, rows, ~none, float(xp.finfo(x.dtype).eps), operation, name)


def _compare(x: _Rows, y: _Rows) -> Array:
    xp = array_namespace(x.points)
    turned = x.directions @ _rotation(xp, x, y)
    value = xp.mean(xp.sum(turned * y.directions, axis=1))
    return where_defined(xp, within_one(xp, value), x.defined & y.defined)


def _rotation(xp: Namespace, x: _Rows, y: _Rows) -> Array:
    """Return UVᵀ (p, q) of xᵀy = U S Vᵀ, without directions that are only rounding."""
    a, b = x.points, y.points
    left, values, right = xp.linalg.svd(xp.matrix_transpose(a) @ b, full_matrices=False)
    counts, lengths = pairs_beyond_rounding(
        xp, (a, b), (left, values, right), (x.resolution, y.resolution)
    )
    if lengths is not None:
        on_x, on_y = lengths
        alike = (values > ALIKE * on_x * on_y) & (on_x > 0) & (on_y > 0)
        _warn_of_left_out(xp, x, y, left, right, alike & ~counts)
    out: Array = (left * xp.astype(counts, left.dtype)) @ right
    return out


def _warn_of_left_out(
    xp: Namespace, x: _Rows, y: _Rows, left: Array, right: Array, lost: Array
) -> None:
    """Warn if directions that both sides share are left out and could change the value."""
    shared = xp.abs((x.directions @ left) * (y.directions @ xp.matrix_transpose(right)))
    most = xp.mean(xp.sum(shared * xp.astype(lost, shared.dtype), axis=1))
    if not known(x.defined & y.defined & (most > MOST)):
        return
    repair = (
        f"  Compute {x.name} and {y.name} in float64."
        if max(x.resolution, y.resolution) > np.finfo(np.float64).eps
        else "  Compare the samples of one cluster at a time."
    )
    warn(
        f"{x.operation}: {x.name} and {y.name} vary in some directions by so little beside others "
        f"that these are left out as rounding, and the value may be off by up to "
        f"{float(most):.1g}.\n{repair}"
    )


register(
    Measure(
        name="aligned_cosine",
        family="shape",
        function=aligned_cosine,
        range=(-1.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale"}),
        minimum_samples=2,
        cost="item O(n² p) for p > n, pair O(n p q + p q min(p, q)) with p, q at most n",
        reference="Hamilton et al. 2016; Klabunde et al. 2023",
        prepare=_prepare,
        compare=_compare,
        defined_for_constant=True,
    )
)
