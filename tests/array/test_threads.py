"""Steps of NumPy on several threads: as many as the products use, with the same digits."""

import os
import sys
import threading
import types

import numpy as np
import pytest

import repsim
from repsim.arrays import in_threads, product_threads
from streaming.batches import data

VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


@pytest.fixture
def threads(monkeypatch):
    """Set the number of threads, on a machine with four processors."""
    monkeypatch.delitem(sys.modules, "threadpoolctl", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def choose(**values):
        for name in VARIABLES:
            if name in values:
                monkeypatch.setenv(name, values[name])
            else:
                monkeypatch.delenv(name, raising=False)

    return choose


def library(user_api, filepath, num_threads):
    return types.SimpleNamespace(user_api=user_api, filepath=filepath, num_threads=num_threads)


def limited_by(monkeypatch, libraries):
    """Load a threadpoolctl that finds these libraries; return a list of its searches."""
    searches = []

    def search():
        searches.append(1)
        return types.SimpleNamespace(lib_controllers=libraries)

    tools = types.ModuleType("threadpoolctl")
    tools.ThreadpoolController = search
    monkeypatch.setitem(sys.modules, "threadpoolctl", tools)
    return searches


def test_the_number_follows_the_products(threads, monkeypatch):
    assert product_threads() == 4
    for value, expected in (("1", 1), ("3", 3), ("64", 4), ("0", 4), ("many", 4)):
        threads(OMP_NUM_THREADS=value)
        assert product_threads() == expected
    threads(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="2")
    assert product_threads() == 2
    libraries = [
        library("blas", "numpy.libs/openblas.so", 3),
        library("blas", "torch/lib/mkl.so", 7),
        library("openmp", "torch/lib/gomp.so", 8),
    ]
    limited_by(monkeypatch, libraries)
    assert product_threads() == 3
    libraries[0].num_threads = 2
    assert product_threads() == 2
    libraries[0].filepath = "lib/openblas.so"
    limited_by(monkeypatch, libraries)
    assert product_threads() == 7


def test_libraries_are_looked_for_once(threads, monkeypatch):
    """Blocks of few rows need no threads. A search for each block took longer than the block."""
    searches = limited_by(monkeypatch, [library("blas", "numpy.libs/openblas.so", 2)])
    xs, _ = data(600)
    repsim.cka_matrix(xs, kernel="rbf", block_size=60)
    assert not searches
    repsim.cka_matrix(xs, kernel="rbf", block_size=400)
    assert len(searches) == 1


def test_a_limit_of_threadpoolctl_counts(threads, monkeypatch):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    monkeypatch.setitem(sys.modules, "threadpoolctl", threadpoolctl)
    for count in 2, 1:
        with threadpoolctl.threadpool_limits(count, user_api="blas"):
            assert product_threads() == count


def test_parts_come_in_order_and_errors_come_out(threads):
    threads(OMP_NUM_THREADS="3")
    together = threading.Barrier(3, timeout=10)

    def step(part):
        together.wait()  # passes only if three threads are here
        return part

    with in_threads(6) as each:
        assert list(each(step, range(6))) == list(range(6))
        with pytest.raises(ZeroDivisionError):
            list(each(lambda part: 1 // part, [1, 0]))
    assert not [thread for thread in threading.enumerate() if "repsim" in thread.name]


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "polynomial", "cosine", "linear"])
def test_grams_have_the_same_digits(threads, kernel):
    """A block of 700 rows has five parts of rows that take turns on the threads."""
    xs, _ = data(700)
    found = []
    for count in "1", "3":
        threads(OMP_NUM_THREADS=count)
        found.append(repsim.cka_matrix(xs, kernel=kernel, block_size=512).values)
    np.testing.assert_array_equal(*found)
