"""compare(group=...) over gloo processes, each with the share of a DistributedSampler."""

from __future__ import annotations

import os
import tempfile
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

import repsim
from ranks import run_ranks

N, BATCH = 42, 6


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()


def samples():
    return torch.randn(N, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def share(rank, size):
    """The (inputs, ids) of one rank; with 4 ranks, 2 of 44 samples are repeated."""
    sampler = DistributedSampler(range(N), size, rank, shuffle=True, seed=3)
    ids = torch.tensor(list(sampler))
    return [(samples()[part], part) for part in ids.split(BATCH)]


def ids_of(batch):
    return batch[1]


class Hidden:
    """A batch of a class whose parts repsim does not see."""

    def __init__(self, inputs, ids):
        self._inputs = inputs

    def inputs(self):
        return self._inputs


def compared(data, **options):
    return repsim.compare(net(), net(1), data, progress=False, **options)


def summary(result):
    return result.cka.values, result.standard_error.values, dict(result.attrs)


def refusal(**options):
    try:
        compared(**options)
    except (repsim.RepsimError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def broken(rank):
    for number, batch in enumerate(share(rank, 2)):
        if rank == 1 and number == 1:
            raise OSError("the disk of this rank is gone")
        yield batch


def resumed(rank, size, **options):
    """Fail where rank 2 has counted one batch and others more or fewer, and call again."""

    def until_rank_2_fails():
        for number, batch in enumerate(share(rank, size)):
            if rank == 2 and number == 1:
                raise OSError("loader")
            yield batch

    with tempfile.TemporaryDirectory() as folder:
        options.update(group="world", checkpoint=os.path.join(folder, "run.npz"))
        message = refusal(data=until_rank_2_fails(), **options)
        files = os.listdir(folder)
        return message, files, summary(compared(share(rank, size), **options))


def scenarios(rank, size):
    mine = share(rank, size)
    uneven = [] if rank == 1 else mine[: rank + 1]  # the last rank has repeated samples
    return {
        "plain": summary(compared(mine, group="world")),
        "once": summary(compared(mine, group="world", sample_ids=ids_of)),
        "uneven": summary(compared(uneven, group="world")),
        "uneven, once": summary(compared(uneven, group="world", sample_ids=ids_of)),
        "resumed": resumed(rank, size),
        "resumed, once": resumed(rank, size, sample_ids=ids_of),
        "alone": summary(compared(mine)),
        "passes": refusal(data=mine, group="world", passes=1 + rank),
        "pilot": refusal(data=mine, group="world", kernel="rbf"),
    }


def same_bits(got, expected):
    np.testing.assert_array_equal(got[0], expected[0])
    np.testing.assert_array_equal(got[1], expected[1])
    assert got[2]["n_samples"] == expected[2]["n_samples"]


@pytest.mark.slow
def test_ranks_make_one_result():
    size = 4
    results = run_ranks("analysis.test_ranks:scenarios", size)
    shares = [share(rank, size) for rank in range(size)]
    plain = summary(compared([batch for each in shares for batch in each]))
    uneven = [b for r, each in enumerate(shares) if r != 1 for b in each[: r + 1]]
    some = summary(compared(uneven))
    distinct = len({k for _, ids in uneven for k in ids.tolist()})
    assert distinct < some[2]["n_samples"]
    # What was seen before, step by step and in each step rank by rank, is left out by hand.
    seen, kept = set(), [[] for _ in shares]
    for step in range(len(shares[0])):
        for rank, each in enumerate(shares):
            x, ids = each[step]
            rows = [i for i, k in enumerate(ids.tolist()) if k not in seen]
            seen.update(ids.tolist())
            kept[rank].append(x[rows])
    once = summary(compared([batch for each in kept for batch in each]))
    assert once[2]["n_samples"] == N
    for rank, result in enumerate(results):
        same_bits(result["plain"], plain)
        assert result["plain"][2]["n_ranks"] == size
        same_bits(result["once"], results[0]["once"])
        assert result["once"][2]["n_samples"] == N
        assert result["once"][2]["n_duplicates"] == 2
        np.testing.assert_allclose(result["once"][0], once[0], rtol=1e-10)
        np.testing.assert_allclose(result["once"][1], once[1], rtol=1e-8)
        same_bits(result["uneven"], some)
        assert result["uneven, once"][2]["n_samples"] == distinct
        for name in ("plain", "once"):
            message, files, again = result["resumed, once" if name == "once" else "resumed"]
            assert "loader" in message
            assert files == [f"run.npz.rank{rank}of{size}"]
            same_bits(again, result[name])
            assert again[2] == result[name][2]
        same_bits(result["alone"], summary(compared(shares[rank])))
        assert "passes: 1 on rank 0; 2 on rank 1; 3 on rank 2; 4 on rank 3" in result["passes"]
        assert "one bandwidth" in result["pilot"]


def disagreeing(rank, size):
    """Only rank 1 has another model or option; return the error of each rank."""
    odd = rank == 1
    here = net(7 if odd else 0)
    moved, mine = net(), share(rank, size)
    if odd:
        moved[2].bias.data[1] += 1e-9
    bent = nn.Sequential(net()[0], nn.ELU(1.0 + odd), net()[2])
    other = {"progress": False, "group": "world"}

    def compare(model=None, **options):
        repsim.compare(model or net(), net(1), mine, **other, **options)

    def refused(model=None, call=compare, **options):
        try:
            call(model, **options)
        except repsim.RepsimError as error:
            return f"{type(error).__name__}: {error}"
        return "nothing was raised"

    told = {
        "weights of model_x": refused(here),
        "weights of model_x, by one bias": refused(moved),
        "modules of model_x": refused(bent),
        "modules of full": refused(
            call=lambda _: repsim.data_scale({1.0: net()}, bent, mine, layers="0", **other)
        ),
        "modules of step 1": refused(
            call=lambda _: repsim.trajectory({0: net(), 1: bent}, mine, layers="0", **other)
        ),
        "kernel": refused(kernel="cosine" if odd else "linear"),
        "z_scores": refused(z_scores=odd),
        "transform": refused(transform="mean" if odd else None),
        "layers": refused(layers="0" if odd else "*"),
        "seed": refused(samples="tokens", seed=rank % 2, max_samples=3),
        "batch_size": refused(batch_size=6 if odd else None),
        "unknown": refused(kernel="rbff" if odd else "linear"),
        "ids": refused(sample_ids=3 if odd else None),
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compared(share(rank, size))
        alone = {"progress": False, "layers": "0"}
        repsim.trajectory({0: net()}, share(rank, size), **alone)
        compared(share(rank, size), measure="nbs")
        # One rank may work on its own, and say so.
        compared(share(rank, size), group="alone")
        repsim.trajectory({0: net()}, share(rank, size), **alone, group="alone")
        compared(share(rank, size), measure="nbs", group="alone")
        # Every rank has the share of rank 0.
        compared(share(0, size), group="world")
        repsim.trajectory({0: net()}, share(0, size), **alone, group="world")
        compared(share(0, size), group="world", sample_ids=ids_of)
        compared(share(rank, size), group="world")
        # It is told once for both passes, and a wrapper exchanges nothing in its forwards.
        inputs = [x for x, _ in mine]
        stitched = [
            repsim.stitch(wrap(net()), "0", wrap(net(1)), "0", inputs, fit=inputs, progress=False)
            for wrap in (DistributedDataParallel, lambda model: model)
        ]
        np.testing.assert_array_equal(stitched[0].kl, stitched[1].kl)
        # Batches whose values no digest sees look alike.
        hidden = [Hidden(*batch) for batch in share(rank, size)]
        compared(hidden, prepare_x=Hidden.inputs, prepare_y=Hidden.inputs, group="world")
    return told, [str(each.message) for each in caught]


@pytest.mark.slow
def test_ranks_that_disagree_are_an_error_on_each_of_them():
    results = run_ranks("analysis.test_ranks:disagreeing", 3)
    for rank, (told, caught) in enumerate(results):
        for what in ("unknown", "ids"):
            message = told.pop(what)
            if rank == 1:
                assert message.startswith("InputError: compare: "), message
            else:
                assert "1 of 3 ranks failed" in message
                assert "rank 1: InputError: compare: " in message
        for what, message in told.items():
            name = what.partition(",")[0]
            assert "all ranks of a group must have the same models and options" in message, what
            assert f"\n  {name}: " in message, (what, message)
            assert " on ranks 0, 2; " in message, message
            assert " on rank 1\n" in message, message
        alone = [each for each in caught if "of the data of this rank alone" in each]
        assert [each.partition(":")[0] for each in alone] == [
            "compare", "trajectory", "compare", "stitch", "stitch",
        ]  # fmt: skip
        assert all("torch.distributed has 3 ranks" in each for each in alone)
        assert "Pass group='world'" in alone[0]
        assert all("group='alone' says that one rank is meant" in each for each in alone[:3])
        assert all("Run it on one rank, with all of the data" in each for each in alone[3:])
        same = [each for each in caught if "got the same first batch" in each]
        assert [each.partition(":")[0] for each in same] == ["compare", "trajectory"]
        assert "all 3 ranks got the same first batch, so each sample may count 3 times" in same[0]


def failing(rank, size):
    told = [refusal(data=broken(rank), group="world", sample_ids=ids) for ids in (None, ids_of)]

    def dying():
        for number, batch in enumerate(share(rank, size)):
            if rank == 1 and number == 1:
                os._exit(7)
            yield batch

    if rank == 1:  # its error is lost with the process, so it is checked here
        assert all("the disk of this rank" in message for message in told)
    return [*told, refusal(data=dying(), group="world", sample_ids=ids_of)]


@pytest.mark.slow
def test_a_rank_that_fails_or_dies_is_an_error_on_the_others_and_no_hang():
    here, there = run_ranks("analysis.test_ranks:failing", 2, limit=60.0)
    for message in here[:2]:
        assert "compare: 1 of 2 ranks failed" in message
        assert "rank 1: OSError: the disk of this rank is gone" in message
    assert there is None
    assert "A rank has died" in here[2]


def test_ids_count_samples_once_in_one_process_too():
    x = samples()
    data = [(x[:8], list(range(8))), (x[6:16], list(range(6, 16))), (x[:8], list(range(8)))]
    once = compared(data, sample_ids=ids_of)
    expected = compared([x[:8], x[8:16]])
    np.testing.assert_allclose(once.cka, expected.cka, rtol=1e-12)
    for listed in (np.array, torch.tensor):  # lists of numbers of NumPy and of torch
        assert compared(data, sample_ids=lambda b, of=listed: list(of(b[1]))).equals(once)
    assert once.attrs["n_samples"] == 16
    assert once.attrs["n_duplicates"] == 10
    assert once.attrs["n_batches"] == 2


def test_ids_and_a_checkpoint_together(tmp_path):
    x = samples()
    data = [(x[i : i + 8], list(range(i, i + 8))) for i in range(0, 30, 6)]

    def stopping():
        yield from data[:3]
        raise OSError("loader")

    options = {"sample_ids": ids_of, "checkpoint": tmp_path / "run.npz"}
    with pytest.raises(OSError, match="loader"):
        compared(stopping(), **options)
    resumed, whole = compared(data, **options), compared(data, sample_ids=ids_of)
    same_bits(summary(resumed), summary(whole))
    assert resumed.attrs["n_duplicates"] == whole.attrs["n_duplicates"] == 8


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (lambda batch: batch[1][:-1], "one id for each sample"),
        (lambda batch: 3, "one number or string per sample"),
        (lambda batch: [object()] * 6, "one number or string per sample.\n  got list with an item"),
    ],
)
def test_invalid_ids_are_refused(ids, says):
    with pytest.raises(repsim.InputError, match=says):
        compared(share(0, 2), sample_ids=ids)


def test_an_invalid_group_is_refused():
    with pytest.raises(repsim.InputError, match="'world'"):
        compared(share(0, 2), group="all")
    with pytest.raises(repsim.StateError, match="init_process_group"):
        compared(share(0, 2), group="world")
