"""The rows that a function of repsim.inference draws, as a measure sees them."""

from __future__ import annotations

import dataclasses

import numpy as np

from repsim.measures import MEASURES


def drawn_rows(function, n: int, side: str, **options) -> list[np.ndarray]:
    """Call ``function`` on n samples; return the rows of side "x" or "y" in each of its draws."""
    seen: list[np.ndarray] = []

    def prepare(operation, x, *, name, **_options):
        if name == side:
            seen.append(x[:, 0].astype(int))
        return x

    def compare(x, y, **_options):
        return np.asarray(float((x * y).sum()))

    measure = dataclasses.replace(
        MEASURES["procrustes"],
        name="noted",
        prepare=prepare,
        compare=compare,
        compare_once=None,
        minimum_samples=2,
        needs=None,
    )
    numbers = np.arange(n, dtype=float)[:, None]
    function(numbers, numbers, measure=measure, **options)
    assert seen[0].tolist() == list(range(n))  # the value of the data themselves
    return seen[1:]
