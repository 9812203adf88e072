"""Random orders and halves of the samples, from an explicit generator, and their moments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from repsim._options import as_seed
from repsim.arrays import Groups, Indices

__all__ = ["half", "moments", "moments_of_defined", "random_order", "resolve_seed"]

Values = np.ndarray[Any, np.dtype[np.float64]]


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


def moments(values: Values, *, ddof: int) -> tuple[Values, Values]:
    """Return the mean and the standard deviation of draws (m, ...), each (...), at any scale.

    The squares of values above 1e154 are infinite, and those below 1e-162 are zero. HSIC of
    features of 1e40 has such values.

    >>> mean, deviation = moments(np.array([[1e200, 1e-200], [3e200, 3e-200]]), ddof=0)
    >>> mean / [1e200, 1e-200], deviation / [1e200, 1e-200]
    (array([2., 2.]), array([1., 1.]))
    """
    _, exponent = np.frexp(np.max(np.abs(values), axis=0))
    scaled = np.ldexp(values, -exponent)
    mean, deviation = scaled.mean(axis=0), scaled.std(axis=0, ddof=ddof)
    return np.ldexp(mean, exponent), np.ldexp(deviation, exponent)


def moments_of_defined(values: Values, *, ddof: int) -> tuple[Values, Values]:
    """Return the moments of the draws (m, ...) that have a value, NaN where they are too few.

    >>> draws = np.array([[1.0, np.nan, np.nan], [3.0, np.nan, np.nan], [np.nan, 5.0, np.nan]])
    >>> mean, deviation = moments_of_defined(draws, ddof=1)
    >>> mean, deviation.round(6)
    (array([ 2.,  5., nan]), array([1.414214,      nan,      nan]))
    """
    known = ~np.isnan(values)
    if known.all():
        return moments(values, ddof=ddof)
    _, exponent = np.frexp(np.max(np.abs(values), axis=0, where=known, initial=0.0))
    scaled = np.ldexp(np.where(known, values, 0.0), -exponent)
    count = np.sum(known, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # no draw has a value: NaN
        mean = np.sum(scaled, axis=0) / count
        squares = np.sum(np.where(known, (scaled - mean) ** 2, 0.0), axis=0)
        deviation = np.sqrt(squares / np.where(count > ddof, count - ddof, math.nan))
    return np.ldexp(mean, exponent), np.ldexp(deviation, exponent)
