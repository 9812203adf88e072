"""Analyses over a process group: 1, 2 and 4 gloo processes equal one process."""

from __future__ import annotations

import os
import warnings
from collections import UserDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler

import repsim
from analysis.rank_cases import (
    ANALYSES,
    OF_TEXTS,
    Convolutions,
    N,
    OneBlockLess,
    TwoStacks,
    batches,
    ids_of,
    images,
    net,
    receptive_fields,
    share,
    small_images,
    summary,
    text_net,
    texts,
    uneven,
)  # fmt: skip
from ranks import run_ranks

KILLED = "residual_ratios"


def refusal(run, *args, **options):
    try:
        run(*args, **options)
    except (repsim.RepsimError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def broken(rank, size):
    """The share of a rank; the last rank raises after its first batch."""
    for number, batch in enumerate(share(rank, size)):
        if rank == size - 1 and number == 1:
            raise OSError("the disk is gone")
        yield batch


def not_finite(rank, size):
    data = share(rank, size)
    if rank == size - 1:
        data[1][0][0, 0, 0, 0] = torch.nan
    return data


def told_by(run, rank, size, group):
    """The results of a rank, and the errors of calls that must fail on all ranks."""
    options = {"group": group}
    once = {**options, "sample_ids": ids_of}
    of_ddp = None if group == "world" else group
    wrapped = DistributedDataParallel(net(), process_group=of_ddp)
    # Its next forward would exchange buffers, and with gradients the order of the parameters.
    wrapped.eval()(images()[:2]).sum().backward()
    told = {
        "uneven": summary(run(uneven(rank, size), **options)),
        "uneven, wrapped": summary(run(uneven(rank, size), model=wrapped, **options)),
        "once": summary(run(share(rank, size), **once)),
    }
    if size > 1:
        told["broken"] = refusal(run, broken(rank, size), **options)
        told["broken, once"] = refusal(run, broken(rank, size), **once)
        told["nan"] = refusal(run, not_finite(rank, size), **options)
        told["weights"] = refusal(run, share(rank, size), model=net(rank), **options)
        told["no data"] = refusal(run, [], **options)
    return told


def made(model):
    torch.manual_seed(0)
    return model().double()


def some_sites(data, **options):
    """The ratios of a model whose second block runs for images of the whole size only."""
    return ANALYSES["residual_ratios"](data, model=made(OneBlockLess), prefix=0, **options)


def with_warnings(data, **options):
    """The influence of two stacks, of which one has no mask in texts of 9 tokens; the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = ANALYSES["block_influence"](
            data, model=made(TwoStacks), sample_ids=ids_of, **options
        )
    return summary(result), [str(each.message) for each in caught]


def of_all_four(rank, size):
    """What is tried on 4 ranks only: texts, images of two sizes, options that differ, no group."""
    group = {"group": "world"}
    odd = rank == size - 1
    sizes = small_images() if odd else share(rank, size)
    told = {
        "texts": {
            name: summary(
                ANALYSES[name](texts(rank, size), model=text_net(), sample_ids=ids_of, **group)
            )
            for name in OF_TEXTS
        },
        "sizes": {
            name: refusal(ANALYSES[name], sizes, **group)
            for name in ("attention_distance", "effective_receptive_field")
        },
        "maps": refusal(ANALYSES["residual_ratios"], sizes, model=Convolutions().double(), **group),
        "blocks": refusal(ANALYSES["block_influence"], sizes, model=made(OneBlockLess), **group),
        "stacks": with_warnings(texts(rank, size), **group),
        "sites": summary(some_sites(sizes, **group)),
        "lengths": {
            name: summary(ANALYSES[name](sizes, **group))
            for name in ("block_influence", "residual_ratios")
        },
        "options": {
            name: refusal(run, share(rank, size), name="a" if odd else "b", **group)
            for name, run in ANALYSES.items()
        },
    }
    mine = [x for x, _ in uneven(rank, size)]
    few = {"data": [torch.cat(mine)] if mine else [], "layers": "blocks.*.mlp", **group}
    for model in (net(), DistributedDataParallel(net())):  # one rank has no batch
        result = repsim.compare(model, progress=False, **few)
        told[type(model).__name__] = result.cka.values
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for run in ANALYSES.values():
            run(share(rank, size), sample_ids=ids_of)
    return {**told, "alone": [str(each.message) for each in caught]}


def scenarios(rank, size):
    """Every analysis over 4 ranks, over one, and over 2 of them, by number of ranks."""
    told = {size: {name: told_by(run, rank, size, "world") for name, run in ANALYSES.items()}}
    told["of four"] = of_all_four(rank, size)
    alone, two = [dist.new_group([each]) for each in range(size)][rank], dist.new_group([0, 1])
    told[1] = {name: told_by(run, 0, 1, alone) for name, run in ANALYSES.items()}
    if rank > 1:
        return told | {"not a member": refusal(ANALYSES[KILLED], share(rank, size), group=two)}
    told["dealt"] = summary(receptive_fields(share(rank, 2), mode="rademacher", group=two))
    told[2] = {name: told_by(run, rank, 2, two) for name, run in ANALYSES.items()}

    def dying():
        for number, batch in enumerate(share(rank, 2)):
            if rank == 1 and number == 1:
                os._exit(7)
            yield batch

    # Last, because the group cannot be used any more.
    return {**told, "dying": refusal(ANALYSES[KILLED], dying(), group=two, sample_ids=ids_of)}


def same_bits(got, expected):
    assert got[1:] == expected[1:]
    for name, values in expected[0].items():
        np.testing.assert_array_equal(got[0][name], values, err_msg=name)


def same_within_rounding(got, expected):
    assert got[1] == expected[1]
    for name, values in expected[0].items():
        np.testing.assert_allclose(got[0][name], values, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.slow
def test_ranks_make_one_result():
    everyone = run_ranks("analysis.test_rank_analyses:scenarios", 4, limit=240.0)
    assert everyone[1] is None  # it died on purpose
    left = [everyone[0], *everyone[2:]]
    assert f"{KILLED}: rank 0 of 2 could not exchange with the others" in left[0]["dying"]
    in_order = batches(list(DistributedSampler(range(N), 1, 0, shuffle=True, seed=3)))
    same_within_rounding(left[0]["dealt"], summary(receptive_fields(in_order, mode="rademacher")))
    check_of_four([told["of four"] for told in left])
    for told in left[1:]:
        assert f"{KILLED}: this rank does not belong to the group" in told["not a member"]
    for name, run in ANALYSES.items():
        plain = summary(run(batches(range(N))))
        once = summary(run(batches(range(N)), sample_ids=ids_of))
        for size in (1, 2, 4):
            results = [told[size][name] for told in left if size in told]
            for told in results:
                for what in ("uneven", "uneven, wrapped", "once"):
                    same_bits(told[what], results[0][what])
                    same_within_rounding(told[what], once if what == "once" else plain)
                    assert told[what][2]["n_samples"] == N
                    assert told[what][2]["n_ranks"] == size
                assert told["once"][2]["n_duplicates"] == (2 if size == 4 else 0)
                if size > 1:
                    check_errors(name, told, is_last=size == 4 and told is results[-1])


def check_of_four(results):
    """Every rank has the same results and errors, and a call without a group warns."""
    whole = texts(0, 1)
    mixed = [batch for rank in range(3) for batch in share(rank, 4)] + small_images()
    for told in results:
        for name in OF_TEXTS:
            same_bits(told["texts"][name], results[0]["texts"][name])
            same_within_rounding(
                told["texts"][name], summary(ANALYSES[name](whole, model=text_net()))
            )
            assert told["texts"][name][2]["n_duplicates"] == 1
        for name, got in told["lengths"].items():
            same_bits(got, results[0]["lengths"][name])
            same_within_rounding(got, summary(ANALYSES[name](mixed)))
        np.testing.assert_array_equal(told["DistributedDataParallel"], told["Transformer"])
        for name, message in told["sizes"].items():
            assert f"InputError: {name}: " in message
            assert "the same grid and heads on all ranks" in message or (
                "the size of the images must be the same on all ranks" in message
            )
        assert "block_influence: the blocks must be the same on all ranks" in told["blocks"]
        got, warned = told["stacks"]  # the texts of one rank are shorter
        assert any("are left out, from these on:\n  beside.0 (" in each for each in warned)
        same_within_rounding(got, with_warnings(whole)[0])
        same_within_rounding(told["sites"], summary(some_sites(mixed)))
        assert "the size of the maps of site 'conv' must be the same on all ranks" in told["maps"]
        for name, message in told["options"].items():
            assert f"{name}: all ranks of a group must have the same" in message
            assert "\n  name: 'b' on ranks 0, 1, 2; 'a' on rank 3" in message
        alone = [each for each in told["alone"] if "the data of this rank alone" in each]
        assert [each.partition(":")[0] for each in alone] == list(ANALYSES)
        assert all("Pass group='world' on every rank" in each for each in alone)


def check_errors(name, told, *, is_last):
    """Of the last rank, which raises, and of others, which name it."""
    for what, error in {
        "broken": "OSError: the disk is gone",
        "broken, once": "OSError: the disk is gone",
        "nan": "NonFiniteError: ",
    }.items():
        if is_last:
            assert told[what].startswith(error)
        else:
            assert f"RankError: {name}: 1 of " in told[what]
            assert error in told[what]
    assert "weights of model: " in told["weights"]
    assert "broadcast\n  the buffers of rank 0 first.\n  for x in" in told["weights"]
    assert f"InputError: {name}: data gave no batch on any rank" in told["no data"]


def test_repeated_samples_count_once_in_one_process_too():
    data = batches([*range(8), 3, 2, 8, 8, 7, 5, 1, 9, 10, *range(3)])
    for run in ANALYSES.values():
        once, expected = (run(each, sample_ids=ids_of) for each in (data, batches(range(11))))
        same_within_rounding(summary(once), summary(expected))
        assert once.attrs["n_samples"] == expected.attrs["n_samples"] == 11
        assert once.attrs["n_duplicates"] == 9


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (lambda x, ids: (tuple(x), ids), "a tuple of 4"),
        (lambda x, ids: (x.transpose(0, 1), ids), "has 3 rows"),
        (lambda x, ids: (x, x.repeat(2, 1, 1, 1), ids), "2 rows of each"),
        (lambda x, ids: (x[0], dict.fromkeys(ids.tolist())), r"are \[3\]"),
        (lambda x, ids: ([x, x, x, x], ids), "a list of 4"),
        (lambda x, ids: ({"x": x, "places": x.transpose(0, 1)}, ids), r"axis 1 of a tensor \(3, 4"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused(batch, says):
    x = torch.ones(4, 3, 8, 8).double()
    data = [batch(x, torch.arange(4)), batch(x, torch.tensor([4, 0, 5, 6]))]
    message = (
        f"(?s)^residual_ratios: batch 1 .*to the 3 others of its 4.*{says}.*leave sample_ids out"
    )
    options = {
        "sample_ids": lambda each: [int(i) for i in each[-1]],
        "forward": lambda model, _: model(x),
    }
    with pytest.raises(repsim.InputError, match=message):
        repsim.residual_ratios(net(), data, progress=False, **options)


def test_invalid_ids_and_groups_are_refused():
    for run in ANALYSES.values():
        with pytest.raises(repsim.InputError, match="one id for each sample"):
            run(batches(range(4)), sample_ids=lambda batch: batch[1][:-1])
        for group in ("all", np.array([1.0, 2.0]), torch.zeros(0), 2):
            with pytest.raises(repsim.InputError, match="'world'"):
                run(batches(range(4)), group=group)
        with pytest.raises(repsim.StateError, match="init_process_group"):
            run(batches(range(4)), group="world")


class Named(nn.Module):
    """The transformer, with other items of a batch as keywords."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x, **_):
        return self.net(x)


def test_batches_of_the_default_collation_with_names_are_cut():
    x = images()
    samples = [(x[i], f"image {i}") for i in [*range(6), 5, 6, 1]]
    loader = torch.utils.data.DataLoader(samples, batch_size=3)
    options = {"sample_ids": lambda batch: batch[1], "progress": False}
    once = repsim.residual_ratios(net(), loader, **options)
    expected = repsim.residual_ratios(net(), batches(range(7)), progress=False)
    same_within_rounding(summary(once), summary(expected))


def test_lists_and_mappings_are_cut():
    # As of the default collation: a list of three, and here of three samples each.
    lists = [[x, ids, ids] for x, ids in batches([*range(6), 6, 5, 1])]
    keyed = [{"x": x, "names": [f"{i}" for i in ids.tolist()]} for x, ids, _ in lists]
    expected = repsim.residual_ratios(net(), batches(range(7)), progress=False)
    once = repsim.residual_ratios(net(), lists, sample_ids=ids_of, progress=False)
    same_within_rounding(summary(once), summary(expected))
    names = {"sample_ids": lambda batch: batch["names"], "progress": False}
    by_name = repsim.residual_ratios(Named(), keyed, **names)
    np.testing.assert_allclose(by_name.ratio, expected.ratio, rtol=1e-9)

    class Encoding(UserDict):  # as BatchEncoding of transformers
        def __getattr__(self, name):
            try:
                return self.data[name]
            except KeyError:
                raise AttributeError(name) from None

    encoded = [Encoding(each) for each in keyed]
    by_attribute = repsim.residual_ratios(net(), encoded, prepare=lambda each: each.x, **names)
    np.testing.assert_allclose(by_attribute.ratio, expected.ratio, rtol=1e-9)

    @dataclass
    class Sample:
        x: torch.Tensor
        number: torch.Tensor

    objects = [Sample(x, ids) for x, ids, _ in lists]
    options = {"prepare": lambda each: each.x, "sample_ids": lambda each: each.number}
    of_objects = repsim.residual_ratios(net(), objects, progress=False, **options)
    np.testing.assert_allclose(of_objects.ratio, expected.ratio, rtol=1e-9)
