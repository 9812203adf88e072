"""Random orders and halves of the samples, from an explicit generator."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim._options import as_seed
from repsim.arrays import Groups, Indices

__all__ = ["half", "random_order", "resolve_seed"]


def resolve_seed(operation: str, seed: int | np.random.Generator) -> np.random.Generator:
    """Return the generator of a seed, or the generator itself, whose state the draws advance."""
    if isinstance(seed, np.random.Generator):
        return seed
    # None is refused, because nobody could repeat the draw.
    return np.random.default_rng(as_seed(operation, seed, also=", or a numpy.random.Generator"))


def random_order(
    rng: np.random.Generator, n: int, places: np.ndarray[Any, Any] | None = None
) -> Indices:
    """Return a uniformly random order of n samples.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws one ``permutation``, of the samples or of the groups.
    n : int
        Samples.
    places : array, shape (groups, samples of a group), optional
        Rows of the groups that stay whole. The k-th sample of a group moves to the place of the
        k-th sample of another group.
    """
    if places is None:
        return rng.permutation(n)
    order = np.empty(n, dtype=np.int64)
    order[places] = places[rng.permutation(len(places))]
    return order


def half(rng: np.random.Generator, n: int, groups: Groups | None) -> Indices:
    """Return the rows of half of the samples (or groups), rounded down, without repetition."""
    if groups is None:
        return np.sort(rng.permutation(n)[: n // 2])
    chosen = rng.permutation(len(groups.rows))[: len(groups.rows) // 2]
    return np.sort(np.concatenate([groups.rows[g] for g in chosen]))
