"""The labelled result of `compare`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import NonFiniteError, StateError, warn
from repsim.analysis.maps._rank_grams import reduced, report_of_tokens
from repsim.analysis.maps._run import Run
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import Ranks
from repsim.arrays import to_numpy
from repsim.results import LAYER_MAP
from repsim.streaming import MIN_BATCH, MinibatchCKA

if TYPE_CHECKING:
    import xarray

__all__ = ["cka_map", "finished"]


def cka_map(
    passes: list[MinibatchCKA], *, origin: Mapping[str, str], z_scores: bool, **attrs: Any
) -> xarray.Dataset:
    """Return CKA, its standard error and z as a dataset.

    Parameters
    ----------
    passes : list of MinibatchCKA
        The accumulators of all passes over the data, with one kernel.
    origin : mapping of str to str
        Models, transform and versions, for ``attrs``.
    z_scores : bool
        Whether the dataset has a variable ``z``.
    **attrs
        Further ``attrs``.

    Raises
    ------
    NonFiniteError
        A layer was not finite on an accelerator; ``partial`` is the CKA of the other layers.
    StateError
        No batch has enough samples.
    """
    total = MinibatchCKA(kernel=passes[0].kernel)
    for each in passes:
        total.merge(each)
    if not total.n_batches:
        raise StateError(
            f"compare: no batch has {MIN_BATCH} samples, and CKA needs {MIN_BATCH}.\n"
            f"  got {total.n_skipped_batches} batch{'' if total.n_skipped_batches == 1 else 'es'} "
            f"with {total.n_skipped_samples} samples in all\n"
            f"  Make larger batches: batch_size= of the loader, --batch-size of the command."
        )
    try:
        cka = total.compute()
    except NonFiniteError as error:
        if error.partial is not None:
            error.partial = error.partial.assign_attrs(attrs, **origin, passes=len(passes))
        raise
    # Passes over the same samples are not independent. The spread within one pass is an upper bound
    # for that of their average.
    variances = [np.square(each.standard_error().values) for each in passes if each.n_batches]
    spread = cka.copy(data=np.sqrt(sum(variances) / len(variances)))
    dataset = cka.to_dataset(name="cka").assign(standard_error=spread.rename("standard_error"))
    if z_scores:
        # Passes are not independent under chance: at worst their standard deviations add.
        dataset["z"] = total.z_scores() / math.sqrt(len(variances))
    for name, array in dataset.data_vars.items():
        array.attrs = LAYER_MAP.variables[str(name)].attrs
    return dataset.assign_attrs(cka.attrs, **origin, **attrs, passes=len(passes))


def finished(
    run: Run,
    ranks: Ranks,
    tokens: TokenSamples | None,
    result: Callable[..., xarray.Dataset],
) -> xarray.Dataset:
    """Return the result of all ranks, and warn if it is incomplete."""
    passes = reduced(ranks, run.accumulators)
    attrs: dict[str, Any] = {**report_of_tokens(ranks, tokens), **ranks.report()}
    if run.interrupted:
        attrs["interrupted"] = f"after {run.n_batches} batches"
        warn(
            f"compare: interrupted {attrs['interrupted']}; this is the result so far. "
            f"The state is in {run.path!r}: call again to go on from there.",
        )
    elif len(passes) > 1 and _same_batches(*passes[:2]):
        warn(
            f"compare: all {len(passes)} passes saw the same batches, so they add nothing to "
            f"the first. Pass a loader that reshuffles (shuffle=True).",
        )
    return result(passes, **attrs)


def _same_batches(first: MinibatchCKA, second: MinibatchCKA) -> bool:
    a, b = first.block_sums().blocks, second.block_sums().blocks
    return len(a) == len(b) and all(
        np.array_equal(to_numpy(mine.xy), to_numpy(theirs.xy))
        for mine, theirs in zip(a, b, strict=True)
    )
