"""The tasks of one computation, one after the other, in a state that survives a kill."""

from __future__ import annotations

from typing import Any

import numpy as np
from tqdm.auto import tqdm

from repsim.storage import Checkpoint
from repsim.streaming.exact._features import FeatureTiles
from repsim.streaming.exact._grams import GramBlocks
from repsim.streaming.exact._sources import pick

__all__ = ["run_tasks"]

SEED = 0


def run_tasks(
    operation: str,
    form: FeatureTiles | GramBlocks,
    pilot: int,
    reading: int,
    saved: Checkpoint | None,
    progress: bool,
) -> None:
    """Run the tasks of a form that are not done yet, and save from time to time.

    Parameters
    ----------
    operation : str
        The caller's name, for the progress bar.
    form : FeatureTiles or GramBlocks
        Its sums are complete afterwards.
    pilot : int
        Rows that bandwidths are taken from; 0 if the kernel has none that follows the data.
    reading : int
        Rows read at a time for that.
    saved : Checkpoint or None
        Where the state is, or will be.
    progress : bool
        Whether to show a bar.
    """
    state = None if saved is None else saved.load()
    done = 0
    if state is None:
        _start(form, pilot, reading)
        if saved is not None:
            _save(saved, form, 0)  # an unwritable folder raises now
    else:
        done = _restore(form, state)
    with tqdm(
        total=len(form.tasks), initial=done, desc=operation, unit="block", disable=not progress
    ) as bar:
        for task in range(done, len(form.tasks)):
            form.run(task)
            bar.update()
            last = task == len(form.tasks) - 1
            if saved is not None and (last or saved.due):
                _save(saved, form, task + 1)


def _start(form: FeatureTiles | GramBlocks, pilot: int, reading: int) -> None:
    n = form.n
    rng = np.random.default_rng(SEED)
    rows = np.arange(n) if pilot == n else np.sort(rng.choice(n, pilot, replace=False))
    if isinstance(form, GramBlocks) and pilot:
        for layer in form.layers:
            layer.fit(pick(layer.source, rows, reading).astype(layer.dtype, copy=False))
    form.start(rng)


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
