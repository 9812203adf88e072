"""Orthogonal alignment of two representations, fitted once and used on other samples."""

from __future__ import annotations

from repsim._options import require_bool
from repsim._typing import Array, Namespace
from repsim.measures.fitted._affine import AffineAlignment, Centred
from repsim.measures.parts._rounding import pairs_beyond_rounding

__all__ = ["ProcrustesAlignment"]


class ProcrustesAlignment(AffineAlignment):
    """Rotation and reflection of x onto y.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((60, 4))
    >>> turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    >>> y = x @ turn + 3 + 0.1 * rng.standard_normal((60, 4))
    >>> alignment = repsim.ProcrustesAlignment().fit(x[:40], y[:40])
    >>> bool(np.allclose(alignment.weights_, turn, atol=0.1))
    True
    >>> bool(alignment.score(x[40:], y[40:]) > 0.95)  # of samples that were not fitted
    True

    ::

        ŷ = μ_y + (x − μ_x) s UVᵀ,   UΣVᵀ = XcᵀYc the singular value decomposition
        s = 1, or with scale tr Σ/‖Xc‖²

    Parameters
    ----------
    scale : bool, default False
        Whether to fit a common factor s too.

    Attributes
    ----------
    weights_ : array, shape (p, q)
        s UVᵀ.
    mean_x_, mean_y_ : array, shapes (p,) and (q,)
        The means of the fitted samples.

    Raises
    ------
    InputError
        ``scale`` is not True or False.

    Notes
    -----
    Without ``scale`` and with p = q, the distance of the fitted samples after alignment is
    :func:`repsim.procrustes`. With p < q the map ends in a subspace, with p > q it starts from one.
    Directions in which the fitted samples do not covary, as with fewer samples than features, could
    be turned in any way; they are left out (mapped to the mean), so that the map does not depend on
    the framework. Cost O(n p q + p q min(p, q)), with p and q at most n.

    References
    ----------
    Schönemann 1966, "A generalized solution of the orthogonal Procrustes problem". Williams et al.
    2021, arXiv:2110.14739.
    """

    def __init__(self, *, scale: bool = False) -> None:
        super().__init__()
        require_bool("ProcrustesAlignment", "scale", scale)
        self.scale = bool(scale)

    def _solve(self, xp: Namespace, x: Centred, y: Centred) -> tuple[Array, Array]:
        (a, of_a), (b, of_b) = (_narrow(xp, side.values) for side in (x, y))
        left, values, right = xp.linalg.svd(xp.matrix_transpose(a) @ b, full_matrices=False)
        counts, _ = pairs_beyond_rounding(
            xp, (a, b), (left, values, right), (x.resolution, y.resolution)
        )
        counts = xp.astype(counts, values.dtype)
        turn = (left * counts) @ right
        if of_a is not None:
            turn = of_a @ turn
        if of_b is not None:
            turn = turn @ xp.matrix_transpose(of_b)
        if not self.scale:
            return turn, x.scale
        factor = xp.sum(values * counts) / xp.sum(x.values * x.values)
        return turn * factor, y.scale


def _narrow(xp: Namespace, z: Array) -> tuple[Array, Array | None]:
    """Return samples in a basis of their span if they are fewer than features, and this basis."""
    if z.shape[1] <= z.shape[0]:
        return z, None
    basis, triangle = xp.linalg.qr(xp.matrix_transpose(z))
    return xp.matrix_transpose(triangle), basis
