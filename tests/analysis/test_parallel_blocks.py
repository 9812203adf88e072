"""Blocks x + attention(x) + MLP(x): both branches of one skip, in any order of the additions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.text_models import language_model, texts
from reference import residual
from repsim import CaptureError, residual_ratios, without_residual

QUIET = {"progress": False}

# family: the container of blocks, attention, MLP, and options of its configuration
FAMILIES = {
    "neox": ("layers", "attention", "mlp", {"use_parallel_residual": True}),
    "gptj": ("h", "attn", "mlp", {}),
    "phi": ("layers", "self_attn", "mlp", {}),
    "falcon": ("h", "self_attention", "mlp", {"parallel_attn": True}),
    "falcon, two norms": ("h", "self_attention", "mlp", {"new_decoder_architecture": True}),
    "cohere": ("layers", "self_attn", "mlp", {}),
}


def built(family):
    blocks, attention, mlp, options = FAMILIES[family]
    model = language_model(family.partition(",")[0], **options)
    return model, blocks, attention, mlp


def first_tensor(value):
    return value[0] if isinstance(value, tuple) else value


def summands(model, block, attention, mlp, batch):
    """The input of a block, the outputs of its branches and its own output, by hooks."""
    kept = {}
    block = model.get_submodule(block)

    def keep(name):
        return lambda _m, _a, out: kept.update({name: first_tensor(out).double().numpy().copy()})

    handles = [
        block.register_forward_pre_hook(
            lambda _m, args, kwargs: kept.update(
                x=(args or tuple(kwargs.values()))[0].double().numpy().copy()
            ),
            with_kwargs=True,
        ),
        block.get_submodule(attention).register_forward_hook(keep("a")),
        block.get_submodule(mlp).register_forward_hook(keep("m")),
        block.register_forward_hook(keep("y")),
    ]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return kept


@pytest.mark.parametrize("family", FAMILIES)
def test_both_branches_against_hooks(family):
    model, blocks, attention, mlp = built(family)
    (batch,) = texts("right", batches=1)
    sites = repsim.residual_sites(model, batch)
    names = [f"{blocks}.{i}.{branch}" for i in range(2) for branch in (attention, mlp)]
    assert [site.label for site in sites] == names
    assert {site.kind for site in sites} == {"parallel"}
    assert [site.block for site in sites] == [f"{blocks}.{i}" for i in range(2) for _ in range(2)]

    result = residual_ratios(model, [batch], **QUIET)
    assert result.site.values.tolist() == names
    assert set(result.kind.values) == {"parallel"}
    kept = summands(model, f"{blocks}.1", attention, mlp, batch)
    np.testing.assert_allclose(kept["x"] + kept["a"] + kept["m"], kept["y"], atol=1e-5)
    real = batch["attention_mask"].bool().numpy()
    for branch, key in ((attention, "a"), (mlp, "m")):
        row = result.sel(site=f"{blocks}.1.{branch}")
        pairs = list(zip(kept["x"][real], kept[key][real], strict=True))
        ratios = [residual.ratio(*pair) for pair in pairs]
        assert row.ratio_spatial.item() == pytest.approx(np.mean(ratios), rel=1e-4), branch
        for token in range(3):  # every text has these
            at = [(kept["x"][i, token], kept[key][i, token]) for i in range(len(real))]
            for name, statistic in (("ratio", residual.ratio), ("cosine", residual.cosine)):
                expected = np.mean([statistic(*pair) for pair in at])
                assert row[name][token].item() == pytest.approx(expected, rel=1e-3, abs=1e-5)
    # The last addition returns the whole sum.
    shares = [
        residual.norm(m) / residual.norm(y)
        for m, y in zip(kept["m"][:, 0], kept["y"][:, 0], strict=True)
    ]
    share = result.branch_share.sel(site=f"{blocks}.1.{mlp}")[0].item()
    assert share == pytest.approx(np.mean(shares), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_the_skip_it_is_the_sum_of_the_branches(family):
    model, blocks, attention, mlp = built(family)
    (batch,) = texts("right", batches=1, shortest=9)
    batch = {"input_ids": batch["input_ids"]}
    with without_residual(model, f"{blocks}.1") as removed:
        kept = summands(model, f"{blocks}.1", attention, mlp, batch)
    a, m, y = (kept[name].astype(np.float32) for name in "amy")
    np.testing.assert_array_equal(y, a + m)  # the same bits
    labels = [f"{blocks}.1.{attention}", f"{blocks}.1.{mlp}"]
    assert removed.sites.labels == tuple(labels[:1] if family == "cohere" else labels)
    with without_residual(model, f"{blocks}.1", branch=attention):
        same = summands(model, f"{blocks}.1", attention, mlp, batch)
    np.testing.assert_array_equal(same["y"], kept["y"])


def test_training_with_dropout():
    """Dropout stands between the sum of the branches and the skip, in Falcon."""
    model, blocks, attention, mlp = built("falcon")
    model.h[0].config.hidden_dropout = 0.5
    batch = {"input_ids": texts("right", batches=1)[0]["input_ids"]}
    sites = {}
    for training in (False, True):
        with repsim.capture.SiteFinder(model.train(training)) as finder, torch.no_grad():
            model(**batch)
        sites[training] = [(site.label, site.kind) for site in finder.sites()]
    assert sites[True] == sites[False]
    assert [label for label, _ in sites[True]][:2] == [
        f"{blocks}.0.{attention}",
        f"{blocks}.0.{mlp}",
    ]


class Block(nn.Module):
    """A sum of three terms, put together in a given way."""

    def __init__(self, add):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        self.b = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4))
        self.add = add

    def forward(self, x):
        return self.add(x, self.a(x), self.b(x))


def in_place(x, a, b):
    b += a
    return x + b


def overwritten(x, a, b):
    x = x.clone()
    x += a
    x += b
    return x


def test_the_order_of_the_additions_does_not_matter():
    ways = {
        "left to right": lambda x, a, b: x + a + b,
        "branches first": lambda x, a, b: x + (a + b),
        "skip last": lambda x, a, b: b + a + x,
        "in place": in_place,
    }
    x, found = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0)), {}
    for way, add in ways.items():
        torch.manual_seed(0)
        model = Block(add)
        found[way] = residual_ratios(model, [x], prefix=0, **QUIET)
        assert found[way].site.values.tolist() == ["a", "b"], way
        assert set(found[way].kind.values) == {"parallel"}, way
        for name in ("ratio", "cosine"):
            np.testing.assert_allclose(
                found[way][name], found["left to right"][name], rtol=1e-5, err_msg=way
            )
        share = found[way].branch_share.sel(site="b")
        np.testing.assert_allclose(
            share, found["left to right"].branch_share.sel(site="b"), rtol=1e-5, err_msg=way
        )
    # A skip that the first addition overwrites is gone: the second ratio is to the running sum.
    torch.manual_seed(0)
    model = Block(overwritten)
    with torch.no_grad():
        a, b = model.a(x), model.b(x)
    result = residual_ratios(model, [x], prefix=0, **QUIET)
    expected = ((x + a).norm(dim=-1) / b.norm(dim=-1)).mean(0)
    np.testing.assert_allclose(result.ratio.sel(site="b"), expected, rtol=1e-5)


def test_branches_that_are_not_parallel():
    class Adapter(nn.Module):
        """x + W h + B A h: a low-rank adapter is part of its branch."""

        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)
            self.one, self.two = nn.Linear(8, 2), nn.Linear(2, 4)

        def forward(self, x):
            h = torch.nn.functional.gelu(self.up(x))
            return x + (self.down(h) + self.two(self.one(h)))

    class Experts(nn.Module):
        """x + mlp(x), where the MLP itself is a sum of two experts."""

        def __init__(self):
            super().__init__()
            self.mlp = Block(lambda _x, a, b: a + b)

        def forward(self, x):
            return x + self.mlp(x)

    for make in (Adapter, Experts):
        (site,) = repsim.residual_sites(make(), torch.randn(2, 3, 4))
        assert site.kind == "identity", make


def test_removing_one_of_two_branches_of_one_skip():
    model, x = nn.Sequential(Block(lambda x, a, b: x + a + b)), torch.randn(2, 4)
    with (
        pytest.raises(CaptureError, match=r"branch 'b' has no skip of its own"),
        without_residual(model, "0", branch="b"),
    ):
        model(x)
    model = nn.Sequential(Block(lambda x, a, b: x + (a + b)))
    for branch in ("a", "0.b"):
        with without_residual(model, "0", branch=branch):
            assert torch.equal(model(x), model[0].a(x) + model[0].b(x))


@pytest.mark.slow
def test_influence_of_parallel_blocks():
    for family in ("neox", "gptj", "phi", "cohere"):
        model, blocks, _, _ = built(family)
        result = repsim.block_influence(model, texts("left"), **QUIET)
        assert result.block.values.tolist() == [f"{blocks}.0", f"{blocks}.1"], family
