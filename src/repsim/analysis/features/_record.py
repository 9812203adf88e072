"""One pass over the data that keeps the features of several models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from torch import Tensor, nn

from repsim._errors import InputError
from repsim.analysis._extract_rows import BatchRows, Seen, ToHost, rows_of
from repsim.analysis._filling import where_of
from repsim.analysis.features._keepers import Keeper
from repsim.analysis.run._drive import Batch, each_batch

__all__ = ["Outputs", "record"]

Outputs: TypeAlias = Mapping[str, tuple[Mapping[str, Tensor], ToHost]]
"""By side: the features of each layer in the latest batch, and what made them."""


def record(
    operation: str,
    data: Iterable[Any] | None,
    models: Sequence[nn.Module],
    active: AbstractContextManager[Any],
    run: Callable[[Batch], Outputs],
    keeper: Keeper,
    seen: Seen,
    *,
    progress: bool,
) -> None:
    """Run models on the batches that are not kept yet, and keep the features.

    Layers are kept under "<side>/<layer>", because two models may have layers of the same name.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    data : iterable
        The batches.
    models : sequence of torch.nn.Module
        All models that run.
    active : context manager
        In it, the hooks of the models are active.
    run : callable
        Runs all models on a batch.
    keeper : Keeper
        Where the features go.
    seen : Seen
        The ids of the samples so far.
    progress : bool
        Whether to show a progress bar.
    """
    passed = each_batch(operation, data, *models, progress=progress, warn_of_others=False)
    with passed as batches, active:
        for batch in batches:
            if keeper.has(batch.value):
                continue
            where = where_of(batch.number)
            sides = {
                side: rows_of(outputs, made, keeper.ids, keeper.new, seen.n_rows, where)
                for side, (outputs, made) in run(batch).items()
            }
            keeper.add(_together(operation, sides, where), where)


def _together(operation: str, sides: Mapping[str, BatchRows], where: str) -> BatchRows:
    """Return the rows of all sides as rows of one set of layers."""
    counts = {side: len(rows.ids) for side, rows in sides.items()}
    if len(set(counts.values())) > 1:
        raise InputError(
            f"{operation}: all models must see the same samples.\n"
            f"  samples in {where}: {', '.join(f'{n} in {side}' for side, n in counts.items())}\n"
            f"  Does prepare or forward change the number of samples?"
        )
    layers = {
        f"{side}/{name}": x for side, rows in sides.items() for name, x in rows.layers.items()
    }
    return next(iter(sides.values()))._replace(layers=layers)
