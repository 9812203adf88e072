"""Reading the parts of all ranks as one store, if all of them are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import StateError, warn
from repsim.storage._atomic import differences
from repsim.storage._plan import columns_of
from repsim.storage._stored import Stored, as_dataset, rows_of_place
from repsim.storage.parts._order import Order, Ordered, ordered
from repsim.storage.parts._part_rows import PartRows, parts_of
from repsim.storage.places._address import Place

if TYPE_CHECKING:
    import xarray

__all__ = ["open_parts"]

SUMS = ("n_batches", "n_duplicates", "n_sequences")
"""The attributes of a part that add up."""

CHUNKS = 4
"""Chunks of a part from which on it matters in which order its rows are read."""


def open_parts(
    operation: str, place: Place, attrs: Mapping[str, Any], order: Order
) -> tuple[Mapping[str, Any], xarray.Dataset]:
    """Return the plan and the samples of all parts, which are read on access.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    place : Place
        The store.
    attrs : mapping
        The attributes of its group.
    order : {"id", "rank"}
        The order of the samples, as in :func:`repsim.open_activations`.

    Raises
    ------
    StateError
        A part is missing, unfinished, damaged, or of other layers than the others.
    """
    parts = _whole_parts(operation, place, attrs)
    filled = {name: part for name, part in parts.items() if part.rows}
    plan = _common_plan(operation, place, filled)
    each = list(filled.values())
    ranks = [rank for rank, part in enumerate(parts.values()) if part.rows]
    chosen = ordered(each, ranks, len(parts), order, named=attrs["named"])
    _warn_of_scattered_rows(operation, place, plan, each, chosen)
    columns: dict[str, Any] = {
        name: PartRows([part.columns[name] for part in each], chosen.places)
        for name in columns_of(plan)
    }
    stored = as_dataset(plan, columns | chosen.coords)
    every = [part.attrs for part in parts.values()]
    stored.attrs = {
        **{name: value for name, value in each[0].attrs.items() if name != "plan"},
        **{name: sum(one[name] for one in every) for name in SUMS if name in each[0].attrs},
        "n_samples": stored.sizes["sample"],
        "n_ranks": len(parts),
    }
    if "n_duplicates" in stored.attrs:
        stored.attrs["n_duplicates"] += chosen.n_repeats
    return plan, stored


def _whole_parts(operation: str, place: Place, attrs: Mapping[str, Any]) -> dict[str, Stored]:
    """Return the parts by name, or raise an error that names those that are not whole."""
    names = attrs["parts"]
    expected = attrs.get("rows", [None] * len(names))
    parts, wrong = {}, []
    for name, rows in zip(names, expected, strict=True):
        part = place.part(name)
        if not part.is_group():
            wrong.append(f"{name} is missing")
            continue
        parts[name] = stored = rows_of_place(operation, part)
        if not stored.is_finished:
            wrong.append(f"{name} is not finished, with {stored.rows} rows so far")
        elif rows is not None and stored.rows != rows:
            wrong.append(f"{name} has {stored.rows} rows, and had {rows} when all were finished")
    if not wrong and "rows" not in attrs:
        wrong = ["each part is finished, but the ranks did not come to their common end"]
    if wrong:
        raise StateError(
            f"{operation}: the store is incomplete.\n  {place}: {'; '.join(wrong)}\n"
            f"  Call repsim.extract again with the same arguments on {len(names)} ranks: each goes "
            f"on with its own part. If a part was\n  left behind by a copy, copy it here."
        )
    return parts


def _common_plan(operation: str, place: Place, parts: Mapping[str, Stored]) -> Mapping[str, Any]:
    """Return the plan of the parts, which must have the same layers."""
    plans = {name: part.plan for name, part in parts.items() if part.plan is not None}
    if not plans:
        raise StateError(
            f"{operation}: the store has no rows.\n  {place}: no rank had a batch\n"
            f"  Pass each rank its share of the data in repsim.extract."
        )
    first, plan = next(iter(plans.items()))
    for name, other in plans.items():
        unlike = [
            line
            for a, b in (
                (columns_of(plan), columns_of(other)),
                (plan.get("masked", {}), other.get("masked", {})),
            )
            for line in (differences(a, b) or ([] if list(a) == list(b) else ["their order"]))
        ]
        if unlike:
            raise StateError(
                f"{operation}: the parts hold different layers.\n"
                f"  {place}, from {first} to {name}: {'; '.join(unlike[:4])}\n"
                f"  Give all ranks inputs of one size and ids of one type, delete the store, and "
                f"extract again."
            )
    return plan


def _warn_of_scattered_rows(
    operation: str,
    place: Place,
    plan: Mapping[str, Any],
    parts: Sequence[Stored],
    chosen: Ordered,
) -> None:
    """Warn if neighbours lie in other chunks, so each block of rows reads nearly all of them."""
    sizes, chunk = [part.rows for part in parts], plan["chunk"]
    if chosen.places is None or max(sizes) < CHUNKS * chunk:
        return
    of, number = parts_of(sizes, chosen.places)
    jumps = [np.abs(np.diff(number[of == part])) > chunk for part in range(len(parts))]
    if np.concatenate(jumps).mean() > 0.25:
        warn(
            f"{operation}: samples are sorted by id, but they were stored in another order.\n"
            f"  {place}: a block of rows lies in nearly every chunk, so reading blocks is slow\n"
            f"  Extract without shuffle, or open with order='rank' where the order of samples does "
            f"not matter."
        )
