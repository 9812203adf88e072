"""Predictivity: how well a regression on one representation predicts another on new samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from array_api_compat import device

from repsim._errors import InputError
from repsim._options import as_count, require_choice
from repsim._typing import Array
from repsim.arrays import array_namespace
from repsim.measures._registry import Measure, evaluate, register, undefined
from repsim.measures.parts._geometry import centred_samples
from repsim.measures.parts._ridge_folds import (
    Fold,
    as_penalties,
    predict,
    split,
    training_samples,
    training_spectrum,
)
from repsim.measures.parts._subspace import where_defined
from repsim.measures.parts.prediction._held_out import contiguous
from repsim.measures.parts.prediction._normal import Normal, normal_predictions, normally
from repsim.measures.parts.prediction._pls import pls_predictions
from repsim.measures.parts.prediction._scores import (
    REDUCTIONS,
    SCORES,
    column_scores,
    corrected,
    reduced,
)

__all__ = ["predictivity"]

MODELS = ("ridge", "pls", "ols")

COMPONENTS = 25
"""Of PLS by default, as in Brain-Score."""


def predictivity(
    x: Array,
    y: Array,
    *,
    model: Literal["ridge", "pls", "ols"] = "ridge",
    ridge: float | Sequence[float] = 1.0,
    components: int | None = None,
    folds: int = 5,
    groups: Sequence[object] | Array | None = None,
    score: Literal["pearson", "r2"] = "pearson",
    reduce: Literal["mean", "median"] = "mean",
    reliability: float | Sequence[float] | Array | None = None,
) -> Array:
    """Predictivity: how well a regression on x predicts the columns of y for new samples.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((200, 10))
    >>> y = x @ rng.standard_normal((10, 3))
    >>> bool(repsim.predictivity(x, y) > 0.99)
    True
    >>> first, second = (y + 3 * rng.standard_normal(y.shape) for _ in range(2))  # noisy
    >>> reliability = [np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, second.T)]
    >>> noisy = repsim.predictivity(x, first)
    >>> right = repsim.predictivity(x, first, reliability=reliability)
    >>> bool(noisy < 0.8), bool(0.9 < right < 1.1)
    (True, True)

    ::

        ŷ of fold f = m_f + (x − μ_f) B_f,   fitted to the samples outside fold f
        ridge    B = argmin ‖Yc − XcB‖² + λ‖B‖²
        ols      the smallest B that minimises ‖Yc − XcB‖²
        pls      B from the directions of x with the greatest covariance with y (PLS2, NIPALS)
        pearson  r_j = corr(ŷ_·j, y_·j) over all samples, each predicted by its own fold
        r2       1 − Σ_i (y_ij − ŷ_ij)² / Σ_i (y_ij − mean y_·j)²

    and then the mean or the median over the columns j of y. With the reliability ρ_j of column j,
    its correlation is divided by √ρ_j and its R² by ρ_j.

    Parameters
    ----------
    x : array, shape (n, p) or (n, ...)
        The predictors, such as activations of a model, of n samples; trailing axes are flattened.
    y : array, shape (n, q) or (n, ...)
        The targets, such as recordings of neurons or voxels, of the same samples in the same order;
        same framework and device.
    model : {"ridge", "pls", "ols"}, default "ridge"
        The regression. An intercept is fitted in each; nothing is rescaled.
    ridge : float or sequence of float, default 1.0
        Penalty λ ≥ 0 of ``"ridge"``, in squared units of x, as ``alpha`` of scikit-learn. If you
        pass several, each training set takes the one with the smallest leave-one-out error within
        it, summed over the columns of y.
    components : int, optional
        Components of ``"pls"``, 25 by default. If the training samples or the features of x allow
        only fewer, these are used, and the fit is that of ``"ols"``.
    folds : int, default 5
        Number of folds, 2 ≤ folds ≤ n. Each fold is a run of adjacent samples; the numbers of
        samples in two folds differ by at most one.
    groups : sequence or array of n labels, optional
        Samples with the same label are held out together. Folds are runs of groups, in the order in
        which groups first appear.
    score : {"pearson", "r2"}, default "pearson"
        The score of a column.
    reduce : {"mean", "median"}, default "mean"
        How the scores of the columns are combined.
    reliability : float, sequence or array, shape (q,), optional
        ρ_j in (0, 1]: the correlation of two independent measurements of column j, made in the way
        in which y was. If y is the average of two halves with correlation r, it is 2r/(1 + r).

    Returns
    -------
    array, 0-d, or NumPy scalar
        In [−1, 1] ("pearson") or at most 1 ("r2"; negative where predictions are worse than the
        mean), without unit; divided by the reliability it may be above 1 by chance. Same namespace
        and device as the inputs; float32 for half precision and float32, float64 for float64 and
        integers.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Different n, fewer than 4 and ``folds`` samples, fewer groups than folds, one-dimensional or
        empty input, NaN or infinity (``NonFiniteError``), unknown model, score or reduction, an
        option of another model, a reliability outside (0, 1].

    Warns
    -----
    DegenerateWarning
        If x or a column of y is constant, or if predictions of a column are constant and have no
        correlation: NaN is returned.

    Notes
    -----
    It predicts **y from x**, as Brain-Score does; :func:`linear_regression_r2` predicts x from y,
    and weights the columns by their variance. Not symmetric. Invariant to orthogonal maps, feature
    permutations and translation of x, and, except for ``"ridge"``, to its scale; ``"ols"`` with
    more samples than features to any invertible map of x. Invariant to translation, scale and
    permutation of the columns of y.

    The folds are runs of adjacent samples, so samples that were sorted by class are predicted from
    other classes: shuffle both sides in the same way if that is not the question. Samples that
    belong together (frames of a video, views of an object) need ``groups``. Predictions of
    independent data correlate slightly negatively, because the mean of the training samples is low
    where the held-out ones are high.

    Without noise in x the highest possible correlation with y is √ρ, so a corrected score of 1
    means that x predicts all that can be predicted. The correction amplifies the error of a small
    ρ, so drop columns of low reliability.

    scikit-learn's PLSRegression(scale=False) stops its iterations at tol=1e-6 and so differs in the
    fourth digit; with a smaller tol it gives the same values.

    Computed in float64 where the device has it, "ridge" and "ols" by their normal equations where
    these leave eight digits, otherwise by a singular value decomposition. Differentiable as
    :func:`linear_regression_r2` with folds is; for ``"pls"`` the derivative is NaN where
    covariances have equal singular values. Cost: O(n p min(n, p)) once for each x and fold,
    O(n q min(n, p)) for a pair, once for each penalty; for ``"pls"`` O(n p q + min(n, p, q)³) for
    each pair, fold and component.

    References
    ----------
    Schrimpf et al. 2018, "Brain-Score: which artificial neural network for object recognition is
    most brain-like?", bioRxiv 407007. Spearman 1904, "The proof and measurement of association
    between two things", for the correction. Wold 1975, "Path models with latent variables: the
    NIPALS approach", for PLS.
    """
    return evaluate(
        "predictivity",
        x,
        y,
        model=model,
        ridge=ridge,
        components=components,
        folds=folds,
        groups=groups,
        score=score,
        reduce=reduce,
        reliability=reliability,
    )


class _Item:
    """A representation as predictor and as target, each made on first use."""

    def __init__(self, operation: str, name: str, x: Array, held: tuple[Any, ...]) -> None:
        xp = array_namespace(x)
        self.xp, self.name, self.operation, self.held = xp, name, operation, held
        self.samples = centred_samples(xp, x)
        self.centred, self.scale = self.samples.points, self.samples.scale
        spread = xp.max(xp.abs(self.centred), axis=0)
        self.varies = xp.any(spread > 0)
        self.all_vary = xp.all(spread > 0)
        undefined(operation, name, ~self.varies, "is constant over the samples")
        self._spectra: dict[int, Fold] = {}
        self._normal: dict[tuple[int, float], Normal | None] = {}

    def spectrum(self, fold: int) -> Fold:
        """Return the decomposition of the samples outside a fold; penalties are in units of x."""
        if fold not in self._spectra:
            found = training_spectrum(self.xp, self.samples, self.held[fold])
            unit = self.xp.ones_like(self.scale) / self.scale / self.scale
            self._spectra[fold] = found._replace(size=unit)
        return self._spectra[fold]

    def predictions(self, fold: int, train: Array, penalties: tuple[float, ...]) -> Array:
        """Predict held-out targets minus their training mean from centred training targets."""
        xp, mask = self.xp, self.held[fold]
        if len(penalties) == 1:
            key = fold, penalties[0]
            if key not in self._normal:
                penalty = penalties[0] * xp.ones_like(self.scale) / self.scale / self.scale
                self._normal[key] = normally(xp, self.centred, mask, penalty)
            if (found := self._normal[key]) is not None:
                return normal_predictions(xp, self.centred, mask, found, train)
        return predict(xp, self.spectrum(fold), train, penalties)


def _prepare(
    operation: str, x: Array, *, name: str, folds: int, groups: Any, **options: Any
) -> _Item:
    _checked(operation, **options)
    return _Item(operation, name, x, contiguous(operation, x.shape[0], folds, groups))


def _compare(
    x: _Item, y: _Item, *, score: str, reduce: str, reliability: Any, **options: Any
) -> Array:
    xp = x.xp
    defined = x.varies & y.all_vary
    undefined(
        y.operation,
        y.name,
        y.varies & ~y.all_vary,
        "has a constant column, which has no score (drop it)",
    )
    pooled = _pooled(x, y, options)
    # A constant column has a value here, so that no division by zero follows.
    flat = xp.max(xp.abs(y.centred), axis=0) <= 0
    rows = xp.arange(y.centred.shape[0], device=device(y.centred))
    target = xp.where(flat[None, :] & (rows == 0)[:, None], xp.ones_like(pooled), y.centred)
    scores, unscored = column_scores(xp, pooled, target, score)
    lost = xp.any(unscored & ~flat)
    undefined(y.operation, y.name, defined & lost, "has a column whose predictions are constant")
    scores = corrected(y.operation, xp, scores, reliability, score)
    return where_defined(xp, reduced(xp, scores, reduce), defined & ~lost)


def _pooled(x: _Item, y: _Item, options: dict[str, Any]) -> Array:
    """Return the prediction of each sample from the samples outside its fold, (n, q)."""
    xp = x.xp
    model, penalties, components = _checked(x.operation, **options)
    predicted = []
    for fold, mask in enumerate(x.held):
        train, _ = split(xp, y.centred, mask)
        mean = xp.mean(train, axis=0, keepdims=True)
        if model == "pls":
            seen, new = split(xp, x.centred, mask)
            middle = xp.mean(seen, axis=0, keepdims=True)
            samples = training_samples(x.samples, seen, middle)
            found = pls_predictions(xp, samples, train - mean, new - middle, components)
        else:
            found = x.predictions(fold, train - mean, penalties)
        predicted.append(found + mean)
    order = np.argsort(np.concatenate([np.flatnonzero(mask) for mask in x.held]))
    stacked = xp.concat(predicted, axis=0)
    out: Array = xp.take(stacked, xp.asarray(order, device=device(stacked)), axis=0)
    return out


def _checked(
    operation: str, *, model: str, ridge: Any, components: int | None, **others: Any
) -> tuple[str, tuple[float, ...], int]:
    """Return model, penalties and number of components, or raise."""
    require_choice(operation, "model", model, MODELS)
    if "score" in others:
        require_choice(operation, "score", others["score"], SCORES)
        require_choice(operation, "reduce", others["reduce"], REDUCTIONS)
    penalties = as_penalties(operation, ridge)
    for option, given, owner, used in (
        ("ridge", ridge, "ridge", penalties != (1.0,)),
        ("components", components, "pls", components is not None),
    ):
        if used and model != owner:
            raise InputError(
                f"{operation}: {option} is an option of model={owner!r}.\n"
                f"  got {option}={given!r} with model={model!r}"
            )
    if model == "ols":
        penalties = (0.0,)
    count = COMPONENTS if components is None else as_count(operation, "components", components)
    return model, penalties, count


def _needs(*, folds: Any, **_: object) -> tuple[int, str]:
    fewest = max(4, as_count("predictivity", "folds", folds, least=2))
    return fewest, "predictivity" if fewest == 5 else f"folds={folds}"


def _range_with(*, score: object, reliability: object, **_: object) -> tuple[float, float]:
    if reliability is not None:  # a quotient of estimates
        return -math.inf, math.inf
    return (-math.inf, 1.0) if score == "r2" else (-1.0, 1.0)


_MOVES = frozenset({"permutation", "translation"})

for _name, _preset, _invariances in (
    ("predictivity", {}, _MOVES | {"orthogonal"}),
    (
        "predictivity_pls",
        {"model": "pls", "components": 2},
        _MOVES | {"orthogonal", "isotropic_scale"},
    ),
):
    register(
        Measure(
            name=_name,
            family="regression",
            function=predictivity,
            range=(-1.0, 1.0),
            similarity=True,
            metric=False,
            symmetric=False,
            invariances=_invariances,
            invariances_y=_MOVES | {"isotropic_scale"},
            minimum_samples=5,
            cost=(
                "pair O(n p q + min(n, p, q)³), for each component"
                if _preset
                else "item O(n p min(n, p)), pair O(n q min(n, p))"
            ),
            reference="Schrimpf et al. 2018",
            prepare=_prepare,
            compare=_compare,
            self_is_best=False,
            differentiable=not _preset,
            preset=_preset,
            needs=_needs,
            range_with=_range_with,
        )
    )
