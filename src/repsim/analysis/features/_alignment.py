"""Several models at once: the most similar layers of every two, with chance for the choice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import nn
from tqdm.auto import tqdm

from repsim._errors import InputError
from repsim._options import as_count, as_number, as_seed, got, require_bool
from repsim._version import __version__
from repsim.analysis._extract_rows import Values
from repsim.analysis.features._models import ModelFeatures, features_of
from repsim.analysis.features._pairing import paired_rows, prepared_layers
from repsim.arrays import Indices
from repsim.capture import Layers, Transform
from repsim.inference.maps import (
    ChanceOfBest,
    best_of,
    chance_of_best,
    orders_of,
    rank_of,
    settings_for,
    with_groups,
)
from repsim.measures import Measure, check_values, resolve_measure
from repsim.measures.pairs import PairItems, Rows, attrs_of_measure
from repsim.results import ALIGNMENT

if TYPE_CHECKING:
    import xarray

__all__ = ["alignment"]

Given: TypeAlias = (
    "xarray.Dataset | str | PathLike[str] | Mapping[str, Any] | nn.Module | tuple[Any, ...]"
)
"""Types of an entry of ``models=``."""

Maps: TypeAlias = dict[tuple[str, str], Values]


def alignment(
    models: Mapping[str, Given],
    *,
    measure: str | Measure = "mutual_knn",
    data: Iterable[Any] | None = None,
    layers: Layers | Mapping[str, Layers] = "*",
    transform: Transform | Mapping[str, Transform] = None,
    clip: float | None = None,
    normalise: bool = False,
    permutations: int = 199,
    alpha: float = 0.05,
    groups: Any = None,
    seed: int = 0,
    memory: int = 1 << 30,
    progress: bool = True,
    **options: object,
) -> xarray.Dataset:
    """The most similar layers of every two models, with chance for the best of all pairs of layers.

    >>> import numpy as np, repsim
    >>> rng = np.random.default_rng(0)
    >>> shared, noise = rng.standard_normal((2, 60, 8))
    >>> models = {
    ...     "text": {"early": noise, "late": shared @ rng.standard_normal((8, 5))},
    ...     "image": {"early": shared**2, "late": shared @ rng.standard_normal((8, 6))},
    ...     "other": {"only": rng.standard_normal((60, 4))},
    ... }
    >>> result = repsim.alignment(models, k=5, permutations=99, progress=False)
    >>> best = result.sel(model_x="text", model_y="image")
    >>> best.layer_x.item(), best.layer_y.item(), best.p_value.item()
    ('late', 'late', 0.01)
    >>> float(result.p_value.sel(model_x="text", model_y="other")) > 0.05
    True

    ::

        score = max over layers a of x and b of y of f(a, b)
        p_value = (1 + #{π : score of (x, y[π]) ≥ score})/(m + 1)
        calibrated = max(0, (score − τ)/(1 − τ)),   τ the ⌈(1−α)(m+1)⌉-th smallest of all scores

    The samples are permuted once for all layers, and the best pair of layers is chosen again in
    each permuted map (max-T), because the best of many pairs is high by chance.

    Parameters
    ----------
    models : mapping of str to model, store or arrays
        Two or more. An entry is a result of :func:`repsim.extract` or the path of its store; a
        mapping of layer names to arrays (n, ...); ``(model, data)`` or ``(model, data, options)``,
        with the options ``layers``, ``transform``, ``mask``, ``select``, ``batch_dim``,
        ``batch_size``, ``prepare``, ``forward`` and ``sample_ids`` of :func:`repsim.extract`; or a
        model that runs on ``data``. Models that share one ``data`` object run in one pass over it.
    measure : str or Measure, default "mutual_knn"
        A name from ``repsim.measures.MEASURES``, or your own ``Measure``. For a dissimilarity, the
        score is the smallest value.
    data : iterable, optional
        Batches for the models that come without their own.
    layers, transform
        As in :func:`repsim.extract`: for all models, or a mapping from names of models to their
        own. Layers of stores and arrays are chosen by name or glob. The path of a store of whole
        tokens takes the transforms of :func:`repsim.open_activations`.
    clip : float, optional
        In (0, 1]: clip each layer's features at this quantile of their absolute values. Huh et al.
        clip at 0.95, because a few features of language models are very large.
    normalise : bool, default False
        Whether to divide each sample by its norm after clipping, as Huh et al. do. Measures of
        directions, such as ``"mutual_knn"``, do not depend on it.
    permutations : int, default 199
        m; 0 leaves chance out.
    alpha : float, default 0.05
        α of the threshold, in (0, 1) with α(m+1) ≥ 1.
    groups : sequence or one-dimensional array of n labels, optional
        Groups of dependent samples, such as several captions of one image, by a label for each
        shared sample. They are permuted as a whole and must be equally large; ``"predictivity"``
        holds out whole groups too. By default the inputs of tokens that :func:`repsim.extract`
        stored with ``samples="tokens"``.
    seed : int, default 0
        Source of the permutations.
    memory : int, default 2**30
        The most bytes of features of models that run here. Stores are read layer by layer.
    progress : bool, default True
        Whether to show progress bars on standard error.
    **options
        Options of the measure, such as ``k=10``. The estimator is unbiased unless given.

    Returns
    -------
    xarray.Dataset
        Dims ("model_x", "model_y"): ``score`` in the measure's unit, with its kind ("similarity" or
        "dissimilarity") in ``attrs``; ``layer_x`` and ``layer_y``, the names of the layers where it
        lies, the first of equal ones; ``chance``, the mean score of the permuted maps; ``p_value``;
        ``threshold`` τ; ``calibrated`` in [0, 1], NaN for measures that do not end at 1.
        ``layer_map`` (model_x, model_y, place_x, place_y) has all layers, in their order and NaN
        beyond the last; :func:`repsim.alignment_map` returns one of these maps with names.
        ``plot.heatmap``, ``plot.dendrogram`` and ``plot.embedding`` draw the result.

    Raises
    ------
    InputError
        Fewer than two models; an entry of another kind; models without common samples or with
        different numbers of them; labels that show other samples in a row; loaders that shuffle,
        each in its own order; features that do not fit in ``memory``; an unknown option; too few
        permutations for α.
    LayerNotFoundError, CaptureError, NonFiniteError
        As :func:`repsim.extract` raises them, or an array is not finite.

    Warns
    -----
    RepsimWarning
        Samples that are not in all models are left out.
    DegenerateWarning
        A layer has no value, for example because it is constant. It is ignored in the choice.
    ChanceWarning
        As :func:`repsim.pairwise` warns, once.

    Notes
    -----
    Samples are paired: row i describes the same thing in every model. They are matched by id where
    the models have ids (stores, labelled arrays, ``sample_ids``), and otherwise by their order.

    The test is exact for every two models: if x and y are independent, P(p ≤ α) ≤ α, however many
    layers they have. It is not adjusted for the number of pairs of models. Samples that depend on
    each other need ``groups``.

    Scores at different n, or of models with other numbers of layers, have different levels of
    chance. Compare ``calibrated``.

    Cost: an item for each layer, m + 1 maps of layers for every two models, and each layer moved or
    prepared again for each permutation. Items of all layers are in memory.

    References
    ----------
    Huh, Cheung, Wang, Isola 2024, "The Platonic representation hypothesis", arXiv:2405.07987. Their
    code clips all layers of a model at one quantile where they have one width. Gröger et al. 2026,
    arXiv:2602.14486, for the calibration of the best of all layers. Westfall, Young 1993,
    "Resampling-based multiple testing".
    """
    operation = "alignment"
    chosen = resolve_measure(operation, measure, options, function=alignment)
    m = as_count(operation, "permutations", permutations, least=0)
    settings = (
        settings_for(operation, chosen, options)
        if m
        else chosen.options_of_many(operation, options)
    )
    check_values(operation, chosen, settings)
    require_bool(operation, "normalise", normalise)
    require_bool(operation, "progress", progress)
    if clip is not None:
        clip = as_number(operation, "clip", clip, above=0, most=1)
    rank = rank_of(operation, alpha, m) if m else 0
    seed, memory = as_seed(operation, seed), as_count(operation, "memory", memory)
    _check_models(operation, models)
    features = features_of(
        operation,
        models,
        data,
        {"layers": layers, "transform": transform},
        memory=memory,
        progress=progress,
    )
    n, taken = paired_rows(operation, features)
    fewest = chosen.fewest(**settings)
    if n < fewest[0]:
        raise InputError(
            f"{operation}: {fewest[1]} needs at least {fewest[0]} samples.\n  got {n}\n"
            f"  Bring more samples."
        )
    if groups is None:
        groups = _sequences(features, taken)
    settings = with_groups(settings, groups)
    orders = orders_of(operation, n, m, groups, seed) if m else []
    rows = {
        name: prepared_layers(
            operation, name, each, taken[name], fewest, clip=clip, normalise=normalise
        )
        for name, each in features.items()
    }
    items = PairItems(f"{operation}({chosen.name!r})", np, chosen, settings)
    maps = _maps(items, rows, progress)
    chance = None
    if m:
        listed = {name: list(each.values()) for name, each in rows.items()}
        shown = tqdm(orders, unit="permutation", desc=operation, disable=not progress)
        chance = chance_of_best(items, maps, listed, shown, rank)
    result = _dataset(chosen, settings, rows, maps, chance)
    attrs = {"n_samples": n, "n_permutations": m, "repsim_version": __version__}
    more: dict[str, Any] = {"normalise": str(bool(normalise))}
    more |= {} if clip is None else {"clip": clip}
    more |= {} if not m else {"alpha": float(alpha)}
    return result.assign_attrs(measure=chosen.name, **attrs, **more)


def _sequences(
    features: Mapping[str, ModelFeatures], taken: Mapping[str, Indices | None]
) -> Values | None:
    """Return the input of each shared sample, if the samples of a model are tokens."""
    for name, each in features.items():
        if each.sequences is not None:
            rows = taken[name]
            found: Values = each.sequences if rows is None else each.sequences[rows]
            return found
    return None


def _check_models(operation: str, models: object) -> None:
    if not isinstance(models, Mapping) or len(models) < 2:
        raise InputError(
            f"{operation}: models must map names to two or more models.\n  got {got(models)}\n"
            f"  Pass {{'a': (model_a, data_a), 'b': (model_b, data_b)}}, or stores of "
            f"repsim.extract."
        )
    if strange := [name for name in models if not isinstance(name, str)]:
        raise InputError(
            f"{operation}: the names of models must be strings.\n  got {got(strange[0])}"
        )


def _maps(items: PairItems, rows: Mapping[str, Mapping[str, Rows]], progress: bool) -> Maps:
    """Return the map of layers of every two models; of one order if the measure is symmetric."""
    names = list(rows)
    pairs = [
        (a, b)
        for i, a in enumerate(names)
        for j, b in enumerate(names)
        if i <= j or not items.measure.symmetric
    ]
    shown = tqdm(pairs, unit="pair", desc="alignment", disable=not progress)
    maps = {(a, b): items.values(list(rows[a].values()), list(rows[b].values())) for a, b in shown}
    items.warn_of_chance()
    return maps


def _dataset(
    measure: Measure,
    settings: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Rows]],
    maps: Maps,
    chance: Mapping[tuple[str, str], ChanceOfBest] | None,
) -> xarray.Dataset:
    names = {model: list(each) for model, each in rows.items()}
    count, most = len(names), max(len(each) for each in names.values())
    numbers = {
        key: np.full((count, count), np.nan)
        for key in ("score", "chance", "p_value", "threshold", "calibrated")
    }
    best = {side: np.full((count, count), "", dtype=object) for side in "xy"}
    whole = np.full((count, count, most, most), np.nan)
    place = {model: at for at, model in enumerate(names)}
    for (a, b), values in maps.items():
        turned = [(a, b, values)] if (b, a) in maps else [(a, b, values), (b, a, values.T)]
        for x, y, each in turned:
            i, j = place[x], place[y]
            whole[i, j, : each.shape[0], : each.shape[1]] = each
        found = best_of(measure, values)
        if found is None:
            continue
        ends = (names[a][found.x], names[b][found.y])
        for x, y, (layer_x, layer_y) in [(a, b, ends), (b, a, ends[::-1])][: len(turned)]:
            i, j = place[x], place[y]
            best["x"][i, j], best["y"][i, j] = layer_x, layer_y
            numbers["score"][i, j] = found.value
            if chance is not None:
                here = chance[a, b]
                numbers["chance"][i, j], numbers["p_value"][i, j] = here.mean, here.p_value
                numbers["threshold"][i, j], numbers["calibrated"][i, j] = here.threshold, here.score
    if chance is None:
        numbers = {"score": numbers["score"]}
    padded = _padded(list(names.values()), most)
    result = ALIGNMENT.dataset(
        {
            **numbers,
            "layer_x": best["x"],
            "layer_y": best["y"],
            "layer_map": whole,
            "layers_x": padded,
            "layers_y": padded,
        },
        {"model_x": list(names), "model_y": list(names)},
    )
    described = attrs_of_measure(measure, settings)
    own = described.pop("long_name")
    result["score"].attrs |= {**described, "long_name": f"{own} of the best layers"}
    result["score"].attrs["of_layers"] = own
    for key in ("chance", "threshold", "layer_map"):
        if key in result:
            result[key].attrs["kind"] = described["kind"]
    return result


def _padded(names: Sequence[Sequence[str]], most: int) -> Any:
    """Return the names of the layers of each model, with empty ones after the last."""
    return np.array([[*each, *[""] * (most - len(each))] for each in names], dtype=object)
