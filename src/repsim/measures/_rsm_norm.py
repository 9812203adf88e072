"""The norm of the difference of two matrices of distances."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

from repsim._options import require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace, reordered_pairs, root
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._dissimilarity import squared_euclidean

__all__ = ["rsm_norm_difference"]

NORMS = ("spectral", "frobenius")


def rsm_norm_difference(
    x: Array, y: Array, *, norm: Literal["spectral", "frobenius"] = "spectral"
) -> Array:
    """Norm of the difference of two distance matrices: how much the distances of samples differ.

    >>> import numpy as np, repsim
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> float(repsim.rsm_norm_difference(x, 5 - x))
    0.0
    >>> round(float(repsim.rsm_norm_difference(x, 2 * x, norm="frobenius")) ** 2, 6)
    28.0

    ::

        ‖D_x − D_y‖,   D_ij = ‖x_i − x_j‖

    with the spectral norm (the largest absolute eigenvalue) or the Frobenius norm (the root of the
    sum of squares).

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    norm : {"spectral", "frobenius"}, default "spectral"
        The norm of the difference.

    Returns
    -------
    array, 0-d, or NumPy scalar
        At least 0, in the units of the features; 0 for representations that are equal up to a
        rotation, a reflection and a translation. Same namespace and device as the inputs; float32
        for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), unknown norm.

    Warns
    -----
    DegenerateWarning
        If the value is larger than the dtype can hold: NaN is returned. A constant representation
        has a value.

    Notes
    -----
    A metric. Invariant to orthogonal maps, feature permutations and translation of either input;
    not to scale. The value grows with n. Differentiable where the value is not 0, and for the
    spectral norm where its eigenvalue is simple. Computed in float64 where the device has it. Cost:
    O(n² p) once for each array; for a pair O(n²), and O(n³) for the spectral norm; memory O(n²).

    References
    ----------
    Klabunde et al. 2023, arXiv:2305.06329. Yin, Shen 2018, "On the dimensionality of word
    embedding", arXiv:1812.04224, for the same norm of Grams.
    """
    return evaluate("rsm_norm_difference", x, y, norm=norm)


class _Distances(NamedTuple):
    """Distances of all samples (n, n), divided by ``scale``."""

    distances: Array
    scale: Array


def _prepare(operation: str, x: Array, *, name: str, norm: str) -> _Distances:
    require_choice(operation, "norm", norm, NORMS)
    squared, scale = squared_euclidean(x)
    return _Distances(root(array_namespace(x), squared), scale)


def _reorder(x: _Distances, order: Any) -> _Distances:
    return x._replace(distances=reordered_pairs(x.distances, order))


def _compare(x: _Distances, y: _Distances, *, norm: str) -> Array:
    xp = array_namespace(x.distances)
    # In units of the larger scale, because the square of 1e30 is infinite in float32.
    unit = xp.maximum(x.scale, y.scale)
    difference = x.distances * (x.scale / unit) - y.distances * (y.scale / unit)
    if norm == "spectral":
        size = xp.max(xp.abs(xp.linalg.eigvalsh(difference)))
    else:
        size = root(xp, xp.sum(difference * difference))
    out: Array = size * unit
    return out


for _name, _norm, _pair in (
    ("rsm_norm_difference", "spectral", "O(n³)"),
    ("rsm_norm_difference_frobenius", "frobenius", "O(n²)"),
):
    register(
        Measure(
            name=_name,
            family="dissimilarity matrices",
            function=rsm_norm_difference,
            range=(0.0, math.inf),
            similarity=False,
            metric=True,
            symmetric=True,
            invariances=frozenset({"orthogonal", "permutation", "translation"}),
            minimum_samples=2,
            cost=f"item O(n² p), pair {_pair}",
            reference="Yin & Shen 2018; Klabunde et al. 2023",
            prepare=_prepare,
            reorder=_reorder,
            compare=_compare,
            defined_for_constant=True,
            units="of the features",
            growth=1.0,
            preset={"norm": _norm},
        )
    )
