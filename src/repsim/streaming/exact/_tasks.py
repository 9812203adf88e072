"""The tasks of one computation, one after the other, in a state that survives a kill."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from repsim._distributed import RankGroup
from repsim.storage import Checkpoint
from repsim.streaming.exact._features import FeatureTiles
from repsim.streaming.exact._grams import GramBlocks
from repsim.streaming.exact._kernels import bandwidth
from repsim.streaming.exact._work import Piece, Work

__all__ = ["Batch", "run_tasks"]

SEED = 0

Batch = tuple[int, Callable[[], None]]
"""A number of tasks, and what runs them together."""


def run_tasks(
    operation: str,
    form: FeatureTiles | GramBlocks,
    batches: Sequence[Batch],
    work: Work,
    ranks: RankGroup,
    pilot: int,
    saved: Checkpoint | None,
    progress: bool,
) -> None:
    """Run the tasks of a form that are not done yet, and save from time to time.

    Parameters
    ----------
    operation : str
        The caller's name, for the progress bar.
    form : FeatureTiles or GramBlocks
        Its sums are complete afterwards, on every rank.
    batches : sequence of Batch
        The tasks of this rank.
    work : Work
        Reads what the form starts from.
    ranks : RankGroup
        The ranks that share the tasks.
    pilot : int
        Rows that bandwidths are taken from; 0 if the kernel has none that follows the data.
    saved : Checkpoint or None
        Where the state is, or will be.
    progress : bool
        Whether to show a bar.
    """
    state = None if saved is None else saved.load()
    done = 0
    if any(other is None for other in ranks.gather(None if state is None else True)):
        _start(form, pilot, work)
    if state is not None:
        done = _restore(form, state)
    elif saved is not None:
        _save(saved, form, 0)  # an unwritable folder raises now
    with tqdm(
        total=sum(count for count, _ in batches),
        initial=sum(count for count, _ in batches[:done]),
        desc=operation,
        unit="block",
        disable=not progress,
    ) as bar:
        for number in range(done, len(batches)):
            count, run = batches[number]
            run()
            bar.update(count)
            last = number == len(batches) - 1
            if saved is not None and (last or saved.due):
                _save(saved, form, number + 1)
    form.merge(ranks.gather)


def _start(form: FeatureTiles | GramBlocks, pilot: int, work: Work) -> None:
    n = form.n
    rng = np.random.default_rng(SEED)
    rows = np.arange(n) if pilot == n else np.sort(rng.choice(n, pilot, replace=False))
    if isinstance(form, GramBlocks) and pilot:
        pieces = [
            Piece(((source, rows),), (layer.kernel, layer.dtype, layer.label))
            for source, layer in zip(form.sources, form.layers, strict=True)
        ]
        sigmas = work.reduce(bandwidth, [[piece] for piece in pieces])
        for layer, sigma in zip(form.layers, sigmas, strict=True):
            layer.sigma = sigma
    form.start(rng, work)


def _restore(form: FeatureTiles | GramBlocks, state: dict[str, Any]) -> int:
    """Go on from a saved state; return the number of tasks that are done."""
    done, sigmas = int(state.pop("done")), state.pop("sigmas")
    if isinstance(form, GramBlocks):
        for layer, sigma in zip(form.layers, sigmas, strict=True):
            layer.sigma = float(sigma)
    form.restore(state)
    return done


def _save(saved: Checkpoint, form: FeatureTiles | GramBlocks, done: int) -> None:
    layers = form.layers if isinstance(form, GramBlocks) else []
    sigmas = np.array([layer.sigma for layer in layers])
    saved.save({"done": np.array(done), "sigmas": sigmas, **form.state()})
