"""What independent data would score by chance, and the warning that says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import ChanceWarning, warn
from repsim._typing import Array, Namespace
from repsim.arrays import detached, known, transformed
from repsim.estimators._products import Products, alignment

__all__ = [
    "BIASED_CKA",
    "HIGH_FLOOR",
    "ChanceWords",
    "high_floor",
    "mean_by_chance",
    "warn_of_chance",
    "warn_of_matrix",
]

HIGH_FLOOR = 0.1
"""A mean over independent data above this is worth a warning."""


@dataclass(frozen=True)
class ChanceWords:
    """How the warning names a value, and what it advises."""

    what: str
    remedy: str


BIASED_CKA = ChanceWords(
    "biased CKA",
    "Pass estimator='unbiased', which is 0 for independent data on average, or read the value "
    "beside repsim.chance_floor.",
)


def mean_by_chance(
    xp: Namespace, n: int, traces: tuple[Array, Array], squares: tuple[Array, Array]
) -> Array:
    """Return the mean of biased CKA over all n! permutations of y's samples; cost O(1).

    It is tr(Kc) tr(Lc)/((n−1) ‖Kc‖ ‖Lc‖), because the mean of the permuted Lc is tr(Lc)/(n−1) H.

    Parameters
    ----------
    xp : namespace
        The array namespace.
    n : int
        Samples, at least 2.
    traces, squares : pair of array
        tr(Kc) and tr(Lc), ‖Kc‖² and ‖Lc‖², divided by the scale of each Gram and by its square.
    """
    return alignment(xp, Products(traces[0] * traces[1] / (n - 1), *squares))


def high_floor(floor: Array | None) -> float | None:
    """Read a floor; return it if it is above :data:`HIGH_FLOOR`, ``None`` if it cannot be read."""
    if floor is None or transformed(floor) or not known(floor > HIGH_FLOOR):
        return None
    return float(detached(floor))  # jax.grad has a number and no array


def warn_of_chance(operation: str, words: ChanceWords, floor: float, where: str = "") -> None:
    """Warn of a floor, with one digit so that a loop repeats the text and Python shows it once."""
    warn(
        f"{operation}: {words.what} of independent data is about {floor:.1f} here{where}, because "
        f"the samples are few and the features many.\n  {words.remedy}",
        ChanceWarning,
    )


def warn_of_matrix(
    operation: str,
    n: int,
    traces: Any,
    squares: Any,
    names_x: Iterable[str],
    names_y: Iterable[str] | None,
) -> None:
    """Warn once of the two layers with the highest floor of biased CKA, if it is high.

    Parameters
    ----------
    operation : str
        The caller's name.
    n : int
        Samples.
    traces, squares : array, shape (L,)
        tr(Kc) and ‖Kc‖² of the layers of x, then those of the layers of y.
    names_x, names_y : iterable of str
        Their names. Without ``names_y`` the layers of x are compared with each other.
    """
    rows = list(names_x)
    columns = rows if names_y is None else list(names_y)
    start = 0 if names_y is None else len(rows)
    pair, both = ((v[: len(rows), None], v[None, start:]) for v in (traces, squares))
    floors = np.nan_to_num(np.asarray(mean_by_chance(np, n, pair, both)))
    if names_y is None:
        np.fill_diagonal(floors, 0.0)
    i, j = np.unravel_index(np.argmax(floors), floors.shape)
    if floors[i, j] > HIGH_FLOOR:
        where = f" for {rows[i]} with {columns[j]}"
        warn_of_chance(operation, BIASED_CKA, float(floors[i, j]), where)
