"""all_reduce of the accumulators over 1, 2 and 4 gloo processes."""

from __future__ import annotations

import os
import time
import warnings

import numpy as np
import pytest
import torch.distributed as dist

import repsim
from ranks import run_ranks
from repsim.kernels import RBF
from repsim.streaming import RidgeStatistics, gather

SHARES = {1: [4], 2: [3, 5], 4: [3, 5, 0, 2]}
"""Batches of each rank: unequal, and one rank without any."""


def batch(rank, number):
    rng = np.random.default_rng([rank, number])
    n = 2 if (rank, number) == (1, 4) else 8  # one batch is too short
    x = rng.standard_normal((n, 5))
    return {"a": x, "b": np.maximum(x, 0)}, {"c": x[:, :2] + rng.standard_normal((n, 2))}


def accumulated(ranks, batches, **options):
    acc = repsim.MinibatchCKA(**options)
    for rank in ranks:
        for number in range(batches[rank]):
            acc.update(*batch(rank, number))
    return acc


def values(acc):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", repsim.RepsimWarning)
        result = acc.compute()
    return result.values, acc.standard_error().values, dict(result.attrs)


def refusal(call):
    try:
        call()
    except (repsim.RepsimError, MemoryError) as error:
        return str(error)
    return "nothing was raised"


class Full(repsim.MinibatchCKA):
    """An accumulator that cannot be sent."""

    def state_dict(self):
        raise MemoryError("there is no room for a copy")


def scenarios(rank, size):
    mine = accumulated([rank], {rank: SHARES[size][rank]})
    n_before = mine.n_samples
    total = mine.all_reduce()
    many = accumulated([rank], {rank: 70})
    rbf = repsim.MinibatchCKA(kernel="rbf")
    rbf.update(*batch(rank, 0))
    layers = repsim.MinibatchCKA()
    layers.update({f"layer{rank}": batch(rank, 0)[0]["a"]})
    other = accumulated([rank], {rank: 1}, kernel=RBF(sigma=1.0 + rank))
    result = {
        "total": values(total),
        "again": values(mine.all_reduce()),
        "left alone": (n_before, mine.n_samples),
        "many": values(many.all_reduce()),
        "sigma": values(accumulated([rank], {rank: 2}, kernel=RBF(sigma=2.0)).all_reduce()),
        "bandwidths": refusal(rbf.all_reduce),
        "layers": refusal(layers.all_reduce),
        "kernels": refusal(other.all_reduce),
        "no room": refusal((Full() if rank == size - 1 else many).all_reduce),
    }
    everyone = gather("the test", result, None)
    if size == 2 and rank == 1:
        os._exit(7)
    start = time.monotonic()
    dead = refusal(mine.all_reduce) if size == 2 else None
    return everyone, dead, time.monotonic() - start


def assert_same_bits(got, expected):
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert got[2] == expected[2]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_every_rank_gets_the_bits_of_one_process_or_an_error_and_no_hang(size):
    results, dead, seconds = run_ranks("streaming.test_all_reduce:scenarios", size)[0]
    assert len(results) == size
    if size == 2:  # and then rank 1 died
        assert "A rank has died" in dead
        assert "rank 0 of 2" in dead
        assert seconds < 40  # the group's own limit is 20 s
    one = values(accumulated(range(size), SHARES[size]))
    assert one[2]["n_skipped_batches"] == (size > 1)
    sigma = values(accumulated(range(size), [2] * size, kernel=RBF(sigma=2.0)))
    parts = [accumulated([rank], {rank: 70}) for rank in range(size)]
    merged = repsim.MinibatchCKA()
    for part in parts:
        merged.merge(part)
    sequential = values(accumulated(range(size), [70] * size))
    for result in results:
        assert_same_bits(result["total"], one)
        assert_same_bits(result["again"], one)
        assert result["left alone"][0] == result["left alone"][1]
        assert_same_bits(result["sigma"], sigma)
        assert_same_bits(result["many"], values(merged))
        np.testing.assert_allclose(result["many"][0], sequential[0], rtol=1e-12)
        assert "there is no room for a copy" in result["no room"]
        for name, says in (
            ("bandwidths", "one bandwidth"),
            ("layers", "same layers"),
            ("kernels", "kernel"),
        ):
            assert says in result[name] if size > 1 else result[name] == "nothing was raised"


def of_one_pass(kind, ranks, batches):
    acc = kind()
    for rank in ranks:
        for number in range(batches[rank]):
            acc.update(*batch(rank, number))
    return acc


ONE_PASS = {
    "StreamingLinearCKA": lambda acc: [acc.compute().values],
    "StreamingCovariance": lambda acc: [
        acc.compute(measure).values for measure in ("cka", "cca", "pwcca", "rv2")
    ],
}


def ridge_of(ranks, batches, p=20):
    """With 20 features, a rank of two batches keeps rows, and one of three batches keeps sums."""
    statistics = RidgeStatistics()
    for rank in ranks:
        for number in range(batches[rank]):
            rng = np.random.default_rng([9, rank, number])
            labels = rng.integers(0, 2 + rank, 8)  # the classes differ too
            statistics.update(rng.standard_normal((3, 8, p)) + labels[:, None], labels)
    return statistics


def fitted(statistics):
    solved = statistics.solve(n_classes=5).weights(2.0)
    return solved.weights, solved.bias, statistics.n


def groups(rank):
    """Return what a group of some ranks returns, and the errors of what is none."""
    some = dist.new_group([0, 1])
    acc = of_one_pass(repsim.StreamingLinearCKA, [rank], [rank + 1] * 4)
    return {
        "some": acc.all_reduce(some).n_batches
        if rank < 2
        else refusal(lambda: acc.all_reduce(some)),
        "world": acc.all_reduce("world").n_batches,
        "all": refusal(lambda: acc.all_reduce("all")),
        "number": refusal(lambda: acc.all_reduce(3)),
    }


def one_pass_scenarios(rank, size):
    mine = ridge_of([rank], SHARES[size])
    wide = RidgeStatistics()
    wide.update(np.ones((2, 2, 3 + rank)), np.array([0, 1]))
    result = {"ridge": (fitted(mine.all_reduce()), mine.n, refusal(wide.all_reduce))}
    result["groups"] = groups(rank)
    for name, values_of in ONE_PASS.items():
        kind = getattr(repsim, name)
        mine = of_one_pass(kind, [rank], {rank: SHARES[size][rank]})
        total = mine.all_reduce()
        other = kind()
        other.update({f"layer{rank}": batch(rank, 0)[0]["a"]})
        result[name] = values_of(total), total.n_samples, mine.n_batches, refusal(other.all_reduce)
    return gather("the test", result, None)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
def test_accumulators_of_one_pass(size):
    results = run_ranks("streaming.test_all_reduce:one_pass_scenarios", size)[0]
    expected = [ridge_of([rank], SHARES[size]) for rank in range(size)]
    merged = RidgeStatistics()
    for each in expected:
        merged.merge(each)
    assert {each.folded for each in expected if each.n} == ({True} if size == 2 else {True, False})
    for rank, result in enumerate(results):
        found, n, refused = result["ridge"]
        for mine, same, close in zip(
            found, fitted(merged), fitted(ridge_of(range(size), SHARES[size])), strict=True
        ):
            np.testing.assert_array_equal(mine, same)
            np.testing.assert_allclose(mine, close, rtol=1e-9)
        assert n == expected[rank].n
        assert "same problems and features" in refused
        told = result["groups"]
        assert told["world"] == sum(range(1, size + 1))
        assert told["some"] == 3 if rank < 2 else "does not belong to the group" in told["some"]
        assert all("'world' or a torch.distributed" in told[each] for each in ("all", "number"))
    for name, values_of in ONE_PASS.items():
        kind = getattr(repsim, name)
        merged = kind()
        for rank in range(size):
            merged.merge(of_one_pass(kind, [rank], {rank: SHARES[size][rank]}))
        sequential = of_one_pass(kind, range(size), SHARES[size])
        for rank, result in enumerate(results):
            found, n, before, refused = result[name]
            assert n == sequential.n_samples
            assert before == SHARES[size][rank]
            assert "same layers" in refused
            np.testing.assert_array_equal(found, values_of(merged))
            np.testing.assert_allclose(found, values_of(sequential), rtol=1e-11)


def test_a_missing_process_group_is_reported_with_a_remedy():
    accumulators = [of_one_pass(getattr(repsim, name), [0], [1]) for name in ONE_PASS]
    for acc in (accumulated([0], [1]), ridge_of([0], [1]), *accumulators):
        with pytest.raises(repsim.StateError, match="init_process_group"):
            acc.all_reduce()
