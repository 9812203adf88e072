"""Steps of NumPy on parts of a matrix, in the number of threads that its matrix products use."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["in_threads", "product_threads"]

R = TypeVar("R")

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
"""What the libraries of matrix products read when they load, the most particular first."""


def product_threads() -> int:
    """Return how many threads the matrix products of NumPy use.

    A limit of threadpoolctl counts, then the variables of the environment, then the processors of
    this process.
    """
    tools = sys.modules.get("threadpoolctl")  # loaded if threads are limited by it
    if tools is not None and (libraries := _libraries(tools)):
        return max(int(each.num_threads) for each in libraries)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for name in VARIABLES:
        value = os.environ.get(name, "")
        if value.isdecimal() and int(value) > 0:
            return min(int(value), cores or 1)
    return cores or 1


@functools.cache
def _libraries(tools: Any) -> list[Any]:
    """Return the library of NumPy's products, whose number of threads threadpoolctl reads.

    It is looked for once, because threadpoolctl asks every library of the process. Measured in a
    process with torch: 10 ms, more than all steps of a small block.
    """
    every = tools.ThreadpoolController().lib_controllers
    found = [each for each in every if each.user_api == "blas"]
    return [each for each in found if "numpy" in each.filepath] or found  # torch has another


Run = Callable[[Callable[[Any], R], Iterable[Any]], Iterator[R]]


@contextmanager
def in_threads(most: int) -> Iterator[Run[Any]]:
    """Return a ``map`` that calls a function for several parts, at most this many at a time.

    >>> with in_threads(3) as each:
    ...     list(each(abs, [-1, 2, -3]))
    [1, 2, 3]

    NumPy releases the interpreter while it computes, so its steps on different rows run side by
    side. Results come in the order of the parts for any number of threads, so their sum in this
    order has the same digits. Threads start with the block and end with it.
    """
    count = min(most, product_threads()) if most > 1 else 1
    if count == 1:
        yield map
        return
    with ThreadPoolExecutor(count, thread_name_prefix="repsim") as pool:
        yield pool.map
