"""The map of any measure: features of all samples are kept, and every pair is compared once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import InputError
from repsim._options import as_path
from repsim.analysis._extract_rows import Seen
from repsim.analysis._filling import where_of
from repsim.analysis.features._choice import FeatureOptions, Measured
from repsim.analysis.features._keepers import InMemory, InStore, Keeper, Kept
from repsim.analysis.features._record import Outputs, record
from repsim.analysis.features._side import FeatureSide
from repsim.analysis.maps._comparison import Comparison
from repsim.analysis.run._drive import Batch
from repsim.analysis.run._provenance import versions
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import check_sample_ids
from repsim.inference.maps import chance_of_map, errors_of_map, orders_of, with_groups
from repsim.measures.pairs import PairItems, Rows, Values, attrs_of_measure
from repsim.results import measured_map

if TYPE_CHECKING:
    import xarray

__all__ = ["compare_features", "rows_of_side"]


def compare_features(
    asked: Comparison, measured: Measured, options: FeatureOptions
) -> xarray.Dataset:
    """Keep the features of both models on all samples, and compare every pair of layers."""
    check_sample_ids("compare", asked.sample_ids)
    sides = asked.sides(FeatureSide)
    seen = Seen("compare", asked.sample_ids)
    labels = asked.labels(sides)

    def run(batch: Batch) -> Outputs:
        xs, ys = sides.kept(batch)
        if options.permutations and asked.tokens is not None:
            _check_exchangeable(asked.tokens, batch)
        found = {"x": (xs, sides.x.rows)}
        return found if sides.y is None or ys is None else {**found, "y": (ys, sides.y.rows)}

    keeper: Keeper
    saving: AbstractContextManager[Any] = nullcontext()
    if asked.checkpoint is None:
        elsewhere = 'checkpoint="features.zarr"'
        keeper = InMemory("compare", seen, asked.tokens, options.memory, asked.data, elsewhere)
    else:
        path = as_path("compare", "checkpoint", asked.checkpoint)
        mine = {**asked.fingerprint(sides), "holds": "features of compare"}
        keeper = stored = InStore("compare", seen, asked.tokens, path, mine, options.memory)
        for name, side in zip("xy", sides.each, strict=False):
            stored.resume(side.rows, name)
        saving = keeper.saving()
    with saving:
        models = [sides.x.model, sides.model_y]
        record(
            "compare",
            asked.data,
            models,
            sides.in_place(),
            run,
            keeper,
            seen,
            progress=asked.progress,
        )
        sides.check_used()
        kept = keeper.end({**labels, **versions()})
    found = _map(kept, measured, options, alone=sides.y is None)
    counts: dict[str, Any] = {"n_samples": kept.n_samples, "n_batches": kept.n_batches}
    if asked.sample_ids is not None:
        counts["n_duplicates"] = seen.duplicates
    if asked.tokens is not None:
        counts |= asked.tokens.report()
    return found.assign_attrs(**labels, **counts, **versions())


def _check_exchangeable(tokens: TokenSamples, batch: Batch) -> None:
    """Raise before more is computed if inputs cannot take each other's places."""
    counts = np.unique(np.bincount(tokens.drawn()[0]))
    if len(counts) > 1:
        drawn = tokens.options()["max_samples"] != "all"
        leave_out = "Leave out max_samples or permutations" if drawn else "Leave out permutations"
        raise InputError(
            f"compare: permutations move whole inputs, which must have equally many tokens.\n"
            f"  from {counts.min()} to {counts.max()} tokens that are samples in "
            f"{where_of(batch.number)}\n"
            f"  {leave_out}, or reduce each input to one vector, as by "
            f'transform="mean".'
        )


def rows_of_side(
    operation: str, layers: Mapping[str, Any], side: str, measured: Measured
) -> dict[str, Rows]:
    """Return the layers of one side as rows for items, which are read when an item is made."""
    fewest = measured.measure.fewest(**measured.settings)
    return {
        name.removeprefix(f"{side}/"): Rows.stored(
            operation, x, f"layer {name.removeprefix(f'{side}/')!r} of {side}", fewest
        )
        for name, x in layers.items()
        if name.startswith(f"{side}/")
    }


def _map(kept: Kept, measured: Measured, options: FeatureOptions, *, alone: bool) -> xarray.Dataset:
    measure, settings = measured.measure, with_groups(measured.settings, kept.sequences)
    operation = f"compare({measure.name!r})"
    xs = rows_of_side(operation, kept.layers, "x", measured)
    ys = xs if alone else rows_of_side(operation, kept.layers, "y", measured)
    least, why = measure.fewest(**settings)
    if kept.n_samples < least:
        raise InputError(
            f"compare: {why} needs at least {least} samples.\n  got {kept.n_samples} in all "
            f"batches\n  Bring more samples."
        )
    items = PairItems(operation, np, measure, settings)
    values = items.values(list(xs.values()), list(ys.values()))
    items.warn_of_chance()
    sides: tuple[Sequence[Rows], Sequence[Rows]] = list(xs.values()), list(ys.values())
    more: dict[str, Values] = {}
    attrs: dict[str, Any] = {}
    n, groups, seed = kept.n_samples, settings.get("groups"), options.seed
    if groups is None:
        groups = kept.sequences
    if options.errors is not None:
        more["standard_error"] = errors_of_map(
            items, *sides, values, n, draws=options.draws, groups=groups, seed=seed
        )
        attrs |= {"errors": options.errors, "draws": options.draws}
    if options.permutations:
        orders = orders_of("compare", n, options.permutations, groups, seed)
        more |= chance_of_map(items, *sides, values, orders)[0]
        attrs["n_permutations"] = options.permutations
    result = measured_map(values, xs, ys, attrs_of_measure(measure, settings), more)
    return result.assign_attrs(attrs)
