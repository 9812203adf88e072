"""Correlation match: features paired one to one, or each with its best partner."""

from __future__ import annotations

from typing import Literal

from array_api_compat import device

from repsim._options import require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.estimators import within_one
from repsim.measures._registry import Measure, evaluate, register
from repsim.measures.parts._columns import Columns, readable, unit_norm_columns
from repsim.measures.parts._geometry import Contrasts, of_samples
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts._transport import pairing

__all__ = ["correlation_match"]

SCORES = ("hard", "soft")


def correlation_match(x: Array, y: Array, *, score: Literal["hard", "soft"] = "hard") -> Array:
    """Correlation match: the mean correlation of each feature with its partner.

    >>> import numpy as np, repsim
    >>> x = np.random.default_rng(0).standard_normal((50, 3))
    >>> round(float(repsim.correlation_match(x, 2 * x[:, [2, 0, 1]] + 1)), 6)
    1.0
    >>> y = x[:, [0, 0, 1]]
    >>> bool(repsim.correlation_match(x, y) < repsim.correlation_match(x, y, score="soft") < 1)
    True

    ::

        hard   max over pairings of (1/min(p, q)) Σ r(x_i, y_j) over the pairs (i, j)
        soft   ½ (mean_i max_j r(x_i, y_j) + mean_j max_i r(x_i, y_j))

    with r the Pearson correlation of two features over the samples. A pairing has min(p, q) pairs,
    and each feature is in at most one.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        Activations of n ≥ 2 samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        Activations of the same samples in the same order; same framework and device. p and q may
        differ.
    score : {"hard", "soft"}, default "hard"
        Whether features are paired one to one, or each with its most correlated one, which several
        may share.

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [−1, 1], without unit. With ``"hard"`` 1 where each feature of the narrower side is one
        of the wider side, up to shift and positive scale; with ``"soft"`` 1 where that holds in
        both directions. Same namespace and device as the inputs; float32 for half precision and
        float32, float64 for float64 and integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices; with ``"hard"`` arrays whose
        values cannot be read (inside ``jax.jit``, ``jax.grad``, ``torch.compile`` and the
        transforms of ``torch.func``), because the pairing is computed on the CPU.
    InputError
        Different n, fewer than 2 samples, one-dimensional or empty input, NaN or infinity
        (``NonFiniteError``), unknown score.

    Warns
    -----
    DegenerateWarning
        If a feature is constant, because it has no correlation: NaN is returned.

    Notes
    -----
    Symmetric; a similarity. Invariant to feature permutations, translation and isotropic scale of
    either input, and also to a positive scale of each feature; not to rotations. Few samples raise
    the value, because the best partner of an independent feature correlates by chance.

    With ``"hard"`` SciPy computes the pairing, and derivatives treat it as fixed; they equal the
    true ones wherever the best pairing is unique. Unlike :func:`soft_matching`, features of the
    wider side may remain without a partner. Computed in float64 where the device has it. Cost:
    O(n p q), and for ``"hard"`` an assignment, O(min(p, q)² max(p, q)).

    References
    ----------
    Li, Yosinski, Clune, Lipson, Hopcroft 2015, "Convergent learning: do different neural networks
    learn the same representations?", arXiv:1511.07543.
    """
    return evaluate("correlation_match", x, y, score=score)


def _prepare(operation: str, z: Contrasts, *, name: str, score: str) -> Columns:
    require_choice(operation, "score", score, SCORES)
    return unit_norm_columns(operation, z, name=name)


def _compare(x: Columns, y: Columns, *, score: str) -> Array:
    xp = array_namespace(x.features)
    r = xp.matrix_transpose(x.features) @ y.features
    if score == "soft":
        value = (xp.mean(xp.max(r, axis=1)) + xp.mean(xp.max(r, axis=0))) / 2
    else:
        pairs = xp.asarray(pairing(readable(x, r)), dtype=r.dtype, device=device(r))
        value = xp.sum(pairs * r) / min(r.shape)
    return where_defined(xp, within_one(xp, value), x.defined & y.defined)


for _name, _score, _pair in (
    ("correlation_match", "hard", "O(n p q) and an assignment, O(min(p, q)² max(p, q))"),
    ("correlation_match_soft", "soft", "O(n p q)"),
):
    register(
        Measure(
            name=_name,
            family="matching",
            function=correlation_match,
            range=(-1.0, 1.0),
            similarity=True,
            metric=False,
            symmetric=True,
            invariances=frozenset({"permutation", "isotropic_scale", "translation"}),
            minimum_samples=2,
            cost=f"item O(n p), pair {_pair}",
            reference="Li et al. 2015",
            prepare=of_samples(_prepare),
            prepare_contrasts=_prepare,
            compare=_compare,
            differentiable=_score == "soft",
            preset={"score": _score},
        )
    )
