"""The permutation test of a whole map of layers, with one error rate for the map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import device

from repsim._errors import InputError
from repsim._options import as_count
from repsim._typing import Array, Namespace
from repsim._version import __version__
from repsim.arrays import (
    accumulator_dtype,
    as_samples,
    check_finite,
    common_namespace,
    how_to_name,
    resolve_groups,
    to_numpy,
    unlabelled_sides,
    without_autocast,
)
from repsim.estimators import Products, ratio, resolve_estimator, within_one
from repsim.inference._draws import random_order, resolve_seed
from repsim.inference._null_moments import FEWEST, item_moments
from repsim.inference._options import settings_for
from repsim.inference._rearranged import slack_of
from repsim.inference.maps._permuted import chance_of_map, orders_of
from repsim.kernels import resolve_kernel
from repsim.measures import MEASURES, KernelItem, Measure, resolve_measure
from repsim.measures.pairs import PairItems, Rows, attrs_of_measure
from repsim.results import MAX_T, measured_map, models_of

if TYPE_CHECKING:
    import xarray

__all__ = ["max_t"]

Values = np.ndarray[Any, np.dtype[np.float64]]


@without_autocast
def max_t(
    xs: Mapping[str, Array],
    ys: Mapping[str, Array] | None = None,
    *,
    measure: str | Measure = "cka",
    permutations: int = 999,
    groups: Any = None,
    seed: int | np.random.Generator = 0,
    **options: object,
) -> xarray.Dataset:
    """Test every layer of x against every layer of y, with one error rate for the whole map.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> x, noise = rng.standard_normal((2, 40, 12))
    >>> found = repsim.max_t({"a": x}, {"copy": 2 * x + 1, "noise": noise}, permutations=199)
    >>> found.p_adjusted.sel(layer_x="a").values.round(3).tolist()[0]
    0.005
    >>> bool((found.p_adjusted >= found.p_value).all())
    True
    >>> repsim.max_t({"a": x}, {"copy": x}, measure="mutual_knn", permutations=199).z.item() > 10
    True

    ::

        z = (value − mean)/sd               of each pair of layers, over permutations
        p_adjusted = (1 + #{π : max over pairs of z_π ≥ z})/(m + 1)

    The samples are permuted once for all layers, so the dependence between layers is kept.

    Parameters
    ----------
    xs : mapping of str to array, shapes (n, p) or (n, ...)
        Named activations of the same n ≥ 4 samples, of one framework and device.
    ys : mapping of str to array, optional
        Activations of the same samples in the same order; by default ``xs`` is compared with
        itself.
    measure : str or Measure, default "cka"
        A name from ``repsim.measures.MEASURES``, or your own ``Measure``. For a dissimilarity, z
        is how much *less* the value is than by chance.
    permutations : int, default 999
        m ≥ 1. The p-values are multiples of 1/(m+1).
    groups : sequence or one-dimensional array of n labels, optional
        Groups of equal size that are permuted whole, as in :func:`repsim.permutation_test`.
    seed : int or numpy.random.Generator, default 0
        Source of the permutations. The same seed gives the same result; a generator advances.
    **options
        Keyword options of the measure, for example ``kernel="rbf"``. The estimator is unbiased
        unless given.

    Returns
    -------
    xarray.Dataset
        float64, dims ("layer_x", "layer_y"): the measure, under its name, such as ``cka``; ``z``;
        ``p_value`` of each pair alone; ``p_adjusted``, which accounts for all pairs and is never
        smaller. ``max_z``, dim ("permutation",): the greatest z of each permuted map, whose
        quantiles are the z that a map reaches by chance. For other measures than CKA also
        ``chance``, the mean of the permuted maps. ``attrs``: n_samples, n_permutations, n_groups (0
        without), repsim_version, and model_x and model_y of stores of :func:`repsim.extract`. For
        CKA, estimator and kernel are there too; for another measure, the attributes of its variable
        hold its options.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Not mappings, empty mappings, different n, fewer than 4 samples or fewer than the measure
        needs, groups of different sizes, an unknown measure or option, or an array that the measure
        refuses; the message names the array.
    NonFiniteError
        NaN or infinity; the message names the array and the row.

    Warns
    -----
    DegenerateWarning
        Once for each layer for which the measure is undefined, for example because it is constant;
        its row or column is NaN and is ignored.

    Notes
    -----
    If no layer of x shares anything with any layer of y, the probability that any entry has
    p_adjusted ≤ α is at most α. The same bound holds for the *false* entries of any map if
    permuting all layers of y together does not change the null distribution of those entries, which
    is true for exchangeable samples. Layers of one network are nearly copies of each other, so
    testing many of them costs little power here. Bonferroni would divide α by their number.

    In a map of ``xs`` with itself, the diagonal is 1 and is included. The p-values of (a, b) and
    (b, a) differ a little because the second array is permuted.

    Mean and deviation of CKA are over all n! permutations, in closed form. With groups, and for
    other measures, they are over the permuted maps and the map itself. Where no order of the
    samples changes a value, its z is NaN and its p-values are 1.

    Cost of CKA: Grams, O(n² Σp), then O(L_x L_y n²) a permutation; memory (L_x + 2 L_y) Grams in
    float64, and with groups m L_x L_y values. Cost of other measures: m + 1 maps of pairs, and the
    items of y for each permutation, as in :func:`repsim.permutation_test`. For batches use
    :meth:`repsim.MinibatchCKA.z_scores`.

    References
    ----------
    Westfall, Young 1993, "Resampling-based multiple testing". Nichols, Holmes 2002,
    "Nonparametric permutation tests for functional neuroimaging".
    """
    operation = "max_t"
    chosen = resolve_measure(operation, measure, options, function=max_t)
    settings = settings_for(operation, chosen, options, groups)
    m = as_count(operation, "permutations", permutations)
    models = models_of(xs, ys)
    sides = {"xs": xs} if ys is None else {"xs": xs, "ys": ys}
    xp, n, arrays = _checked(operation, sides, chosen, settings)
    if chosen is not MEASURES["cka"] or settings["features"] != "all":
        names = list(xs), list(xs if ys is None else ys)
        found = _of_measure(xp, chosen, settings, arrays, names, (n, m, groups, seed))
        return found.assign_attrs(models)
    whole = resolve_groups(operation, groups, n)
    places = None if whole is None else whole.same_size(operation)
    rng = resolve_seed(operation, seed)

    resolved = (
        resolve_kernel(operation, settings["kernel"]),
        resolve_estimator(operation, settings["estimator"]),
    )
    items = {
        side: [KernelItem(operation, name, x, *resolved) for name, x in named.items()]
        for side, named in arrays.items()
    }
    items_x, items_y = items["xs"], items["xs" if ys is None else "ys"]
    flat_x, stack_y = _normalised(xp, items_x), _normalised(xp, items_y)
    flat_x = xp.reshape(flat_x, (len(items_x), n * n))

    def correlations(order: Any = None) -> Values:
        """All pairs with y's samples in another order, as one matrix product."""
        grams = stack_y
        if order is not None:
            taken = xp.asarray(order, device=device(stack_y))
            grams = xp.take(xp.take(grams, taken, axis=1), taken, axis=2)
        grams = xp.reshape(grams, (len(items_y), n * n))
        return np.asarray(to_numpy(flat_x @ xp.matrix_transpose(grams)), dtype=np.float64)

    cka = correlations()
    orders = (random_order(rng, n, places) for _ in range(m))
    mean, sd = _exact(items_x, items_y)
    dtypes = next(iter(arrays["xs"].values())).dtype, stack_y.dtype
    eps, wide = (float(xp.finfo(dtype).eps) for dtype in dtypes)
    rounding = slack_of(eps, 1.0, wide, np.abs(cka) + np.abs(mean) + sd)
    if whole is None:
        null: Any = map(correlations, orders)
    else:  # no closed form: estimate from the permuted maps and the map itself
        null = np.stack([correlations(order) for order in orders])
        both = np.concatenate([cka[None], null])
        varies = np.ptp(both, axis=0) > rounding
        mean, sd = both.mean(axis=0), np.where(varies, both.std(axis=0), 0.0)
    result = MAX_T.dataset(
        _counted(cka, null, m, (mean, sd), rounding),
        {"layer_x": list(xs), "layer_y": list(xs if ys is None else ys)},
    )
    return result.assign_attrs(
        estimator=resolved[1].name,
        kernel=repr(resolved[0]),
        n_samples=n,
        n_permutations=m,
        n_groups=0 if whole is None else len(whole.rows),
        repsim_version=__version__,
        **models,
    )


def _of_measure(
    xp: Namespace,
    measure: Measure,
    settings: Mapping[str, Any],
    arrays: Mapping[str, Mapping[str, Array]],
    names: tuple[list[str], list[str]],
    drawing: tuple[int, int, Any, Any],
) -> xarray.Dataset:
    """Return the tested map of a measure that has no closed form."""
    n, m, groups, seed = drawing
    whole = resolve_groups("max_t", groups, n)
    orders = orders_of("max_t", n, m, groups, seed)

    def rows(named: Mapping[str, Array]) -> list[Rows]:
        return [Rows(label, x.dtype, partial(_same, x)) for label, x in named.items()]

    xs = rows(arrays["xs"])
    ys = rows(arrays["ys"]) if "ys" in arrays else xs
    items = PairItems(f"max_t({measure.name!r})", xp, measure, settings)
    values = items.values(xs, ys)
    maps, greatest = chance_of_map(items, xs, ys, values, orders)
    result = measured_map(values, *names, attrs_of_measure(measure, settings), maps)
    result["max_z"] = MAX_T.labelled("max_z", greatest)
    return result.assign_attrs(
        n_samples=n,
        n_permutations=m,
        n_groups=0 if whole is None else len(whole.rows),
        repsim_version=__version__,
    )


def _same(x: Array) -> Array:
    return x


def _counted(
    cka: Values, null: Iterable[Values], m: int, moments: tuple[Values, Values], rounding: Values
) -> dict[str, Values]:
    """Return z and p-values of a map, by how many of m permuted maps reach each entry."""
    mean, sd = moments
    with np.errstate(divide="ignore", invalid="ignore"):  # no order changes the value: NaN
        z = (cka - mean) / sd
        slack = rounding / sd
        pointwise, familywise = np.zeros(cka.shape), np.zeros(cka.shape)
        greatest = np.full(m, np.nan)
        for i, values in enumerate(null):
            permuted = (values - mean) / sd
            greatest[i] = np.max(permuted, where=np.isfinite(permuted), initial=-np.inf)
            pointwise += permuted >= z - slack
            familywise += greatest[i] >= z - slack
    varies = np.isfinite(z)
    # Without any variation every permuted value is that of the data.
    p_values = [
        np.where(np.isnan(cka), np.nan, np.where(varies, (count + 1) / (m + 1), 1.0))
        for count in (pointwise, familywise)
    ]
    return {
        "cka": to_numpy(within_one(np, cka)),
        "z": np.where(varies, z, np.nan),
        "p_value": p_values[0],
        "p_adjusted": p_values[1],
        "max_z": np.where(np.isfinite(greatest), greatest, np.nan),
    }


def _checked(
    operation: str, sides: Mapping[str, Any], measure: Measure, settings: Mapping[str, Any]
) -> tuple[Namespace, int, dict[str, dict[str, Array]]]:
    """Return the namespace, n, and the arrays as (n, p) in one dtype, with names for errors."""
    sides = dict(zip(sides, unlabelled_sides(operation, **sides), strict=True))
    fewest = measure.fewest(**settings)
    least, why = fewest if fewest[0] > FEWEST else (FEWEST, "the permutation test")
    for side, named in sides.items():
        if not isinstance(named, Mapping) or not named:
            got = "an empty mapping" if isinstance(named, Mapping) else type(named).__name__
            raise InputError(
                f"{operation}: {side} must map names to arrays.\n  got {got}\n"
                f"  {how_to_name(named)}"
            )
    every = {f"{side}[{name!r}]": x for side, named in sides.items() for name, x in named.items()}
    every = dict(zip(every, measure.by_rows(operation, every, settings), strict=True))
    xp = common_namespace(operation, every)
    checked = {}
    for label, x in every.items():
        checked[label] = as_samples(operation, xp, x, label, min_samples=least, why=why)
        check_finite(operation, xp, checked[label], label)
    dtype = xp.result_type(*(x.dtype for x in checked.values()))
    parted = {
        side: {
            label: xp.astype(checked[label], dtype, copy=False)
            for label in (f"{side}[{name!r}]" for name in named)
        }
        for side, named in sides.items()
    }
    return xp, next(iter(checked.values())).shape[0], parted


def _normalised(xp: Namespace, items: list[KernelItem]) -> Array:
    """Return the centred Grams divided by their norms, (L, n, n), NaN for a constant."""
    out = []
    for item in items:
        gram, norm = item.form(False)[0], item.self_product(False)
        gram = xp.astype(gram, accumulator_dtype(xp, gram), copy=False)
        nothing = xp.zeros_like(norm)
        # 1/‖A‖, or NaN for a constant.
        factor = ratio(xp, Products(nothing + 1, norm, nothing + 1))
        out.append(gram * factor)
    stacked: Array = xp.stack(out)
    return stacked


def _exact(items_x: list[KernelItem], items_y: list[KernelItem]) -> tuple[Values, Values]:
    """Mean and standard deviation of every pair over all n! permutations."""
    moments = [[item_moments(x, y, features=False) for y in items_y] for x in items_x]
    mean = np.array([[float(each.mean) for each in row] for row in moments])
    variance = np.array([[float(each.variance) for each in row] for row in moments])
    return mean, np.sqrt(variance)
