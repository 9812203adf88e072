"""Analyses whose Grams or samples belong to batches, over a process group."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DistributedSampler

import repsim
from analysis import rank_cases
from analysis.rank_cases import ids_of, net
from ranks import run_ranks

N, BATCH = 46, 6


def images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 3, 8, 8, generator=generator, dtype=torch.float64)


def batches(ids, size=BATCH):
    return [(images()[part], part) for part in torch.as_tensor(ids).split(size)]


def dealt(rank, size):
    """The ids of a DistributedSampler; with 4 ranks, 2 of 48 samples are repeated."""
    return list(DistributedSampler(range(N), size, rank, shuffle=True, seed=3))


def share(rank, size):
    return batches(dealt(rank, size))


def uneven(rank, size):
    """One batch, none, one that is too short, and the others, without a repeated sample."""
    ends = {1: [0, N], 2: [0, 12, N], 4: [0, 6, 6, 8, N]}[size]
    ids = range(N)[ends[rank] : ends[rank + 1]]
    return batches(ids) if ids else []


def probe(data, model=None, **options):
    chosen = {"layers": ["blocks.0.attn.qkv", "blocks.1"], "tokens": ("cls", "mean"), "prefix": 1}
    chosen |= options
    labels = (lambda batch: batch[1] % 3) if "all" not in chosen["tokens"] else token_labels
    test = batches(range(N - 1, -1, -1)) if "group" not in options else held(options)
    return repsim.linear_probe(model or net(), data, test, labels=labels, progress=False, **chosen)


def held(options):
    rank, size = dist.get_rank(), dist.get_world_size()
    return (
        share(size - 1 - rank, size) if "sample_ids" in options else uneven(size - 1 - rank, size)
    )


def token_labels(batch):
    labels = (batch[1][:, None] + torch.arange(17)) % 3
    labels[:, ::5] = -100
    return labels


def scaled(data, model=None, **options):
    return repsim.data_scale(
        {0.1: net(5), 1.0: net(6)},
        model or net(),
        data,
        layers=["patch", "blocks.*.mlp"],
        controls={"untrained": net(7)},
        progress=False,
        **options,
    )


def followed(data, model=None, **options):
    return repsim.trajectory(
        {0: net(5), 10: lambda: net(6), 20: model or net()},
        data,
        layers="blocks.?",
        progress=False,
        **options,
    )


def localized(data, model=None, **options):
    return repsim.token_localization(
        model or net(), data, ["patch", "blocks.0"], progress=False, **options
    )


def heads(data, model=None, **options):
    return repsim.head_subset_cka(
        model or net(),
        net(5),
        data,
        layer="blocks.0.attn",
        layers_y=["patch", "blocks.?"],
        progress=False,
        **options,
    )


CASES = {
    "data_scale": scaled,
    "head_subset_cka": heads,
    "linear_probe": probe,
    "linear_probe of few": lambda data, model=None, **options: probe(
        data, model, **{"shots": 12, "n_classes": 3, **options}
    ),
    "linear_probe of tokens": lambda data, model=None, **options: probe(
        data, model, **{"tokens": "all", **options}
    ),
    "token_localization": localized,
    "trajectory": followed,
    "trajectory of each other": lambda data, model=None, **options: repsim.trajectory(
        {0: net(5), 20: model or net()},
        data,
        against="each other",
        layers="blocks.?",
        samples="tokens",
        progress=False,
        **options,
    ),
}
"""The analyses by name: functions of the batches, the model and other options."""


def compared(data, **options):
    """CKA of tokens; test_ranks.py has the rest of `compare`."""
    chosen = {"layers": "blocks.?", "samples": "tokens", "progress": False}
    return repsim.compare(net(), net(5), data, **chosen, **options)


def summary(result):
    """As of other analyses, with the coordinates that are not whole numbers among the values."""
    values, names, attrs = rank_cases.summary(result)
    for name, each in result.coords.items():
        if each.dtype.kind == "f":
            values[str(name)] = np.array(names.pop(str(name)))
    return values, names, attrs


def refusal(run, *args, **options):
    try:
        run(*args, **options)
    except (repsim.RepsimError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


class Broken(list):
    """Batches that can be iterated again; the last rank raises after the first."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == 1 and dist.get_rank() == dist.get_world_size() - 1:
                raise OSError("the disk is gone")
            yield batch


class Deadly(list):
    """Batches of which rank 1 dies after the first."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__()):
            if number == 1 and dist.get_rank() == 1:
                os._exit(7)
            yield batch


class Sometimes(nn.Module):
    """A layer runs on rank 1 alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 2, 2).double()
        self.extra = nn.Conv2d(4, 4, 1).double()

    def forward(self, x):
        x = self.first(x)
        return self.extra(x) if dist.get_rank() == 1 else x


def not_finite(rank, size):
    data = share(rank, size)
    if rank == size - 1:
        data[1][0][0, 0, 0, 0] = torch.nan
    return data


def results_of(run, rank, size):
    return {
        "uneven": summary(run(uneven(rank, size), group="world")),
        "once": summary(run(share(rank, size), group="world", sample_ids=ids_of)),
    }


def told_by(run, rank, size):
    """The results of a rank, and the errors of calls that must fail on all ranks."""
    told = results_of(run, rank, size)
    if size > 1:
        mine, group = share(rank, size), {"group": "world"}
        told["broken"] = refusal(run, Broken(mine), **group)
        told["broken, once"] = refusal(run, Broken(mine), **group, sample_ids=ids_of)
        told["nan"] = refusal(run, not_finite(rank, size), **group)
        told["weights"] = refusal(run, mine, model=net(rank), **group)
        told["no data"] = refusal(run, [], **group)
    return told


def unlike(rank, size):
    """The errors of ranks whose layers, maps or arguments do not fit together."""
    group, mine = {"group": "world", "progress": False}, share(rank, size)
    model, larger = Sometimes(), [(x.repeat(1, 1, 1 + rank, 1), ids) for x, ids in mine]
    conv = model.first
    labels = {"labels": lambda batch: batch[1] % 3}
    told = {
        "data_scale: all ranks must have the same layers": (
            repsim.data_scale, {1.0: Sometimes()}, model, mine, {"layers": "*"},
        ),
        "trajectory: all ranks must have the same layers": (
            repsim.trajectory, {0: Sometimes(), 1: model}, mine, {},
        ),
        "token_localization: all ranks must have the same layers": (
            repsim.token_localization, model, mine, "*", {},
        ),
        "head_subset_cka: the heads and layers of y must be the same on all ranks": (
            repsim.head_subset_cka, rank_cases.net(), model, mine,
            {"layer": "blocks.0.attn", "layers_y": "*"},
        ),
        "linear_probe: all ranks must have the same layers": (
            repsim.linear_probe, model, mine, mine, {"layers": "*", "tokens": "mean", **labels},
        ),
        "token_localization: images and grids must stay the same": (
            repsim.token_localization, nn.Sequential(conv), larger, "0", {},
        ),
        "linear_probe: all ranks must have the same layers, tokens and features": (
            repsim.linear_probe, nn.Sequential(conv), larger, mine,
            {"layers": "0", "tokens": "each", **labels},
        ),
        "data_scale: the ranks of a group need one bandwidth": (
            repsim.data_scale, {1.0: conv}, conv, mine, {"layers": "*", "kernel": "rbf"},
        ),
        "trajectory: the ranks of a group need one bandwidth": (
            repsim.trajectory, {0: conv}, mine, {"kernel": "rbf"},
        ),
        "trajectory: group is an option of measure='cka'": (
            repsim.trajectory, {0: conv}, mine, {"measure": "nbs"},
        ),
    }  # fmt: skip
    return {says: refusal(f, *a, **options, **group) for says, (f, *a, options) in told.items()}


def scenarios(rank, size):
    told = {name: told_by(run, rank, size) for name, run in CASES.items()}
    told["compare"] = results_of(compared, rank, size)
    if size > 1:
        told["unlike"] = unlike(rank, size)
        # Last, because the group cannot be used any more.
        run = probe if size == 4 else followed
        told["dying"] = refusal(run, Deadly(share(rank, size)), group="world")
    return told


def same_bits(got, expected):
    assert got[1:] == expected[1:]
    for name, values in expected[0].items():
        np.testing.assert_array_equal(got[0][name], values, err_msg=name)


def same_within_rounding(got, expected):
    assert got[1] == expected[1]
    for name, values in expected[0].items():
        np.testing.assert_allclose(got[0][name], values, rtol=1e-9, atol=1e-11, err_msg=name)


def of_one_process(name, run, size):
    """The results of one process, with the batches of all ranks."""
    if "linear_probe" in name:
        # Step by step, row by row and rank by rank; a sampler of one process deals out so.
        steps = [[ids for _, ids in uneven(rank, size)] for rank in range(size)]
        order = [
            int(ids[step][row])
            for step in range(max(map(len, steps)))
            for row in range(BATCH)
            for ids in steps
            if step < len(ids) and row < len(ids[step])
        ]
        return summary(run(batches(order, 7))), summary(run(batches(dealt(0, 1), 7)))
    plain = [batch for rank in range(size) for batch in uneven(rank, size)]
    once, seen = [], set()
    for step in range(len(share(0, size))):
        for rank in range(size):
            x, ids = share(rank, size)[step]
            rows = [i for i, k in enumerate(ids.tolist()) if k not in seen]
            seen.update(ids.tolist())
            once.append((x[rows], ids[rows]))
    return summary(run(plain)), summary(run(once))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")  # batches that are too short
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_make_one_result(size):
    everyone = run_ranks("analysis.test_rank_batches:scenarios", size, limit=400.0)
    if size > 1:
        assert everyone.pop(1) is None
        for told in everyone:
            assert "could not exchange" in told["dying"]
            for says, message in told["unlike"].items():
                assert says in message, message
    for name, run in {**CASES, "compare": compared}.items():
        results = [each[name] for each in everyone]
        plain, once = of_one_process(name, run, size)
        for told in results:
            for what, expected in (("uneven", plain), ("once", once)):
                same_bits(told[what], results[0][what])
                same_within_rounding(told[what], expected)
                counts = [key for key in expected[2] if key.startswith("n_")]
                assert {k: told[what][2][k] for k in counts} == {k: expected[2][k] for k in counts}
                assert told[what][2]["n_ranks"] == size
            twice = 2 if "linear_probe" in name else 1  # train and test
            assert told["once"][2]["n_duplicates"] <= twice * (2 if size == 4 else 0)
        for told in results if size > 1 and name in CASES else []:
            check_errors(name.partition(" ")[0], told)


def check_errors(name, told):
    for what in ("broken", "broken, once"):
        assert "OSError: the disk is gone" in told[what]
    assert f"{name}: " in told["nan"]
    assert "NonFiniteError" in told["nan"]
    assert "weights of " in told["weights"]
    assert f"{name}: all ranks of a group must have the same models" in told["weights"]
    assert f"InputError: {name}: data gave no batch on any rank" in told["no data"]


@pytest.mark.slow
def test_repeated_samples_count_once_in_one_process_too():
    data = batches([*range(36), *range(3, 9), 40, 2, 41, 42, 43, 44])
    for name, run in CASES.items():
        once = run(data, sample_ids=ids_of)
        expected = run([*batches(range(36)), *batches(range(40, 45))])
        all_shots = name == "linear_probe of few"  # found before the first repeated sample
        assert once.attrs["n_duplicates"] == (0 if all_shots else 7)
        same_within_rounding(summary(once), summary(expected))
