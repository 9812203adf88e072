"""The warning that samples at different distances share the last places among the neighbours."""

from __future__ import annotations

import numpy as np

from repsim._errors import warn
from repsim._typing import Array
from repsim.arrays import array_namespace, detached, host_numbers, known
from repsim.measures.parts.neighbours._lists import NeighbourLists
from repsim.measures.parts.neighbours._weights import SLACK, own_rounding

__all__ = ["warn_of_joined", "warn_of_joined_lists"]

JOINED = 0.005
"""The share of all places above which the warning is given, if it is more than one place.

Measured in float32: independent features of 1000 to 5000 samples reach 0.0008, where the measures
are off by 1e-4. Of 80 samples, mutual_knn is off by up to 1e-3 below it, and cknna by 4e-3 at it.
"""

FINER = 8
"""Distances are equal if they are so to this many times more digits than those that tie."""


def warn_of_joined(
    operation: str, name: str, d: Array, weights: Array, k: int, resolution: float
) -> None:
    """Warn of weights (n, n) of distances ``d`` (n, n) that join different distances.

    Parameters
    ----------
    operation, name : str
        For the warning.
    d, weights : array, shape (n, n)
        Distances, and the weights of the k nearest neighbours that were found with them.
    k : int
        Neighbours.
    resolution : float
        The rounding unit of the data.
    """
    xp, n = array_namespace(d), d.shape[0]
    distances, shares = (host_numbers(detached(z)) for z in (d, weights))
    if distances is not None and shares is not None:
        tied = np.flatnonzero((shares > 0) & (shares < 1))
        taken = distances.take(tied), shares.take(tied)
        own: np.ndarray = np.asarray(own_rounding(np, distances))
        joined = _share(n, k, tied // n, *taken, own[:, 0], resolution)
        if joined > max(JOINED, 1 / (n * k)):
            _warn(operation, name, joined, resolution)
        return
    rounding = own_rounding(xp, d)
    last = (weights > 0) & (weights < 1)
    nothing = xp.zeros_like(d)
    far = xp.max(xp.where(last, d, nothing), axis=1)
    near = xp.min(xp.where(last, d, xp.full_like(d, float("inf"))), axis=1)
    different = far - near > (SLACK * resolution * far + rounding[:, 0]) / FINER
    places = xp.sum(xp.where(last, weights, nothing), axis=1)
    share = xp.sum(xp.where(different, places, nothing[:, 0])) / (n * k)
    if known(share > max(JOINED, 1 / (n * k))):
        _warn(operation, name, float(share), resolution)


def warn_of_joined_lists(
    operation: str, name: str, lists: NeighbourLists, k: int, resolution: float
) -> None:
    """As :func:`warn_of_joined`, of the lists of neighbours."""
    tied = np.flatnonzero(lists.weights < 1)
    row = lists.keys[tied] // lists.n
    taken = lists.distances[tied], lists.weights[tied]
    share = _share(lists.n, k, row, *taken, lists.rounding, resolution)
    if share > max(JOINED, 1 / (lists.n * k)):
        _warn(operation, name, share, resolution)


def _share(
    n: int,
    k: int,
    row: np.ndarray,
    distances: np.ndarray,
    weights: np.ndarray,
    rounding: np.ndarray,
    resolution: float,
) -> float:
    """Return the share of all n·k places that samples at different distances share."""
    far, near = np.zeros(n), np.full(n, np.inf)
    np.maximum.at(far, row, distances)
    np.minimum.at(near, row, distances)
    different = far - near > (SLACK * resolution * far + rounding) / FINER
    return float(np.bincount(row, weights, n)[different].sum() / (n * k))


def _warn(operation: str, name: str, share: float, resolution: float) -> None:
    repair = (
        f"Compute {name} in float64."
        if resolution > np.finfo(np.float64).eps
        else "Compare the samples of one cluster at a time."
    )
    warn(
        f"{operation}: the distances of {name} differ in few digits, and samples at different "
        f"distances share {share:.1%} of the places among the neighbours, so the value may be off "
        f"by 1e-3 or more.\n  {repair}"
    )
