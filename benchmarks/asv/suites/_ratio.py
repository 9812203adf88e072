"""A ratio of two times that a drift of the machine's speed does not move."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUNDS = 7


def ratio(work: Callable[[], object], floor: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median over rounds of the time of ``work`` over that of ``floor``, which take turns."""
    work(), floor()
    return statistics.median(_seconds(work) / _seconds(floor) for _ in range(rounds))


def _seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
