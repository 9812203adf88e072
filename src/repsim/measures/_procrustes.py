"""Procrustes: two configurations of samples after the best rotation onto each other."""

from __future__ import annotations

from typing import Literal, NamedTuple

from repsim._options import require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace
from repsim.estimators import within_one
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._geometry import Contrasts, chord, matched_distance, of_samples

__all__ = ["Configuration", "configuration", "nbs", "procrustes", "similarity"]

NORMS = ("none", "unit")


class Configuration(NamedTuple):
    """Samples as points in the fewest coordinates that hold them, (n − 1, min(n − 1, p))."""

    points: Array
    norm: Array
    scale: Array


def configuration(xp: Namespace, z: Array, scale: Array) -> Configuration:
    """Prepare contrasts (n − 1, p), divided by ``scale``, for the products of ``similarity``."""
    if z.shape[1] > z.shape[0]:
        # Z = RᵀQᵀ: all measures here are invariant to the rotation Q, and Rᵀ has n − 1 columns.
        z = xp.matrix_transpose(xp.linalg.qr(xp.matrix_transpose(z), mode="reduced")[1])
    return Configuration(z, xp.linalg.vector_norm(z), scale)


def similarity(xp: Namespace, x: Configuration, y: Configuration) -> Array:
    """Return ‖XᵀY‖_*/(‖X‖‖Y‖), NaN where a norm is zero."""
    defined = (x.norm > 0) & (y.norm > 0)
    norms = xp.where(defined, x.norm * y.norm, xp.ones_like(x.norm))
    cosine = within_one(xp, _nuclear(xp, x, y) / norms)
    out: Array = xp.where(defined, cosine, xp.full_like(norms, float("nan")))
    return out


def _nuclear(xp: Namespace, x: Configuration, y: Configuration) -> Array:
    out: Array = xp.sum(xp.linalg.svdvals(xp.matrix_transpose(x.points) @ y.points))
    return out


def nbs(x: Array, y: Array) -> Array:
    """Normalised Bures similarity: the alignment of two representations after the best rotation.

    >>> import numpy as np, repsim
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    >>> turned = 3 * x @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    >>> round(float(repsim.nbs(x, turned)), 6)
    1.0
    >>> round(float(repsim.nbs(x, x * [1.0, 3.0])), 6)
    0.967024

    ::

        NBS = ‖XcᵀYc‖_* / (‖Xc‖_F ‖Yc‖_F)

    with Xc, Yc the activations minus their column means and ‖·‖_* the sum of the singular values.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ: the narrower one is filled up with zeros.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit; 1 for representations that are equal up to a rotation, a
        reflection, a scale and a translation. Same namespace and device as the inputs; float32 for
        half precision and float32, float64 for float64 and integers.

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
        If a representation is constant: NaN is returned.

    Notes
    -----
    Symmetric, and invariant to orthogonal maps, isotropic scale, feature permutations and
    translation of either input; not invariant to invertible linear maps. Its arccosine is the
    angular shape distance. Independent data have a value well above zero unless n is large compared
    with p and q.

    Differentiable where XcᵀYc is of full rank; for p ≥ n, where Xc has rank n − 1. Computed in
    float64 where the device has it. Cost: O(n² p) once for each p ≥ n, then O(n p q + p q min(p,
    q)) with p and q at most n − 1.

    References
    ----------
    Tang, Maddox, Dickens, Diethe, Damianou 2020, "Similarity of neural networks with gradients",
    arXiv:2003.11498. Harvey, Larsen, Williams 2023, "Duality of Bures and shape distances",
    arXiv:2311.11436.
    """
    return evaluate("nbs", x, y)


def procrustes(x: Array, y: Array, *, norm: Literal["none", "unit"] = "none") -> Array:
    """Procrustes distance: the distance between two representations after the best rotation.

    >>> import numpy as np, repsim
    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    >>> turned = x @ np.array([[0.0, 1.0], [-1.0, 0.0]]) + 5
    >>> float(repsim.procrustes(x, turned))
    0.0
    >>> bool(np.isclose(repsim.procrustes(x, 3 * turned), 2 * np.linalg.norm(x - x.mean(0))))
    True
    >>> float(repsim.procrustes(x, 3 * turned, norm="unit"))
    0.0

    ::

        none   min_Q ‖Xc − YcQ‖_F = √(‖Xc‖² + ‖Yc‖² − 2‖XcᵀYc‖_*)
        unit   the same of Xc/‖Xc‖ and Yc/‖Yc‖ = √(2 − 2 NBS)

    over orthogonal Q, with Xc, Yc the activations minus their column means.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ: the narrower one is filled up with zeros.
    norm : {"none", "unit"}, default "none"
        ``"none"`` compares in the units of the features, ``"unit"`` after scaling each side to a
        Frobenius norm of one.

    Returns
    -------
    array, 0-d, or NumPy scalar
        At least 0, in the units of the features, or in [0, √2] for ``norm="unit"``. Same namespace
        and device as the inputs; float32 for half precision and float32, float64 for float64 and
        integers.

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
        If ``norm="unit"`` and a representation is constant: NaN is returned. With ``norm="none"``
        the distance of a constant x from y is ‖Yc‖.

    Notes
    -----
    A metric. Invariant to orthogonal maps, feature permutations and translation of either input;
    with ``norm="unit"`` to isotropic scale as well. Ding et al. 2021 report its square.

    A distance below about 1e-7 of the norms (3e-3 if the device has no float64) is the rounding
    error of a difference of squares, so exactly 0 is returned. Differentiable where XcᵀYc is of
    full rank and the distance is not 0. Cost as :func:`nbs`.

    References
    ----------
    Schönemann 1966. Williams, Kunz, Kornblith, Linderman 2021, "Generalized shape metrics on
    neural representations", arXiv:2110.14739. Ding, Denain, Steinhardt 2021, arXiv:2108.01661.
    """
    return evaluate("procrustes", x, y, norm=norm)


def _prepare(operation: str, z: Contrasts, *, name: str, norm: str = "unit") -> Configuration:
    require_choice(operation, "norm", norm, NORMS)
    item = configuration(array_namespace(z.points), z.points, z.scale)
    if norm == "unit":
        undefined(operation, name, item.norm <= 0, "is constant over the samples")
    return item


def _compare_nbs(x: Configuration, y: Configuration) -> Array:
    return similarity(array_namespace(x.points), x, y)


def _compare(x: Configuration, y: Configuration, *, norm: str) -> Array:
    xp = array_namespace(x.points)
    if norm == "unit":
        return chord(xp, similarity(xp, x, y))
    squares = x.norm**2, y.norm**2
    return matched_distance(xp, (x.scale, y.scale), squares, _nuclear(xp, x, y))


_RIGID = frozenset({"orthogonal", "permutation", "translation"})
_COST = "item O(n² p) for p ≥ n, pair O(n p q + p q min(p, q)) with p, q at most n − 1"

register(
    Measure(
        name="nbs",
        family="shape",
        function=nbs,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=_RIGID | {"isotropic_scale"},
        minimum_samples=2,
        cost=_COST,
        reference="Tang et al. 2020; Harvey et al. 2023",
        prepare=of_samples(_prepare),
        prepare_contrasts=_prepare,
        compare=_compare_nbs,
    )
)
register(
    Measure(
        name="procrustes",
        family="shape",
        function=procrustes,
        range=(0.0, float("inf")),
        similarity=False,
        metric=True,
        symmetric=True,
        invariances=_RIGID,
        minimum_samples=2,
        cost=_COST,
        reference="Williams et al. 2021",
        prepare=of_samples(_prepare),
        prepare_contrasts=_prepare,
        compare=_compare,
        defined_for_constant=True,
        units="of the features",
        growth=0.5,
    )
)
register(
    Measure(
        name="normalised_procrustes",
        family="shape",
        function=procrustes,
        range=(0.0, 2**0.5),
        similarity=False,
        metric=True,
        symmetric=True,
        invariances=_RIGID | {"isotropic_scale"},
        minimum_samples=2,
        cost=_COST,
        reference="Williams et al. 2021",
        prepare=of_samples(_prepare),
        prepare_contrasts=_prepare,
        compare=_compare,
        preset={"norm": "unit"},
    )
)
