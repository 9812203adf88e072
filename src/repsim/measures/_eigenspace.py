"""Eigenspace overlap: the share of directions that two representations have in common."""

from __future__ import annotations

from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.estimators import within_one
from repsim.measures._registry import INVARIANCES, Measure, evaluate, register
from repsim.measures.parts._geometry import uncentred
from repsim.measures.parts._subspace import Subspace, subspace, where_defined

__all__ = ["eigenspace_overlap"]


def eigenspace_overlap(x: Array, y: Array) -> Array:
    """Eigenspace overlap: how far two representations span the same directions of sample space.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 4))
    >>> round(float(repsim.eigenspace_overlap(x, x @ np.diag([1.0, 2.0, 3.0, 4.0]))), 6)
    1.0
    >>> round(float(repsim.eigenspace_overlap(x, x[:, :3])), 6)
    0.75

    ::

        EO = ‖UᵀV‖_F² / max(rank x, rank y)

    with U and V orthonormal bases of the columns of x and y: their left singular vectors. The
    columns are not centred.

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
        In [0, 1], without unit; 1 for representations whose columns span the same space. Same
        namespace and device as the inputs; float32 for half precision and float32, float64 for
        float64 and integers.

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
        If all features are zero, or if a representation spans all n dimensions, because the value
        then depends on the ranks alone: NaN is returned.

    Notes
    -----
    The published divisor is max(p, q), which is the same for independent features. With ranks,
    duplicated features change nothing, and the value of equal representations is always 1.

    Symmetric, and invariant to invertible linear maps of either input, so also to orthogonal maps,
    scale and feature permutations; not to translation. A similarity, not a metric. With r and s
    directions, the mean of independent directions is min(r, s)/n.

    Singular values below the rounding error of the data are not counted as directions.
    Differentiable where the rank does not change. Computed in float64 where the device has it.
    Cost: one SVD of each input, O(n p min(n, p)), then O(n p q).

    References
    ----------
    May, Zhang, Dao, Ré 2019, "On the downstream performance of compressed word embeddings",
    arXiv:1909.01264.
    """
    return evaluate("eigenspace_overlap", x, y)


def _prepare(operation: str, x: Array, *, name: str) -> Subspace:
    return subspace(operation, name, uncentred(array_namespace(x), x), centre=False)


def _compare(x: Subspace, y: Subspace) -> Array:
    xp = array_namespace(x.basis)
    cross = xp.matrix_transpose(x.basis) @ y.basis
    defined = x.defined & y.defined
    larger = xp.where(defined, xp.maximum(x.rank, y.rank), xp.ones_like(x.rank))
    return where_defined(xp, within_one(xp, xp.sum(cross * cross) / larger), defined)


register(
    Measure(
        name="eigenspace_overlap",
        family="canonical correlation",
        function=eigenspace_overlap,
        range=(0.0, 1.0),
        similarity=True,
        metric=False,
        symmetric=True,
        invariances=frozenset(INVARIANCES) - {"translation"},
        minimum_samples=2,
        cost="item O(n p min(n, p)), pair O(n p q)",
        reference="May et al. 2019",
        prepare=_prepare,
        compare=_compare,
        defined_for_constant=True,
    )
)
