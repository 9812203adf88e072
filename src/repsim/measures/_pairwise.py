"""A measure of every pair of named arrays; the work of one array is done once."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._distributed import RankGroup
from repsim._errors import ArrayTypeError, InputError
from repsim._typing import Array, Namespace
from repsim.arrays import (
    common_namespace,
    dask_array,
    describe,
    detached,
    how_to_name,
    one_each,
    require_same_n,
    to_numpy,
    unlabelled_sides,
    without_autocast,
)
from repsim.measures._registry import Measure
from repsim.measures._resolve import resolve_measure
from repsim.measures.pairs import PairItems, Rows, Values, attrs_of_measure
from repsim.measures.pairs._shared import pairs_in_dask, pairs_of_ranks
from repsim.results import map_of_layers, models_of

if TYPE_CHECKING:
    import xarray

__all__ = ["pairwise"]


@without_autocast
def pairwise(
    xs: Mapping[str, Array],
    ys: Mapping[str, Array] | None = None,
    *,
    measure: str | Measure = "cka",
    samples_x: Sequence[object] | Array | None = None,
    samples_y: Sequence[object] | Array | None = None,
    group: Any = None,
    **options: object,
) -> xarray.DataArray:
    """Compare every array of one mapping with every array of another, or of the same.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> early = rng.standard_normal((60, 8))
    >>> layers = {"early": early, "late": np.tanh(early @ rng.standard_normal((8, 5)))}
    >>> result = repsim.pairwise(layers, measure="cka")
    >>> result.dims, result.shape, result.attrs["estimator"]
    (('layer_x', 'layer_y'), (2, 2), 'unbiased')
    >>> one = repsim.cka(layers["early"], layers["late"], estimator="unbiased")
    >>> bool(abs(result.sel(layer_x="early", layer_y="late") - one) < 1e-12)
    True

    ::

        result[a, b] = measure(xs[a], ys[b], **options)

    The part of a measure that needs only one array (a centred Gram, a decomposition, a list of
    neighbours) is computed once per array, not once per pair.

    Parameters
    ----------
    xs : mapping of str to array, shapes (n, p) or (n, ...)
        Named activations of the same n samples in the same order, of one framework and device;
        trailing axes are flattened, and widths may differ. If all are Dask arrays (also in xarray),
        the workers of your scheduler prepare and compare them; each array must fit in the memory of
        one worker.
    ys : mapping of str to array, optional
        Activations of the same samples. By default ``xs`` is compared with itself, and only one
        half is computed if the measure is symmetric.
    measure : str or Measure, default "cka"
        A name from ``repsim.measures.MEASURES``, or your own ``Measure``.
    samples_x, samples_y : sequence or one-dimensional array of n identifiers, optional
        Identifiers of each row of ``xs`` and of ``ys``, such as file names. They must be equal and
        in the same order; nothing is reordered. With ``ys``, pass both or neither.
    group : "world" or torch.distributed.ProcessGroup, optional
        The ranks that share the pairs. Every rank must pass the same arrays and options; every rank
        gets the whole result, of the same bits, and all warnings. By default this process works
        alone, even if there are other ranks.
    **options
        Keyword options of the measure's function, for example ``kernel="rbf"``. The estimator is
        unbiased unless given, as wherever several pairs are compared.

    Returns
    -------
    xarray.DataArray, dims ("layer_x", "layer_y")
        float64, with the digits that the function itself returns for each pair. The coordinates are
        the names, in the order of the mappings. ``attrs`` hold measure, kind ("similarity" or
        "dissimilarity"), units, least and greatest (the ends of its range, if it has any, unless
        the estimator is unbiased), value_if_equal (of equal representations), each option,
        n_samples, repsim_version, and model_x and model_y of stores of :func:`repsim.extract`.

    Raises
    ------
    ArrayTypeError
        Not arrays, or arrays of different frameworks or devices.
    InputError
        Not mappings, empty mappings, different n, sample identifiers that differ, unknown measure
        or option, or an array that the measure itself refuses; the message names the array.
    NonFiniteError
        NaN or infinity; the message names the array and the row.
    StateError
        With ``group``: a rank failed (every rank raises), died, or has other arrays or options.
        With Dask: a task failed.

    Warns
    -----
    DegenerateWarning
        Once for each array for which the measure is undefined; its row and column are NaN.
    ChanceWarning
        Once, of the pair with the highest value by chance, if the measure's function warns of it.

    Notes
    -----
    Invariances, range and bias are those of the measure. Cost: L_x + L_y items and L_x L_y pairs,
    whose costs the entry of the measure states. All items are in memory at once: for ``"cka"`` a
    centred Gram (n, n) or the centred features (n, p) of each array. If they do not fit, use
    :class:`repsim.MinibatchCKA`, or :class:`repsim.StreamingCovariance` for measures that follow
    from covariances. The values are read once, at the end.

    Each rank prepares the arrays of its own pairs, so ranks save most where pairs cost more than
    arrays: CCA, Procrustes, soft matching. Ranks exchange one number for each pair.

    References
    ----------
    Those of the measure.
    """
    ranks = RankGroup("pairwise", group)
    with ranks.raise_on_all_ranks():
        chosen = resolve_measure("pairwise", measure, options, function=pairwise)
        models = models_of(xs, ys)
        xs, ys, plain = unlabelled_sides("pairwise", xs=xs, ys=ys, options=options)
        settings = chosen.options_of_many("pairwise", plain)
        sides = {"xs": _mapping("xs", xs)}
        if ys is not None:
            sides["ys"] = _mapping("ys", ys)
        sides = {side: _by_rows(side, given, chosen, settings) for side, given in sides.items()}
        named = {f"{side}[{key!r}]": x for side, given in sides.items() for key, x in given.items()}
        lazy = _lazy(named, ranks)
        xp, n = _home(named, lazy)
        _match_samples(samples_x, samples_y, n, both=ys is not None)
        ranks.agree(lambda: _described(named, attrs_of_measure(chosen, settings, n)))
        items = PairItems(f"pairwise({chosen.name!r})", xp, chosen, settings)
        values = _values(items, sides, lazy, ranks)
        items.warn_of_chance()
    attrs = {**attrs_of_measure(chosen, settings, n), **models}
    other = sides["xs" if ys is None else "ys"]
    return map_of_layers(values, sides["xs"], other, chosen.name, attrs)


def _values(
    items: PairItems,
    sides: Mapping[str, Mapping[str, Array]],
    lazy: bool,
    ranks: RankGroup,
) -> Values:
    """Return the measure of every pair, by this process, by all ranks, or by Dask."""
    operation, xp, fewest = items.operation, items.xp, items.measure.fewest(**items.settings)
    arrays = {f"{side}[{key!r}]": x for side, given in sides.items() for key, x in given.items()}
    if lazy:
        made = {label: Rows.stored(operation, x, label, fewest) for label, x in arrays.items()}
    else:
        made = {label: Rows.of(operation, xp, x, label, fewest) for label, x in arrays.items()}
    xs, ys = (
        [made[f"{side}[{key!r}]"] for key in sides[side]]
        for side in ("xs", "ys" if "ys" in sides else "xs")
    )
    if lazy:
        return pairs_in_dask(items, xs, ys, arrays, fewest)
    if ranks.alone:
        return items.values(xs, ys)
    sizes = {label: min(x.shape[0], math.prod(x.shape[1:])) for label, x in arrays.items()}
    of_sides = [sizes[row.label] for row in xs], [sizes[row.label] for row in ys]
    return pairs_of_ranks(items, xs, ys, of_sides, ranks)


def _lazy(named: Mapping[str, Array], ranks: RankGroup) -> bool:
    """Whether all arrays are Dask's; raise if some are, or if ranks have them."""
    lazy = [name for name, x in named.items() if dask_array(x) is not None]
    if not lazy:
        return False
    if len(lazy) < len(named):
        other = next(name for name in named if name not in lazy)
        raise ArrayTypeError(
            f"pairwise: either all arrays are Dask arrays, or none is.\n"
            f"  {describe(lazy[0], named[lazy[0]])}\n  {describe(other, named[other])}\n"
            f"  Wrap the others with dask.array.from_array, or compute() the Dask arrays."
        )
    if not ranks.alone:
        raise InputError(
            f"pairwise: Dask arrays are shared by the workers of Dask, not by ranks.\n"
            f"  {describe(lazy[0], named[lazy[0]])}, with group=\n"
            f"  Leave group out, or pass arrays in memory on every rank."
        )
    return True


def _described(named: Mapping[str, Array], attrs: Mapping[str, Any]) -> dict[str, object]:
    """Return what must be the same on all ranks; of the values, three rows of each array."""
    rows = []
    for name, x in named.items():
        some = [to_numpy(detached(x[row])) for row in (0, x.shape[0] // 2, -1)] if x.ndim else []
        digest = hashlib.sha256(b"".join(each.tobytes() for each in some)).hexdigest()
        rows.append((name, digest[:8]))
    shapes = [(name, tuple(x.shape), str(x.dtype)) for name, x in named.items()]
    return {"arrays": shapes, **attrs, "some rows": rows}


def _mapping(argument: str, arrays: object) -> Mapping[str, Array]:
    if not isinstance(arrays, Mapping):
        raise InputError(
            f"pairwise: {argument} must be a mapping of names to arrays.\n"
            f"  got {type(arrays).__name__}\n  {how_to_name(arrays)}"
        )
    if not arrays:
        raise InputError(f"pairwise: {argument} is empty.\n  Pass at least one named array.")
    for name in arrays:
        if not isinstance(name, str):
            raise InputError(
                f"pairwise: the names in {argument} must be strings.\n"
                f"  got {name!r} of {type(name).__name__}"
            )
    return arrays


def _by_rows(
    side: str, arrays: Mapping[str, Array], measure: Measure, settings: Mapping[str, Any]
) -> Mapping[str, Array]:
    named = {f"{side}[{name!r}]": x for name, x in arrays.items()}
    return dict(zip(arrays, measure.by_rows("pairwise", named, settings), strict=True))


def _home(named: Mapping[str, Array], lazy: bool) -> tuple[Namespace, int]:
    """Return the common namespace and number of samples of all arrays, or raise an error."""
    (first, like), *others = named.items()
    if lazy:  # NumPy computes them, and their values are not read here
        xp: Namespace = np
        for name, x in others:
            require_same_n("pairwise", "all arrays", (first, like), (name, x))
    else:
        xp = common_namespace("pairwise", named)
    return xp, like.shape[0] if like.ndim else 0


def _match_samples(samples_x: Any, samples_y: Any, n: int, *, both: bool) -> None:
    """Raise if the identifiers of the rows differ or are incomplete."""
    if samples_x is None and samples_y is None:
        return
    if not both and samples_y is not None:
        raise InputError(
            "pairwise: samples_y identifies the rows of ys, and there are none.\n"
            "  Pass samples_x alone, or the second mapping."
        )
    if both and (samples_x is None or samples_y is None):
        given, missing = ("x", "y") if samples_y is None else ("y", "x")
        raise InputError(
            f"pairwise: samples_{given} has nothing to be matched with.\n"
            f"  got samples_{given} and no samples_{missing}\n"
            f"  Pass the identifiers of both, or of neither."
        )
    left = one_each("pairwise", "samples_x", samples_x, n, "identifier")
    if not both:
        return
    right = one_each("pairwise", "samples_y", samples_y, n, "identifier")
    differ = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    if differ:
        row = differ[0]
        same = sorted(map(repr, left)) == sorted(map(repr, right))
        repair = (
            "They are the same samples in another order: reorder the rows of one side."
            if same
            else "Keep the samples that both sides have, in one order."
        )
        raise InputError(
            f"pairwise: xs and ys must describe the same samples in the same order.\n"
            f"  {len(differ)} of {n} identifiers differ, the first in row {row}: "
            f"{left[row]!r} in samples_x, {right[row]!r} in samples_y\n"
            f"  {repair}"
        )
