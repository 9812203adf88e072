"""Distance correlation: dependence of any form, from the distances between samples."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from repsim._typing import Array, EstimatorName
from repsim.arrays import array_namespace, own_root, reordered_pairs, root, writable_numbers
from repsim.estimators import (
    Products,
    alignment,
    centre_in_place,
    inner,
    resolve_estimator,
    scaled_gram,
)
from repsim.measures._hsic import samples_needed
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._dissimilarity import dissimilarities

__all__ = ["distance_correlation"]


def distance_correlation(x: Array, y: Array, *, estimator: EstimatorName = "biased") -> Array:
    """Squared distance correlation: whether the distances between samples vary together.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((200, 1))
    >>> round(float(repsim.distance_correlation(x, 3 - 2 * x)), 6)
    1.0
    >>> linear = repsim.cka(x, x**2, estimator="unbiased")
    >>> bool(repsim.distance_correlation(x, x**2, estimator="unbiased") > 10 * linear)
    True

    ::

        dCor² = ⟨A, B⟩ / (‖A‖ ‖B‖)

    with A, B the Euclidean distances between samples, doubly centred (biased) or U-centred
    (unbiased).

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    estimator : {"biased", "unbiased"}, default "biased"
        The biased estimator is the square of the distance correlation of 2007. For independent data
        it is above zero, and near 1 if there are many features compared with n. The unbiased one is
        the bias-corrected R* of 2013, around 0 for independent data. It is on the scale of a square
        and may be negative, so its root is not taken.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1] (biased) or [−1, 1] (unbiased), without unit; 1 for representations that are equal
        up to a rotation, a scale and a translation. This is the square; take its root to compare
        with what most packages call dCor. Same namespace and device as the inputs, differentiable
        where they are; float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 (unbiased: 4) samples, one-dimensional or empty input, NaN or
        infinity (``NonFiniteError``), unknown estimator.

    Warns
    -----
    DegenerateWarning
        If a representation is constant (unbiased: or has the same distance between all samples):
        NaN is returned.

    Notes
    -----
    The value is CKA of the kernel −‖a − b‖. Symmetric, and invariant to orthogonal maps, isotropic
    scale, feature permutations and translation of either input; not invariant to invertible linear
    maps. The population value is zero only for independent data. Computed in float64 where the
    device has it. Cost: O(n² p) once for each array, O(n²) for a pair; memory O(n²).

    References
    ----------
    Székely, Rizzo, Bakirov 2007, "Measuring and testing dependence by correlation of distances",
    Annals of Statistics 35. Székely, Rizzo 2013, "The distance correlation t-test of independence
    in high dimension", Journal of Multivariate Analysis 117, for the bias-corrected one.
    """
    return evaluate("distance_correlation", x, y, estimator=estimator)


class _Centred(NamedTuple):
    """Centred distances (n, n), divided by a power of two, and their sum of squares."""

    distances: Array
    square: Array


def _prepare(operation: str, x: Array, *, name: str, estimator: str) -> _Centred:
    xp = array_namespace(x)
    squared, _ = dissimilarities(operation, name, x, "euclidean")
    chosen = resolve_estimator(operation, estimator)
    own = writable_numbers(squared) if squared.dtype == xp.float64 else None
    if own is None:
        centred = scaled_gram(xp, root(xp, squared), chosen).gram
    else:  # in float64, distances of features of size one need no scale
        centred = own_root(xp, squared)
        centre_in_place(own, unbiased=chosen.name == "unbiased")
    square = inner(xp, centred, centred)
    undefined(
        operation,
        name,
        square <= 0,
        "is constant over the samples (its centred distances are zero)",
    )
    return _Centred(centred, square)


def _reorder(x: _Centred, order: Any) -> _Centred:
    return x._replace(distances=reordered_pairs(x.distances, order))


def _compare(x: _Centred, y: _Centred, **_: object) -> Array:
    xp = array_namespace(x.distances)
    return alignment(xp, Products(inner(xp, x.distances, y.distances), x.square, y.square))


register(
    Measure(
        name="distance_correlation",
        family="kernel",
        function=distance_correlation,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"}),
        minimum_samples=2,
        cost="item O(n² p), pair O(n²)",
        reference="Székely, Rizzo, Bakirov 2007; Székely & Rizzo 2013",
        prepare=_prepare,
        reorder=_reorder,
        compare=_compare,
        entries=lambda item: item.distances,
        needs=partial(samples_needed, operation="distance_correlation"),
    )
)
