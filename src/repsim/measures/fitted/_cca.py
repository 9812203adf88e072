"""Canonical correlation analysis, fitted once and used on other samples."""

from __future__ import annotations

import math
from typing import NamedTuple

from repsim._errors import InputError
from repsim._options import as_count, as_number
from repsim._typing import Array, Namespace
from repsim.arrays import known, paired, scalar, unit_scale, without_autocast
from repsim.kernels import centre_features
from repsim.measures._registry import undefined
from repsim.measures.fitted._affine import Alignment, Centred
from repsim.measures.parts._rounding import beyond_rounding
from repsim.measures.parts._subspace import where_defined

__all__ = ["CCAAlignment"]


class _Whitened(NamedTuple):
    """An orthonormal basis (n, r) of the features, and the map (p, r) that makes it of them."""

    basis: Array
    weights: Array
    rank: int


class CCAAlignment(Alignment):
    """Directions of x and of y that correlate most, as coordinates that both sides share.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> common = rng.standard_normal((300, 2))
    >>> x, y = (
    ...     np.concatenate([common, rng.standard_normal((300, 3))], axis=1)
    ...     @ rng.standard_normal((5, 5))
    ...     for _ in range(2)
    ... )
    >>> alignment = repsim.CCAAlignment(components=2).fit(x[:200], y[:200])
    >>> alignment.correlations_.round(3).tolist()
    [1.0, 1.0]
    >>> round(float(alignment.score(x[200:], y[200:])), 3)  # of samples that were not fitted
    1.0
    >>> u, v = alignment.transform(x[200:], y[200:])
    >>> bool(np.allclose(u, v))
    True

    ::

        u = (x − μ_x)A,  v = (y − μ_y)B,   UᵀU = VᵀV = (n − 1)I,  UᵀV = (n − 1) diag(ρ)

    of the fitted samples, with the largest possible correlations ρ.

    Parameters
    ----------
    components : int, optional
        How many pairs of directions, the most correlated first. By default all: as many as the
        smaller of the two ranks.
    variance : float, optional
        Keep only the leading principal components of each side that hold this share of its
        variance, in (0, 1], before the analysis, as :func:`repsim.svcca` does. By default all
        directions count equally, however small their variance is.

    Attributes
    ----------
    correlations_ : array, shape (k,)
        ρ of the fitted samples.
    weights_x_, weights_y_ : array, shapes (p, k) and (q, k)
        A and B.
    mean_x_, mean_y_ : array, shapes (p,) and (q,)
        The means of the fitted samples.

    Raises
    ------
    InputError
        ``components`` is not a positive integer, ``variance`` is not in (0, 1].

    Notes
    -----
    With all components, the mean of ρ is :func:`repsim.cca`. The score of other samples is lower,
    because ρ is fitted. For example, 100 samples of 20 independent features on both sides have a
    mean ρ of .4 and a mean score of 0. A side that spans all n − 1 dimensions of n samples is
    refused, because its directions could reach anything. The sign of a pair of directions is
    arbitrary. ``fit`` does not run inside a compiler, because it reads the ranks. Cost
    O(n p min(n, p) + n q min(n, q) + p q min(p, q)).

    References
    ----------
    Hotelling 1936, "Relations between two sets of variates". Raghu et al. 2017, arXiv:1706.05806.
    """

    def __init__(self, *, components: int | None = None, variance: float | None = None) -> None:
        super().__init__()
        self.components = (
            None if components is None else as_count("CCAAlignment", "components", components)
        )
        self.variance = (
            None
            if variance is None
            else as_number("CCAAlignment", "variance", variance, above=0, most=1)
        )

    def _learn(self, xp: Namespace, x: Centred, y: Centred) -> None:
        a, b = (_whitened(xp, side, name, self.variance) for name, side in (("x", x), ("y", y)))
        most = min(a.rank, b.rank)
        k = most if self.components is None else self.components
        if k > most:
            raise InputError(
                f"CCAAlignment: there are {most} pairs of directions.\n"
                f"  ranks: {a.rank} of x, {b.rank} of y\n"
                f"  got components={k}"
            )
        left, values, right = xp.linalg.svd(
            xp.matrix_transpose(a.basis) @ b.basis, full_matrices=False
        )
        unit = math.sqrt(x.values.shape[0] - 1)
        self._correlations: Array = values[:k]
        self._a = a.weights @ left[:, :k] * unit
        self._b = b.weights @ xp.matrix_transpose(right)[:, :k] * unit

    @property
    def correlations_(self) -> Array:
        """ρ of the fitted samples, (k,)."""
        self._sides()
        return self._correlations

    @property
    def weights_x_(self) -> Array:
        """A, (p, k)."""
        x, _ = self._sides()
        out: Array = self._a / x.scale
        return out

    @property
    def weights_y_(self) -> Array:
        """B, (q, k)."""
        _, y = self._sides()
        out: Array = self._b / y.scale
        return out

    @without_autocast
    def transform(self, x: Array, y: Array | None = None) -> Array | tuple[Array, Array]:
        """Return the canonical variates of samples.

        Parameters
        ----------
        x : array, shape (m, p) or (m, ...)
            Activations of any samples, of the framework and device of the fitted ones.
        y : array, shape (m, q) or (m, ...), optional
            Those of the other side.

        Returns
        -------
        array, shape (m, k), or two of them
            u, or with y the pair (u, v); float32 for half precision and float32, float64 for
            float64 and integers.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of another framework or device.
        InputError
            Not fitted yet, other features, NaN or infinity (``NonFiniteError``).
        """
        u = self._variates(x, "x")
        return u if y is None else (u, self._variates(y, "y"))

    def _variates(self, x: Array, name: str) -> Array:
        side = "xy".index(name)
        xp, a = self._given(x, name, side)
        wide = self._wide(xp, a, self._sides()[side]) @ (self._a, self._b)[side]
        out: Array = xp.astype(wide, a.dtype, copy=False)
        return out

    @without_autocast
    def score(self, x: Array, y: Array) -> Array:
        """Mean correlation of the pairs of canonical variates.

        Parameters
        ----------
        x : array, shape (m, p) or (m, ...)
            Activations of m ≥ 2 samples. With samples that were not fitted it is the correlation
            that generalises.
        y : array, shape (m, q) or (m, ...)
            Activations of the same samples in the same order.

        Returns
        -------
        array, 0-d, or NumPy scalar
            In [−1, 1]; NaN where a variate is constant.

        Raises
        ------
        ArrayTypeError
            Not arrays, or arrays of other frameworks or devices than the fitted ones.
        InputError
            Not fitted yet, different m, fewer than 2 samples, other features, NaN or infinity
            (``NonFiniteError``).

        Warns
        -----
        DegenerateWarning
            If a canonical variate of these samples is constant: NaN is returned.
        """
        paired("CCAAlignment", x, y, min_samples=2, why="CCAAlignment")
        parts = []
        for side, (name, given) in enumerate((("x", x), ("y", y))):
            xp, a = self._given(given, name, side)
            variates = self._wide(xp, a, self._sides()[side]) @ (self._a, self._b)[side]
            centred, _ = unit_scale(xp, centre_features(xp, variates), axis=0)
            norms = xp.linalg.vector_norm(centred, axis=0)
            undefined("CCAAlignment", name, xp.any(norms <= 0), "has a constant variate")
            parts.append((centred, norms))
        (u, of_u), (v, of_v) = parts
        defined = xp.all((of_u > 0) & (of_v > 0))
        norms = xp.where(of_u * of_v > 0, of_u * of_v, xp.ones_like(of_u))
        value = xp.mean(xp.sum(u * v, axis=0) / norms)
        return scalar(xp, where_defined(xp, value, defined), a.dtype)


def _whitened(xp: Namespace, side: Centred, name: str, variance: float | None) -> _Whitened:
    """Return the basis of one side, of all its directions or of the leading ones."""
    z = side.samples()
    lengths = xp.linalg.vector_norm(z.points, axis=0)
    # If all directions count, a small feature must not be mistaken for rounding.
    free = variance is None
    units = xp.where((lengths > 0) & free, lengths, xp.ones_like(lengths))
    z = z._replace(points=z.points / units[None, :], mean=z.mean / units)
    basis, values, right = xp.linalg.svd(z.points, full_matrices=False)
    n = z.dimensions + 1
    keep = beyond_rounding(xp, values, right, z)
    if variance is not None:
        power = values * values
        before = xp.cumulative_sum(power) - power
        keep = keep & (before < (variance - 1e-14) * xp.sum(power))
    if known(xp.all(keep)) is None:
        raise InputError(
            "CCAAlignment: the ranks must be readable.\n"
            "  fit runs inside a compiler, which has no values\n"
            "  Call fit outside of jax.jit and torch.compile."
        )
    rank = int(xp.sum(xp.astype(keep, xp.int32)))
    if rank >= n - 1:
        raise InputError(
            f"CCAAlignment: {name} spans all {n - 1} dimensions of {n} centred samples, so every "
            f"direction of anything lies in it.\n"
            f"  Bring more samples than features, or keep fewer directions: variance=0.99."
        )
    weights = xp.matrix_transpose(right)[:, :rank] / values[None, :rank] / units[:, None]
    return _Whitened(basis[:, :rank], weights, rank)
