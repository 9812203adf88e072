"""Canonical correlations of all directions, of the leading ones, and weighted by x."""

from __future__ import annotations

from typing import Literal

from repsim._typing import Array
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._canonical import (
    CANONICAL_WORDS,
    correlate,
    correlate_weighted,
    floor_by_chance,
    leading_directions,
    spanned_directions,
    weighted_directions,
)
from repsim.measures.parts._geometry import of_samples

__all__ = ["cca", "pwcca", "svcca"]


def cca(
    x: Array, y: Array, *, statistic: Literal["mean_rho", "mean_rho_squared"] = "mean_rho"
) -> Array:
    """Canonical correlation analysis: how well the best directions of x and y correlate.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((50, 3))
    >>> float(repsim.cca(x, x @ rng.standard_normal((3, 3)) + 7).round(6))
    1.0
    >>> bool(repsim.cca(x, rng.standard_normal((50, 3)), statistic="mean_rho_squared") < 0.3)
    True

    ::

        ρ = singular values of QxᵀQy,  k = min(rank Xc, rank Yc)
        mean_rho           Σρ_i/k
        mean_rho_squared   Σρ_i²/k = ‖QxᵀQy‖²_F/k

    with Qx, Qy orthonormal bases of the centred columns of x and y.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 3 samples; trailing axes are flattened. More samples than features.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    statistic : {"mean_rho", "mean_rho_squared"}, default "mean_rho"
        The mean of the correlations, or of their squares.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit; 1 if one span contains the other. Same namespace and device as the
        inputs; float32 for half precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), unknown statistic.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, or if it spans all n − 1 dimensions of the centred samples,
        which happens with as many features as samples. Every correlation would then be 1, and NaN
        is returned.
    ChanceWarning
        If the mean squared correlation of independent data would be above 0.5; or above 0.1, and
        that of x and y is less than three standard deviations above it.

    Notes
    -----
    Symmetric, and invariant to invertible linear maps and translation of either input. Columns that
    are constant, duplicated or sums of other columns add no direction. A direction counts if it is
    above the rounding of the input's dtype, with columns scaled to unit norm.

    Biased upwards: for independent data the mean squared correlation is max(p, q)/(n − 1) on
    average. If p + q exceeds n − 1, then p + q − (n − 1) of the correlations are 1 for any data.
    Use many more samples than features, or use :func:`svcca`.

    Computed in float64 where the device has it. Differentiable where the columns are linearly
    independent; the derivative is NaN where the value is. Cost: one SVD of each input, O(n p min(n,
    p)), then O(n p q + p q min(p, q)).

    References
    ----------
    Hotelling 1936. Kornblith et al. 2019, arXiv:1905.00414, Table 1.
    """
    return evaluate("cca", x, y, statistic=statistic)


def svcca(
    x: Array,
    y: Array,
    *,
    variance: float | None = None,
    directions: int | None = None,
    statistic: Literal["mean_rho", "mean_rho_squared"] = "mean_rho",
) -> Array:
    """Singular vector canonical correlation: CCA of the leading principal directions.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> signal = rng.standard_normal((100, 2))
    >>> x, y = (signal @ rng.standard_normal((2, 20)) for _ in range(2))
    >>> x, y = (z + 0.1 * rng.standard_normal(z.shape) for z in (x, y))
    >>> bool(repsim.svcca(x, y, variance=0.9) > 0.99), bool(repsim.cca(x, y) < 0.9)
    (True, True)
    >>> bool(repsim.svcca(x, y, directions=2) > 0.99)
    True

    ::

        Xc = U S Vᵀ,  keep the first k with Σ_{i≤k} s_i² ≥ variance · Σ s_i²;  CCA of the kept U's

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 3 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.
    variance : float, optional
        In (0, 1]: keep the fewest leading directions that hold this share of the variance (of the
        *squared* singular values). 0.99 if neither this nor ``directions`` is given.
    directions : int, optional
        At least 1: keep this number of directions instead, or all if there are fewer.
    statistic : {"mean_rho", "mean_rho_squared"}, default "mean_rho"
        As in :func:`cca`.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit. Same namespace and device as the inputs; float32 for half
        precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), variance outside (0, 1], directions below 1, both of them, unknown
        statistic.

    Warns
    -----
    DegenerateWarning
        If a representation is constant, or if all n − 1 possible directions are kept: NaN is
        returned.
    ChanceWarning
        As in :func:`cca`. Only the directions that are kept count.

    Notes
    -----
    Symmetric, and invariant to orthogonal maps, isotropic scale, feature permutations and
    translation of either input. Not invariant to invertible linear maps, because they change which
    directions lead. For independent data the mean squared correlation is max(k_x, k_y)/(n − 1) on
    average.

    When the variance crosses the threshold, the number of directions jumps, and so does the value.
    Between jumps it is differentiable; where singular values are equal, or inside a compiler, only
    twice. If the last value that is kept equals the next one, the choice of directions is
    arbitrary, and the derivative is NaN. Computed in float64 where the device has it. Cost: one SVD
    of each input, O(n p min(n, p)), then O(n k_x k_y).

    References
    ----------
    Raghu, Gilmer, Yosinski, Sohl-Dickstein 2017, "SVCCA", arXiv:1706.05806.
    """
    return evaluate("svcca", x, y, variance=variance, directions=directions, statistic=statistic)


def pwcca(x: Array, y: Array) -> Array:
    """Projection-weighted canonical correlation: each ρ weighted by how much x uses its direction.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((50, 3)) * [10.0, 1.0, 1.0]
    >>> y = np.concatenate([x[:, :1], rng.standard_normal((50, 2))], axis=1)
    >>> bool(repsim.pwcca(x, y) > repsim.cca(x, y) + 0.2)
    True

    ::

        PWCCA = Σ_i α_i ρ_i / Σ_i α_i,   α_i = Σ_j |⟨h_i, x_j⟩|,   i ≤ min(rank Xc, rank Yc)

    with h_i the canonical variates of x, of unit norm, and x_j its centred columns. If d
    correlations are equal, their variates are fixed only up to a rotation, and each gets the mean
    of α over all rotations::

        α = c_d Σ_j ‖projection of x_j onto their space‖,   c_d = Γ(d/2) / (√π Γ((d + 1)/2))

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 3 samples, whose columns give the weights; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [0, 1], without unit. Same namespace and device as the inputs; float32 for half
        precision and float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 3 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``).

    Warns
    -----
    DegenerateWarning
        As :func:`cca`: NaN is returned.
    ChanceWarning
        As :func:`cca`.

    Notes
    -----
    Not symmetric. Invariant to invertible linear maps and translation of y, and to isotropic scale,
    feature permutations and translation of x. Not invariant to rotations of x, because they mix the
    columns from which the weights are computed. Biased upwards as :func:`cca` is.

    Equal correlations are common: each direction that x and y share has ρ = 1. Correlations count
    as equal if they differ by at most 8 ε √(n − 1), with ε the rounding unit of the inputs' dtype.

    Computed in float64 where the device has it. Differentiable where the columns are linearly
    independent and the correlations are distinct, or all equal as for x = y. If only some are
    equal, the value jumps for small changes of x, and the derivative is NaN. Cost as :func:`cca`.

    References
    ----------
    Morcos, Raghu, Bengio 2018, "Insights on representational similarity in neural networks with
    canonical correlation", arXiv:1806.05759.
    """
    return evaluate("pwcca", x, y)


_MOVES = frozenset({"orthogonal", "permutation", "isotropic_scale", "translation"})
_COST = "item O(n p min(n, p)), pair O(n p q + p q min(p, q))"

register(
    Measure(
        name="cca",
        family="canonical correlation",
        function=cca,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=_MOVES | {"invertible_linear"},
        minimum_samples=3,
        cost=_COST,
        reference="Kornblith et al. 2019, Table 1",
        prepare=of_samples(spanned_directions),
        prepare_contrasts=spanned_directions,
        compare=correlate,
        floor=floor_by_chance,
        floor_words=CANONICAL_WORDS,
    )
)
register(
    Measure(
        name="svcca",
        family="canonical correlation",
        function=svcca,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=_MOVES,
        minimum_samples=3,
        cost=_COST,
        reference="Raghu et al. 2017",
        prepare=of_samples(leading_directions),
        prepare_contrasts=leading_directions,
        compare=correlate,
        floor=floor_by_chance,
        floor_words=CANONICAL_WORDS,
    )
)
register(
    Measure(
        name="pwcca",
        family="canonical correlation",
        function=pwcca,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=False,
        invariances=_MOVES - {"orthogonal"},
        invariances_y=_MOVES | {"invertible_linear"},
        minimum_samples=3,
        cost=_COST,
        reference="Morcos et al. 2018",
        prepare=of_samples(weighted_directions),
        prepare_contrasts=weighted_directions,
        compare=correlate_weighted,
        floor=floor_by_chance,
        floor_words=CANONICAL_WORDS,
    )
)
