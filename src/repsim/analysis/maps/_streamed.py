"""The map of CKA from a stream of batches. Features are not kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from repsim._errors import InputError
from repsim._options import as_count, require_bool
from repsim._typing import KernelName
from repsim.analysis.maps._cka_map import cka_map, finished
from repsim.analysis.maps._comparison import Comparison
from repsim.analysis.maps._rank_grams import check_one_bandwidth
from repsim.analysis.maps._run import Run
from repsim.analysis.maps._side import GramSide
from repsim.analysis.run._drive import as_found
from repsim.analysis.run._provenance import versions
from repsim.analysis.run._token_samples import TokenSamples
from repsim.analysis.run.ranks import Ranks
from repsim.kernels import Kernel, Precision, resolve_kernel, with_precision
from repsim.streaming import MIN_BATCH

if TYPE_CHECKING:
    import xarray

__all__ = ["StreamOptions", "stream"]


@dataclass(frozen=True)
class StreamOptions:
    """The options of streaming CKA, as the caller wrote them."""

    kernel: KernelName | Kernel | None
    precision: Precision | None
    passes: int
    z_scores: bool


def stream(ranks: Ranks, asked: Comparison, options: StreamOptions) -> Callable[[], xarray.Dataset]:
    """Run the models on all batches; return a function to the result of all ranks."""
    passes = as_count("compare", "passes", options.passes)
    resolved = _resolved(options)
    ranks.share(asked.sample_ids)
    check_one_bandwidth(ranks, resolved)
    tokens, z_scores = asked.tokens, options.z_scores
    _check_z_scores(z_scores, tokens)
    side = partial(GramSide, kernel=resolved, least=MIN_BATCH if ranks.alone else 1)
    sides = asked.sides(side)
    more: dict[str, Any] = {"kernel": repr(resolved), "passes": passes}
    fingerprint = partial(asked.fingerprint, sides, **more)
    ranks.agree(partial(fingerprint, with_shards=False, z_scores=z_scores))
    result = partial(cka_map, origin={**asked.labels(sides), **versions()}, z_scores=z_scores)
    of_rank = partial(fingerprint, rank=str(ranks))
    kernels = [each.kernels for each in sides.each]
    run = Run(ranks, resolved, kernels, tokens, asked.checkpoint, of_rank)
    models = sides.x.model, sides.model_y
    with as_found("compare", *models), sides.in_place(), run.saving(result):
        for batch, new in run.batches(asked.data, passes, progress=asked.progress):
            run.count(sides.kept(batch), new)
        sides.check_used()
    return partial(finished, run, ranks, tokens, result)


def _check_z_scores(z_scores: bool, tokens: TokenSamples | None) -> None:
    require_bool("compare", "z_scores", z_scores)
    if z_scores and tokens is not None:
        raise InputError(
            "compare: z_scores need samples that can be exchanged.\n"
            "  tokens of one input depend on each other, so z would be too large\n"
            "  Use the standard error, which deletes whole inputs, or samples='inputs'."
        )


def _resolved(options: StreamOptions) -> Kernel:
    kernel = "linear" if options.kernel is None else options.kernel
    resolved: Kernel = resolve_kernel("compare", kernel)
    precision = options.precision
    return resolved if precision is None else with_precision("compare", resolved, precision)
