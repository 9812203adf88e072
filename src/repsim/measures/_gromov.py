"""Gromov–Wasserstein distance: whether two sets of samples have one geometry, in any order."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import numpy as np
from array_api_compat import device

from repsim._errors import warn
from repsim._missing import missing_package
from repsim._options import as_count, as_seed, require_choice
from repsim._typing import Array, Namespace
from repsim.arrays import (
    as_samples,
    check_finite,
    namespace,
    root,
    scalar,
    unit_scale,
    unlabelled,
    without_autocast,
)
from repsim.measures._registry import undefined
from repsim.measures.parts._columns import Columns, readable
from repsim.measures.parts._dissimilarity import dissimilarities, squared_euclidean
from repsim.measures.parts._geometry import nonnegative
from repsim.measures.parts._subspace import where_defined

__all__ = ["gromov_wasserstein"]

METRICS = ("euclidean", "cosine")
NORMS = ("mean", "none")

Matrix = np.ndarray[Any, np.dtype[np.float64]]


@without_autocast
def gromov_wasserstein(
    x: Array,
    y: Array,
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    norm: Literal["mean", "none"] = "mean",
    starts: int = 10,
    seed: int = 0,
) -> Array:
    """Gromov–Wasserstein distance of two sets of samples whose order is not known.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((20, 3))
    >>> y = 2 * x[rng.permutation(20)] @ np.linalg.qr(rng.standard_normal((3, 3)))[0]
    >>> round(float(repsim.gromov_wasserstein(x, y)), 6)
    0.0
    >>> bool(repsim.gromov_wasserstein(x, rng.standard_normal((25, 3))) > 0.1)
    True

    ::

        GW² = min_T Σ_ijkl (D_ik − E_jl)² T_ij T_kl,   T ≥ 0,  T1 = 1/n,  Tᵀ1 = 1/m

    with D and E the dissimilarities of the samples of x and of y, and T_ij the share of sample i of
    x that is matched with sample j of y.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (m, q) or (m, ...)
        Activations of m ≥ 2 samples, which may be others, in any order; same framework and device.
    metric : {"euclidean", "cosine"}, default "euclidean"
        The dissimilarity of two samples: the distance, or 1 − cos.
    norm : {"mean", "none"}, default "mean"
        "mean": dissimilarities of each side are divided by their mean, so that the unit of the
        features does not matter.
    starts : int, default 10
        Number ≥ 0 of random plans from which the search starts, besides the uniform plan and, for
        n = m, the plan that matches the samples in their order.
    seed : int, default 0
        The seed of the random plans.

    Returns
    -------
    array, 0-d, or NumPy scalar
        At least 0; without unit, or with ``norm="none"`` in that of the dissimilarities. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

    Raises
    ------
    ModuleNotFoundError
        POT is not installed; the message says how to install it.
    ArrayTypeError
        Not arrays, arrays of different frameworks or devices, or arrays whose values cannot be read
        (inside ``jax.jit``, ``jax.grad``, ``torch.compile`` and the transforms of ``torch.func``),
        because POT computes the plan on the CPU.
    InputError
        Fewer than 2 samples, one-dimensional or empty input, NaN or infinity (``NonFiniteError``),
        unknown metric or norm.

    Warns
    -----
    DegenerateWarning
        If all samples of a side are equal (with ``norm="mean"``), or a sample is zero in all
        features ("cosine"): NaN is returned.
    RepsimWarning
        POT stopped before it was done.

    Notes
    -----
    **The value is an upper bound.** The problem is not convex: each search ends in a local optimum,
    and the smallest of them is returned. With the same seed, more ``starts`` make it smaller, never
    larger. Compare only values with the same number of starts, and read small differences as noise
    of the search. For samples whose order is known, :func:`procrustes` and :func:`rsa` are exact.

    Symmetric up to the search. The global optimum is a metric between sets up to isometry.
    Invariant to orthogonal maps, feature permutations, translation ("euclidean"), isotropic scale
    (with ``norm="mean"`` or "cosine") and the order of the samples, again up to the search.
    Mémoli's definition has a factor ½. Derivatives treat the plan as fixed; they equal the true
    ones wherever the best plan is unique. Cost: some ten iterations of O(n²m + nm²) and of a
    transport problem for each start: about a second for 300 samples and ten starts on one core.

    References
    ----------
    Mémoli 2011, "Gromov–Wasserstein distances and the metric approach to object matching". Peyré,
    Cuturi, Solomon 2016, "Gromov–Wasserstein averaging of kernel and distance matrices". Flamary et
    al. 2021, "POT: Python optimal transport".
    """
    operation = "gromov_wasserstein"
    require_choice(operation, "metric", metric, METRICS)
    require_choice(operation, "norm", norm, NORMS)
    starts, seed = as_count(operation, "starts", starts, least=0), as_seed(operation, seed)
    plain = [unlabelled(operation, {name: z})[0] for name, z in (("x", x), ("y", y))]
    xp = namespace(operation, x=plain[0], y=plain[1])
    sides, dtypes = [], []
    for name, z in zip("xy", plain, strict=True):
        a = as_samples(operation, xp, z, name, min_samples=2, why=operation)
        check_finite(operation, xp, a, name)
        sides.append(_distances(operation, xp, a, name, metric, norm))
        dtypes.append(a.dtype)
    (d, of_d), (e, of_e) = sides
    plan = _plan(_read(xp, operation, d, "x"), _read(xp, operation, e, "y"), starts, seed)
    value = _value(xp, d, e, xp.asarray(plan, dtype=d.dtype, device=device(d)))
    return scalar(xp, where_defined(xp, value, of_d & of_e), xp.result_type(*dtypes))


def _distances(
    operation: str, xp: Namespace, a: Array, name: str, metric: str, norm: str
) -> tuple[Array, Array]:
    """Return the dissimilarities of the samples, (n, n), and whether they are defined."""
    if metric == "euclidean":
        squared, scale = squared_euclidean(a)
        d, defined = root(xp, squared), xp.all(xp.isfinite(squared))
    else:
        d, defined = dissimilarities(operation, name, a, metric)
        scale = xp.ones_like(d[0, 0])
    if norm == "none":
        return d * scale, defined
    n = a.shape[0]
    mean = xp.sum(d) / (n * (n - 1))
    undefined(operation, name, defined & (mean <= 0), "has samples that are all equal")
    return d / xp.where(mean > 0, mean, xp.ones_like(mean)), defined & (mean > 0)


def _read(xp: Namespace, operation: str, d: Array, name: str) -> Matrix:
    return readable(Columns(d, d[0, 0], d[0, 0] >= 0, operation, name), d)


def _value(xp: Namespace, d: Array, e: Array, plan: Array) -> Array:
    """Return the root of the objective for a plan."""
    # In one unit, because the square of 1e200 is infinite.
    _, unit = unit_scale(xp, xp.maximum(xp.max(d), xp.max(e)))
    d, e = d / unit, e / unit
    first, second = xp.mean(d * d), xp.mean(e * e)
    both = xp.sum((d @ plan @ e) * plan)
    out: Array = root(xp, nonnegative(xp, first + second - 2 * both, first + second)) * unit
    return out


def _plan(d: Matrix, e: Matrix, starts: int, seed: int) -> Matrix:
    """Return the best plan of all starts."""
    ot = _pot()
    n, m = len(d), len(e)
    p, q = np.full(n, 1 / n), np.full(m, 1 / m)
    rng = np.random.default_rng(seed)
    begin: list[Matrix | None] = [None]  # the uniform plan
    if n == m:
        begin.append(np.eye(n) / n)
    # The objective is as large as its unit: one scale for both, so that tolerances are relative.
    unit = max(d.max(), e.max()) or 1.0
    best, least = np.outer(p, q), np.inf
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for at in range(len(begin) + starts):
            start = begin[at] if at < len(begin) else ot.emd(p, q, rng.random((n, m)))
            plan = ot.gromov.gromov_wasserstein(
                d / unit, e / unit, p, q, "square_loss", symmetric=True, G0=start
            )
            left = -2 * np.sum((d / unit @ plan @ (e / unit)) * plan)
            if left < least:
                best, least = plan, left
    if caught:
        warn(
            f"gromov_wasserstein: POT stopped before it was done, so the value may be too large.\n"
            f"  {caught[0].message}\n"
            f"  Bring fewer samples."
        )
    return best


def _pot() -> Any:
    try:
        import ot
        import ot.gromov
    except ModuleNotFoundError as error:
        raise missing_package("gromov_wasserstein", error) or error from error
    return ot
