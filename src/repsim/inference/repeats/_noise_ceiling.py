"""Noise ceilings: how high a value repeated measurements allow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from repsim._errors import InputError, warn
from repsim._options import require_choice
from repsim._typing import Array
from repsim.arrays import accumulator_dtype, array_namespace, to_numpy, without_autocast
from repsim.inference._options import settings_for
from repsim.inference.repeats._subjects import named_subjects
from repsim.measures import MEASURES, Measure, rdm_item, resolve_measure
from repsim.measures.parts.rdms import RANKED

__all__ = ["NoiseCeiling", "noise_ceiling"]

Values = np.ndarray[Any, np.dtype[np.float64]]

POOLS = ("matrices", "features")


@dataclass(frozen=True, eq=False, kw_only=True)
class NoiseCeiling:
    """Bounds of the mean value that the best model can have with noisy repeats.

    Attributes
    ----------
    measure : str
        Name of the measure.
    similarity : bool
        Whether large values of the measure mean alike; False for a dissimilarity.
    lower, upper : float
        In the measure's unit. The expected value of the true model lies between them.
    from_others, from_all : array, shape (repeats,), float64
        Each repeat with the average of the others, and with the average of all. Their means are the
        bounds.
    pool : str
        What was averaged: "matrices" or "features".
    n_repeats, n_samples : int
        Repeats or subjects, and samples of each.
    """

    measure: str
    similarity: bool
    lower: float
    upper: float
    from_others: Values
    from_all: Values
    pool: str
    n_repeats: int
    n_samples: int

    def __repr__(self) -> str:
        return (
            f"NoiseCeiling({self.measure} in [{self.lower:.4f}, {self.upper:.4f}], "
            f"{self.n_repeats} repeats of {self.n_samples} samples)"
        )


@without_autocast
def noise_ceiling(
    repeats: Sequence[Array] | Mapping[str, Array] | Array,
    *,
    measure: str | Measure = "rsa",
    pool: Literal["matrices", "features"] = "matrices",
    **options: object,
) -> NoiseCeiling:
    """Noise ceiling: how well the true model would score on repeated measurements.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.standard_normal((40, 5))
    >>> subjects = [truth @ rng.standard_normal((5, 30)) for _ in range(8)]
    >>> subjects = [s + 2 * rng.standard_normal(s.shape) for s in subjects]
    >>> ceiling = repsim.noise_ceiling(subjects, measure="rsa")
    >>> score = np.mean([repsim.rsa(truth, s) for s in subjects])
    >>> bool(0 < ceiling.lower < ceiling.upper < 1), bool(score < ceiling.upper)
    (True, True)

    ::

        from_others_r = measure(x_r, average of x_s over s ≠ r)
        from_all_r    = measure(x_r, average of x_s over all s)
        lower, upper  = their means over r

    A model is compared with each repeat, and its values are averaged. The average of the other
    repeats is a model that really reaches the lower bound. The average of all repeats is fitted to
    the noise of the repeat with which it is compared, so the upper bound is too high for every
    model that does not know this noise.

    Parameters
    ----------
    repeats : sequence or mapping of arrays, each (n, p_r) or (n, ...), or one array (R, n, ...)
        R ≥ 2 measurements of the same n samples in the same order, by subject, session or repeat;
        trailing axes are flattened. One framework and device.
    measure : str or Measure, default "rsa"
        A name from ``repsim.measures.MEASURES``, or your own ``Measure``.
    pool : {"matrices", "features"}, default "matrices"
        What is averaged. ``"matrices"``: the RDMs or centred Grams, scaled to equal norms (ranks,
        centred or centred entries, as the comparison uses them; an average of ranks is ranked
        again). Subjects may have different features. It needs a measure that is a cosine of such
        matrices: ``rsa`` with any comparison, ``cka``, ``rv2`` and ``distance_correlation``.
        ``"features"``: the arrays themselves, for any measure. All repeats must measure the *same*
        features in the same order, such as sessions with the same neurons.
    **options
        Keyword options of the measure. The estimator is unbiased unless given. With
        ``rdm="precomputed"`` of ``rsa``, ``repeats`` are ready RDMs, each (n, n) or its entries
        above the diagonal.

    Returns
    -------
    NoiseCeiling
        ``lower`` and ``upper``, and the values of each repeat. For a dissimilarity the average of
        all gives ``lower``.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Fewer than 2 repeats, different n, too few samples, NaN or infinity (``NonFiniteError``),
        unknown pool, a measure that does not compare matrices with ``pool="matrices"``, different
        widths with ``pool="features"``.

    Warns
    -----
    DegenerateWarning
        If a repeat is constant: the bounds are NaN.
    RepsimWarning
        If one array has more repeats than samples, because its axes may be in another order.

    Notes
    -----
    With ``pool="matrices"`` and one of ``"pearson"``, ``"cosine"``, ``"whitened"``, CKA, RV2 or
    distance correlation, no model at all has a higher mean value over these repeats than ``upper``:
    Σ cos(u_r, v) is largest for v = Σ u_r/‖u_r‖. For ``"spearman"`` and ``"rho_a"`` this holds if
    repeats have no ties. For Kendall's τ the average of ranks is close to the best model.
    With ``pool="features"`` the upper bound holds for models that do not know the noise; a measure
    that fits (CCA, regression without folds) can exceed it with a model of many features.

    The bounds move together as R grows. They say nothing about how precisely they are estimated.
    What all repeats share counts as signal, and noise makes distances larger in all of them. If
    some conditions are noisier than others in all subjects, or if ``comparison="cosine"`` compares
    distances without subtracting their mean, the true model can lie below the lower bound.
    ``rdm="crossnobis"`` is free of this.
    For CCA, Procrustes or neighbours of subjects with features of their own there is no average, so
    there is no ceiling; :func:`repsim.pairwise` shows how alike such subjects are. Cost: R items
    and, for features, R + 1 more and 2 R pairs; memory O(R n²) for matrices.

    References
    ----------
    Nili, Wingfield, Walther, Su, Marslen-Wilson, Kriegeskorte 2014, "A toolbox for representational
    similarity analysis", PLoS Computational Biology 10. Schütt, Kipnis, Diedrichsen, Kriegeskorte
    2023, "Statistical inference on representational geometries", eLife 12:e82566.
    """
    operation = "noise_ceiling"
    chosen = resolve_measure(operation, measure, options, function=noise_ceiling)
    require_choice(operation, "pool", pool, POOLS)
    settings = settings_for(operation, chosen, options)
    ready = settings.get("rdm") == "precomputed"
    if pool == "matrices":
        _require_matrices(operation, chosen)
    elif ready:
        raise InputError(
            f"{operation}: ready RDMs have no features to average.\n"
            f"  got pool='features' with rdm='precomputed'\n"
            f"  Leave pool= out: RDMs are averaged as matrices."
        )
    fewest, why = chosen.fewest(**settings)
    arrays = named_subjects(
        operation,
        "repeats",
        repeats,
        fewest=fewest,
        why=why,
        least=2,
        measure=chosen,
        settings=settings,
    )
    if not ready:
        _warn_of_axes(operation, repeats, arrays)
    of = _of_matrices if pool == "matrices" else _of_features
    others, everyone = of(operation, chosen, settings, arrays)
    ends = float(np.mean(others)), float(np.mean(everyone))
    lower, upper = ends if chosen.similarity else ends[::-1]
    return NoiseCeiling(
        measure=chosen.name,
        similarity=chosen.similarity,
        lower=lower,
        upper=upper,
        from_others=others,
        from_all=everyone,
        pool=pool,
        n_repeats=len(arrays),
        n_samples=int(next(iter(arrays.values())).shape[0]),
    )


def _warn_of_axes(operation: str, repeats: Any, arrays: Mapping[str, Array]) -> None:
    """Warn if one array looks like samples by repeats, which is how recordings are often stored."""
    r, n = len(arrays), int(next(iter(arrays.values())).shape[0])
    if r > n and getattr(repeats, "ndim", 0) > 2:
        warn(
            f"{operation}: {r} repeats of {n} samples are taken from one array "
            f"{tuple(repeats.shape)}.\n  If its second axis is that of the repeats, pass "
            f"numpy.moveaxis(repeats, 1, 0). If its first axis is, pass list(repeats)."
        )


def _require_matrices(operation: str, measure: Measure) -> None:
    if measure.entries is not None:
        return
    known = [name for name, m in MEASURES.items() if m.entries is not None]
    raise InputError(
        f"{operation}: {measure.name!r} compares no matrices of samples that could be averaged.\n"
        f"  those that do: {', '.join(map(repr, known))}\n"
        f"  Pass pool='features' if all repeats measure the same features in the same order."
    )


def _of_matrices(
    operation: str, measure: Measure, settings: dict[str, Any], arrays: dict[str, Array]
) -> tuple[Values, Values]:
    assert measure.entries is not None
    vectors = []
    for name, x in arrays.items():
        item = measure.prepare(operation, x, name=name, **settings)
        vectors.append(np.reshape(to_numpy(measure.entries(item)), (-1,)).astype(np.float64))
    u = np.stack(vectors)
    norms = np.sqrt(np.sum(u * u, axis=1, keepdims=True))
    if not np.all(norms > 0):  # a constant or NaN; a warning has named the repeat
        nothing = np.full(len(u), math.nan)
        return nothing, nothing
    count = range(len(u))
    # The sum of the others anew, because the sum of all less u_r has other rounding and other ties.
    # An average of ranks is ranked again.
    if settings.get("comparison") not in RANKED:
        u = u / norms
        left = np.stack([np.sum(np.delete(u, r, axis=0), axis=0) for r in count])
        return _cosines(u, left), _cosines(u, np.sum(u, axis=0, keepdims=True))

    def ranked(vector: Values, name: str) -> Any:
        return rdm_item(operation, vector, name=name, comparison=settings["comparison"])

    # Ranks of all repeats have one scale, so that their sums have exact ties.
    mine = [ranked(v, name) for v, name in zip(u, arrays, strict=True)]
    whole = ranked(np.sum(u, axis=0), "the average of all repeats")
    others, everyone = [], []
    for r, name in enumerate(arrays):
        rest = ranked(np.sum(np.delete(u, r, axis=0), axis=0), f"the average without {name}")
        others.append(float(measure.compare(mine[r], rest, **settings)))
        everyone.append(float(measure.compare(mine[r], whole, **settings)))
    return np.array(others), np.array(everyone)


def _cosines(u: Values, v: Values) -> Values:
    """Return the cosines of unit vectors with others, row by row."""
    norms = np.sqrt(np.sum(v * v, axis=1))
    above = np.sum(u * v, axis=1)
    out: Values = np.divide(above, norms, out=np.full_like(above, math.nan), where=norms > 0)
    return out


def _of_features(
    operation: str, measure: Measure, settings: dict[str, Any], arrays: dict[str, Array]
) -> tuple[Values, Values]:
    (first, like), *rest = arrays.items()
    for name, x in rest:
        if x.shape[1] != like.shape[1]:
            raise InputError(
                f"{operation}: pool='features' averages the same features of all repeats.\n"
                f"  {first}: {like.shape[1]} features    {name}: {x.shape[1]}\n"
                f"  Subjects with features of their own have no average: use pool='matrices'."
            )
    xp = array_namespace(like)
    dtype = xp.result_type(*(x.dtype for x in arrays.values()))
    wide = accumulator_dtype(xp, like)
    stack = xp.stack([xp.astype(x, wide) for x in arrays.values()], axis=0)

    def average(kept: list[int]) -> Array:
        total = stack[kept[0], ...]
        for r in kept[1:]:
            total = total + stack[r, ...]
        out: Array = xp.astype(total / len(kept), dtype)
        return out

    def item(x: Array, name: str) -> Any:
        return measure.prepare(operation, x, name=name, **settings)

    count = list(range(len(arrays)))
    whole = item(average(count), "the average of all repeats")
    others, everyone = [], []
    for r, (name, x) in enumerate(arrays.items()):
        mine = item(xp.astype(x, dtype, copy=False), name)
        left = item(average([s for s in count if s != r]), f"the average without {name}")
        others.append(float(measure.compare(mine, left, **settings)))
        everyone.append(float(measure.compare(mine, whole, **settings)))
    return np.array(others), np.array(everyone)
