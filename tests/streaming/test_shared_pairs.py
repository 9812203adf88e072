"""cka_matrix and pairwise over gloo processes: one result, of the same bits on every rank."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import repsim
from ranks import run_ranks
from repsim import cka_matrix, pairwise
from repsim.kernels import RBF
from repsim.streaming import gather

N = 230


def layers(seed, *widths):
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((N, 4))
    return {
        f"{p} features": causes @ rng.standard_normal((4, p)) + rng.standard_normal((N, p)) + 2
        for p in widths
    }


CASES = {
    "tiles of features": {"memory": 48 * 40**2},
    "two sides": {"ys": layers(1, 9, 30), "memory": 48 * 20**2},
    "biased": {"estimator": "biased"},
    "Grams": {"xs": layers(2, 700, 300)},
    "bandwidths": {"kernel": "rbf", "block_size": 32},
    "biased bandwidths": {"kernel": "laplacian", "estimator": "biased"},
    "fixed": {"kernel": RBF(sigma=3.0), "ys": layers(1, 9)},
    "cosine": {"kernel": "cosine", "block_size": 100},
    "polynomial": {"kernel": "polynomial"},
    "one block": {"block_size": 1000, "kernel": "cosine"},  # most ranks have nothing to do
}


MEASURES = ("cka", "cca", "procrustes", "linear_regression_r2", "mutual_knn")


def pairs(name, **options):
    xs = layers(0, 12, 5, 40, 20)
    ys = layers(1, 9, 30) if name in ("cca", "linear_regression_r2") else None
    return pairwise(xs, ys, measure=name, **options)


def warned(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = call().values
    return values, sorted({str(each.message) for each in caught})


def with_a_constant(**options):
    xs = {name: x[:20] for name, x in layers(0, 12, 40).items()} | {"constant": np.ones((20, 3))}
    return pairwise(xs, estimator="biased", **options)


class Reads:
    """An array that does something when it is read for the n-th time."""

    def __init__(self, x, number, act):
        self.x, self.shape, self.dtype = x, x.shape, x.dtype
        self.left, self.act = number, act

    def __getitem__(self, key):
        self.left -= 1
        if self.left == 0:
            self.act()
        return self.x[key]


def computed(name, **options):
    options = {"xs": layers(0, 12, 5, 70, 20), **CASES[name], **options}
    return cka_matrix(options.pop("xs"), **options)


def refusal(call):
    try:
        call()
    except (repsim.RepsimError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def fail():
    raise ZeroDivisionError("the disk is gone")


def refusals(rank, size):
    xs = layers(0, 12, 5)
    (first, x), (second, y) = xs.items()
    bad = x.copy()
    bad[N - 3] = np.nan
    other = x.copy()
    other[N // 2, 3] += 1e-6
    last = rank == size - 1
    broken = Reads(x, 9, fail) if last else x
    return {
        "options": refusal(lambda: cka_matrix(xs, kernel=("rbf", "linear")[last], group="world")),
        "memory": refusal(lambda: cka_matrix(xs, memory=1 << (20 + last), group="world")),
        "shapes": refusal(lambda: cka_matrix({first: x[:, last:], second: y}, group="world")),
        "names": refusal(lambda: cka_matrix({f"layer{rank}": x}, group="world")),
        "values": refusal(lambda: cka_matrix({first: other if last else x}, group="world")),
        "not finite": refusal(lambda: cka_matrix({first: bad, second: y}, group="world")),
        "refused on one": refusal(lambda: cka_matrix({"x": x[:, 0] if last else x}, group="world")),
        "broken on one": refusal(
            lambda: cka_matrix({first: broken}, kernel="cosine", block_size=16, group="world")
        ),
        "pairs, shapes": refusal(lambda: pairwise({first: x[:, last:], second: y}, group="world")),
        "pairs, values": refusal(lambda: pairwise({first: other if last else x}, group="world")),
        "pairs, options": refusal(
            lambda: pairwise(xs, kernel=("rbf", "linear")[last], group="world")
        ),
        "pairs, not finite": refusal(lambda: pairwise({first: bad, second: y}, group="world")),
        "pairs, one rank": refusal(lambda: pairwise({"x": None if last else x}, group="world")),
        "no group": refusal(lambda: cka_matrix(xs, group="all")),
    }


def resumed(rank, size, folder):
    """A run that fails on one rank while it adds blocks, and the same call again."""
    path = folder / "run.npz"
    options = {"kernel": "rbf", "block_size": 32, "checkpoint": path, "group": "world"}
    x = layers(0, 70)["70 features"]
    # Two passes, the bandwidth and the means come before the blocks.
    reads = {1: 30, 2: 24, 4: 18}[size]
    broken = Reads(x, reads, fail) if rank == size - 1 else x
    failed = refusal(lambda: cka_matrix({"x": broken}, **options))
    again = cka_matrix({"x": x}, **options).values
    other = refusal(lambda: cka_matrix({"x": x}, **{**options, "block_size": 16}))
    files = sorted(p.name for p in folder.iterdir())
    return failed, again, cka_matrix({"x": x}, **options).values, other, files


def rows_read(size):
    """How often a rank reads a layer of many blocks."""
    x = Reads(layers(0, 70)["70 features"], -1, fail)
    cka_matrix({"x": x}, kernel="cosine", block_size=8, group="world")
    return -1 - x.left


def scenarios(rank, size):
    folder = Path(gather("the test", os.environ["SHARED_FOLDER"], None)[0])
    result = {
        "values": {name: computed(name, group="world").values for name in CASES},
        "attrs": computed("bandwidths", group="world").attrs,
        "refusals": refusals(rank, size),
        "resumed": resumed(rank, size, folder),
        "pairs": {name: pairs(name, group="world").values for name in MEASURES},
        "read": rows_read(size),
        "warned": warned(lambda: with_a_constant(group="world")),
    }
    everyone = gather("the test", result, None)
    start = time.monotonic()
    dies = Reads(layers(0, 70)["70 features"], 20, lambda: os._exit(7))
    xs = {"x": dies if rank == size - 1 > 0 else dies.x}
    dead = refusal(lambda: cka_matrix(xs, kernel="rbf", block_size=16, group="world"))
    return everyone, dead, time.monotonic() - start


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_share_pairs_of_blocks_and_of_arrays(size, tmp_path, monkeypatch):
    monkeypatch.setenv("SHARED_FOLDER", str(tmp_path))
    results = run_ranks("streaming.test_shared_pairs:scenarios", size, limit=180)
    everyone = results[0][0]
    for name in CASES:
        expected = computed(name)
        for each in everyone:
            np.testing.assert_array_equal(each["values"][name], everyone[0]["values"][name])
            np.testing.assert_allclose(each["values"][name], expected.values, rtol=0, atol=1e-12)
    for name in MEASURES:
        for each in everyone:
            np.testing.assert_array_equal(each["pairs"][name], pairs(name).values)
    reads = [each["read"] for each in everyone]
    assert max(reads) < 1.2 * min(reads)
    values, messages = warned(with_a_constant)
    for each in everyone:
        np.testing.assert_array_equal(each["warned"][0], values)
        assert each["warned"][1] == messages
    assert len(messages) == 2
    assert all(each["attrs"] == computed("bandwidths").attrs for each in everyone)
    check_resumption(size, everyone)
    for each in everyone:
        check_refusals(size, each["refusals"])
    if size > 1:
        assert results[-1] is None
        for _, dead, seconds in results[:-1]:
            assert "could not exchange" in dead
            assert "A rank has died" in dead
            assert seconds < 20


def check_resumption(size, everyone):
    x = layers(0, 70)["70 features"]
    expected = cka_matrix({"x": x}, kernel="rbf", block_size=32).values
    for each in everyone:
        failed, again, third, other, files = each["resumed"]
        assert "the disk is gone" in failed
        np.testing.assert_allclose(again, expected, atol=1e-12)
        np.testing.assert_array_equal(third, again)
        assert "does not belong to this call" in other or "ranks failed" in other
        assert files == [f"run.npz.rank{rank}of{size}" for rank in range(size)]


AGREED = (
    *("options", "memory", "shapes", "names", "values"),
    *("pairs, shapes", "pairs, values", "pairs, options"),
)


def check_refusals(size, got):
    assert "rows 227 (of 230, 12 features)" in got["not finite"]
    assert "group must be 'world' or a torch.distributed.ProcessGroup" in got["no group"]
    assert "the disk is gone" in got["broken on one"]
    assert "must be samples by features" in got["refused on one"]
    assert "the first in row 227" in got["pairs, not finite"]
    assert "must be an array" in got["pairs, one rank"]
    if size == 1:
        return
    agree = "all ranks of a group must have the same inputs and options"
    for name in AGREED:
        assert agree in got[name], name
    assert "kernel: RBF(" in got["options"]
    assert f"on rank {size - 1}" in got["options"]
