"""One call of cka_matrix: its passes over the data, its tasks, and the values at the end."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from repsim._distributed import RankGroup
from repsim._errors import DegenerateWarning, warn
from repsim._options import as_path
from repsim.estimators import Products, alignment, few_digits, warn_of_few_digits, warn_of_matrix
from repsim.kernels import Kernel
from repsim.storage import Checkpoint
from repsim.streaming.exact._columns import ColumnStats, column_stats
from repsim.streaming.exact._dask import DaskWork, all_in_dask
from repsim.streaming.exact._dask_batches import dask_batches
from repsim.streaming.exact._features import FeatureTiles, loses_digits
from repsim.streaming.exact._grams import GramBlocks
from repsim.streaming.exact._kernels import PILOT_ROWS, LayerKernel
from repsim.streaming.exact._plan import Plan, reading_rows
from repsim.streaming.exact._sources import Source
from repsim.streaming.exact._tasks import run_tasks
from repsim.streaming.exact._work import RankWork, Work

__all__ = ["OPERATION", "Call", "cka_values", "described", "pilot_rows"]

OPERATION = "cka_matrix"


class Call(NamedTuple):
    """The layers of both sides, and how they are compared."""

    layers: Sequence[Source]
    lx: int
    kernel: Kernel
    estimator: str
    plan: Plan
    dtype: np.dtype[Any]
    memory: int


def described(
    call: Call, attrs: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None
) -> dict[str, object]:
    """Return what must be the same on all ranks; of the values, three rows of each layer."""
    n = call.layers[0].n
    rows = [
        hashlib.sha256(b"".join(s.raw(row).tobytes() for row in (0, n // 2, n - 1))).hexdigest()
        for s in call.layers
    ]
    return {
        "layers": [(s.label, tuple(s.array.shape), str(s.dtype)) for s in call.layers],
        **attrs,
        "memory": call.memory,
        "blocks": call.plan,
        "checkpoint": None if checkpoint is None else "given",
        "some rows": [(s.label, digest[:8]) for s, digest in zip(call.layers, rows, strict=True)],
    }


def cka_values(
    call: Call,
    attrs: Mapping[str, Any],
    names: dict[str, Any],
    alone: bool,
    ranks: RankGroup,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
) -> np.ndarray[Any, Any]:
    """Return the CKA of all pairs, (L_x, L_y)."""
    layers, memory = call.layers, call.memory
    reading = reading_rows(layers, memory)
    in_dask = all_in_dask(OPERATION, layers)
    work: Work = DaskWork(OPERATION) if in_dask else RankWork(ranks, reading)
    stats = column_stats(layers, call.dtype, reading, work)
    form = _form(call, stats, work)
    if isinstance(work, DaskWork):
        batches = dask_batches(form, work, memory)
    else:
        own = ranks.own_tasks(form.costs())
        batches = [(1, functools.partial(form.run, task)) for task in own]
    saved = None
    if checkpoint is not None:
        path = ranks.own_path(as_path(OPERATION, "checkpoint", checkpoint))
        share = f"Dask, {len(batches)} batches" if in_dask else f"rank {ranks}"
        fingerprint = _fingerprint(attrs, call.plan, layers, stats) | names | {"share": share}
        saved = Checkpoint(path, operation=OPERATION, fingerprint=fingerprint)
    run_tasks(OPERATION, form, batches, work, ranks, attrs["bandwidth_rows"], saved, progress)
    return _alignment(form, call, stats, alone)


def _form(call: Call, stats: Sequence[ColumnStats], work: Work) -> FeatureTiles | GramBlocks:
    layers, plan, unbiased = call.layers, call.plan, call.estimator == "unbiased"
    if plan.form == "grams":
        kernels = [
            LayerKernel.of(call.kernel, source, one, call.dtype, work)
            for source, one in zip(layers, stats, strict=True)
        ]
        return GramBlocks(layers, stats, kernels, call.lx, unbiased=unbiased, rows=plan.rows)
    wide = np.dtype(np.float64)
    dtypes = [
        wide if unbiased and loses_digits(one, source.p) else call.dtype
        for source, one in zip(layers, stats, strict=True)
    ]
    return FeatureTiles(
        layers, stats, call.lx, unbiased=unbiased, dtypes=dtypes, rows=plan.rows, width=plan.width
    )


def _fingerprint(
    attrs: Mapping[str, Any], plan: Plan, layers: Sequence[Source], stats: Sequence[ColumnStats]
) -> dict[str, Any]:
    """Return what must be the same for a saved state to be continued, without the names."""
    return {
        **{name: attrs[name] for name in ("kernel", "estimator", "dtype", "bandwidth_rows")},
        "plan": [plan.form, plan.rows, plan.width],
        "shapes": [list(source.array.shape) for source in layers],
        "contents": [one.digest for one in stats],
    }


def pilot_rows(layers: Sequence[Source], memory: int) -> int:
    """Return the number of rows from which bandwidths are computed."""
    widest = max(source.p for source in layers)
    return max(2, min(layers[0].n, PILOT_ROWS, memory // 4 // (16 * widest)))


def _alignment(
    form: FeatureTiles | GramBlocks, call: Call, stats: Sequence[ColumnStats], alone: bool
) -> np.ndarray[Any, Any]:
    layers, lx, products = call.layers, call.lx, form.products()
    selves = np.where([one.constant for one in stats], 0.0, np.diagonal(products))
    empty = [source.label for source, own in zip(layers, selves, strict=True) if own <= 0]
    if empty:
        warn(
            f"{OPERATION}: constant over the samples, so the CKA is undefined (NaN): "
            f"{', '.join(empty)}.",
            DegenerateWarning,
        )
    labels = [source.label for source in layers]
    missing = [label for label, own in zip(labels, selves, strict=True) if np.isnan(own)]
    if missing:
        warn(
            f"{OPERATION}: a row of zeros has no direction for a cosine, so the CKA is undefined "
            f"(NaN): {', '.join(missing)}.",
            DegenerateWarning,
        )
    if isinstance(form, GramBlocks):
        few = few_digits(selves, form.rounding())
        named = [label for label, is_few in zip(labels, few, strict=True) if is_few]
        warn_of_few_digits(OPERATION, named, call.kernel)
    start = 0 if alone else lx
    if call.estimator == "biased":
        names_y = None if alone else labels[lx:]
        warn_of_matrix(OPERATION, layers[0].n, form.traces(), selves, labels[:lx], names_y)
    shared = Products(products[:lx, start:], selves[:lx, None], selves[None, start:])
    return np.asarray(alignment(np, shared))
