"""Pairing of the features of two representations, fitted once and used on other samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import device

from repsim._typing import Array, Namespace
from repsim.measures.fitted._affine import AffineAlignment, Centred
from repsim.measures.parts._columns import Columns, readable
from repsim.measures.parts._transport import pairing

__all__ = ["PermutationAlignment"]


class PermutationAlignment(AffineAlignment):
    """Pairing of each feature of y with one feature of x.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((60, 4))
    >>> y = x[:, [2, 0, 3, 1]] + 3 + 0.1 * rng.standard_normal((60, 4))
    >>> alignment = repsim.PermutationAlignment().fit(x[:40], y[:40])
    >>> alignment.permutation_.tolist()
    [2, 0, 3, 1]
    >>> bool(alignment.score(x[40:], y[40:]) > 0.95)  # of samples that were not fitted
    True

    ::

        ŷ = μ_y + (x − μ_x)P,   P = argmax tr(PᵀXcᵀYc) over pairings of min(p, q) features

    Attributes
    ----------
    permutation_ : numpy.ndarray of int, shape (q,)
        The feature of x for each feature of y; −1 where there is none, because q > p.
    weights_ : array, shape (p, q)
        P.
    mean_x_, mean_y_ : array, shapes (p,) and (q,)
        The means of the fitted samples.

    Notes
    -----
    With p = q, the distance of the fitted samples after alignment is
    :func:`repsim.permutation_procrustes`. A feature of y without a partner is mapped to its mean.
    Features of large variance decide; divide by the standard deviations first to pair by
    correlation. SciPy finds the pairing on the CPU, so ``fit`` needs values that can be read. Cost
    O(n p q) and an assignment, O(min(p, q)² max(p, q)).

    References
    ----------
    Williams et al. 2021, arXiv:2110.14739. Li et al. 2015, arXiv:1511.07543.
    """

    def __init__(self) -> None:
        super().__init__()

    @property
    def permutation_(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The feature of x for each feature of y, (q,); −1 where there is none."""
        self._sides()
        return self._permutation

    def _solve(self, xp: Namespace, x: Centred, y: Centred) -> tuple[Array, Array]:
        gain = xp.matrix_transpose(x.values) @ y.values
        item = Columns(x.values, x.scale, x.scale > 0, "PermutationAlignment", "x")
        pairs = pairing(readable(item, gain))
        self._permutation = np.where(pairs.any(axis=0), pairs.argmax(axis=0), -1)
        return xp.asarray(pairs, dtype=gain.dtype, device=device(gain)), x.scale
