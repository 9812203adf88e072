"""GULP: how differently ridge regression predicts from two representations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from array_api_compat import device

from repsim._options import as_number
from repsim._typing import Array, Namespace
from repsim.arrays import array_namespace, root
from repsim.measures._procrustes import configuration
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._geometry import Contrasts, nonnegative, of_samples
from repsim.measures.parts._subspace import subspace, where_defined

__all__ = ["gulp"]


def gulp(x: Array, y: Array, *, ridge: float = 0.1) -> Array:
    """GULP: how far the ridge predictions from two representations differ, over all targets.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> float(repsim.gulp(x, 2 * x[:, ::-1] + 1))
    0.0
    >>> stretched = x * [1.0, 2.0, 5.0]
    >>> bool(repsim.gulp(x, stretched) > 0.1), float(repsim.gulp(x, stretched, ridge=0))
    (True, 0.0)

    ::

        GULP = ‖P_x − P_y‖_F,   P = Xc (XcᵀXc + nλI)⁻¹ Xcᵀ,  with Xc scaled to ‖Xc‖_F = √n

    with Xc the activations minus their column means and λ the ridge. P maps a target to its
    ridge predictions. In covariances Σ_x = XcᵀXc/n, Σ_xy = XcᵀYc/n and S = (Σ + λI)⁻¹::

        GULP² = tr[(S_x Σ_x)²] + tr[(S_y Σ_y)²] − 2 tr[S_x Σ_xy S_y Σ_yx]

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples (3 for ``ridge=0``); trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    ridge : float, default 0.1
        λ ≥ 0, relative to the total variance of each side, which is 1 after scaling. Directions of
        much less variance than λ hardly count. With 0 all directions count alike, as in
        :func:`cca`.

    Returns
    -------
    array, 0-d, or NumPy scalar
        At least 0 and at most the root of the sum of both ranks, without unit; 0 for
        representations that are equal up to a rotation, a scale and a translation. Same namespace
        and device as the inputs; float32 for half precision and float32, float64 for float64 and
        integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 2 (3) samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), ridge that is not a number of at least 0.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, or if λ = 0 and it spans all n − 1 dimensions of the
        centred samples, because it then predicts every target exactly: NaN is returned.

    Notes
    -----
    A metric for any fixed λ; the paper also reports its square. Invariant to orthogonal maps,
    isotropic scale, feature permutations and translation of either input, and with λ = 0 to
    invertible linear maps.

    For targets that are sums of independent normal variables, one for each sample, GULP² is the
    mean squared difference of both predictions, summed over the samples.

    A distance below about 1e-7 of √(rank) (3e-3 if the device has no float64) is the rounding error
    of a difference of squares, so exactly 0 is returned. Differentiable where the distance is not
    0. Computed in float64 where the device has it. Cost: O(n p min(n, p)) once for each array, O(n
    p q) for a pair, with p and q at most n − 1.

    References
    ----------
    Boix-Adserà, Lawrence, Stepaniants, Rigollet 2022, "GULP: a prediction-based metric between
    representations", arXiv:2210.06545.
    """
    return evaluate("gulp", x, y, ridge=ridge)


class _Predictor(NamedTuple):
    """A factor F (n − 1, r) of the predictions P = FFᵀ of contrasts, and ‖P‖²."""

    factor: Array
    square: Array
    defined: Array


def _prepare(operation: str, z: Contrasts, *, name: str, ridge: float) -> _Predictor:
    ridge = as_number(operation, "ridge", ridge, least=0)
    xp = array_namespace(z.points)
    if ridge == 0:
        span = subspace(operation, name, z)
        return _Predictor(span.basis, span.rank, span.defined)
    points, norm, _ = configuration(xp, z.points, z.scale)
    defined = norm > 0
    undefined(operation, name, ~defined, "is constant over the samples")
    factor = _ridge_factor(xp, points / xp.where(defined, norm, xp.ones_like(norm)), ridge)
    return _Predictor(factor, _square(xp, factor, factor), defined)


def _ridge_factor(xp: Namespace, z: Array, ridge: float) -> Array:
    """Return F with FFᵀ = Z (ZᵀZ + λI)⁻¹ Zᵀ: the upper rows of Q in [Z; √λI] = QR.

    The columns of Q are orthonormal for any λ, so a small one loses no digits, and equal singular
    values of Z have a derivative.
    """
    rows, columns = z.shape
    below = math.sqrt(ridge) * xp.eye(columns, dtype=z.dtype, device=device(z))
    q: Array = xp.linalg.qr(xp.concat([z, below], axis=0), mode="reduced")[0]
    return q[:rows, :]


def _square(xp: Namespace, a: Array, b: Array) -> Array:
    """Return tr(AAᵀBBᵀ)."""
    out: Array = xp.sum((xp.matrix_transpose(a) @ b) ** 2)
    return out


def _needs(*, ridge: float) -> tuple[int, str]:
    ridge = as_number("gulp", "ridge", ridge, least=0)
    return (3, "ridge=0") if ridge == 0 else (2, "gulp")


def _compare(x: _Predictor, y: _Predictor, **_: Any) -> Array:
    xp = array_namespace(x.factor)
    squares = x.square + y.square
    left = nonnegative(xp, squares - 2 * _square(xp, x.factor, y.factor), squares)
    return where_defined(xp, root(xp, left), x.defined & y.defined)


_RIGID = frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"})
for _name, _preset, _more in (
    ("gulp", {}, frozenset[str]()),
    ("gulp_without_ridge", {"ridge": 0.0}, frozenset({"invertible_linear"})),
):
    register(
        Measure(
            name=_name,
            family="regression",
            function=gulp,
            range=(0.0, math.inf),
            similarity=False,
            metric=True,
            symmetric=True,
            invariances=_RIGID | _more,
            minimum_samples=3 if _more else 2,
            cost="item O(n p min(n, p)), pair O(n p q) with p, q at most n − 1",
            reference="Boix-Adserà et al. 2022",
            prepare=of_samples(_prepare),
            prepare_contrasts=_prepare,
            compare=_compare,
            needs=_needs,
            preset=_preset,
        )
    )
