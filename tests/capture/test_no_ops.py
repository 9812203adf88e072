"""Layers that return their input are not layers of a map, unless they are asked for."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from torch import nn

from packages import timm
from repsim import CaptureError, Recorder, compare

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


class InPlace(nn.Module):
    """It returns its argument, changed."""

    def forward(self, x):
        return x.add_(1)


class Pair(nn.Module):
    """A block of transformers: a tuple, whose first tensor is its input."""

    def forward(self, x, *, more=None):
        return x, more


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.same = nn.Linear(4, 4), nn.Dropout(0.5), nn.Identity()
        self.relu, self.own = nn.ReLU(inplace=True), InPlace()
        self.box, self.pair = nn.Sequential(nn.Identity(), nn.Dropout(0.1)), Pair()
        self.flat, self.last = nn.Flatten(), nn.Linear(4, 3)

    def forward(self, x):
        x = self.same(self.drop(self.first(x)))
        x = self.own(self.relu(x))
        return self.last(self.flat(self.pair(x=self.box(x))[0]))


COMPUTING = ["first", "relu", "own", "last"]
ALL = ["first", "drop", "same", "relu", "own", "box.0", "box.1", "box", "pair", "flat", "last"]


def recorded(layers="*", model=None, mode=torch.no_grad, **options):
    model = Net().eval() if model is None else model
    with mode(), Recorder(model, layers, **options) as recorder:
        for _ in range(2):
            model(X.clone())
    return list(recorder)


def test_a_sweep_takes_the_layers_that_compute(caplog):
    caplog.set_level(logging.INFO, "repsim")
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        model = Net().eval()
        assert recorded(model=model, mode=mode) == COMPUTING, mode
        assert recorded("*", model=model, mode=mode, all_modules=True) == ALL, mode
    assert "returned its input unchanged: 'drop', 'same'" in caplog.text


def test_names_types_and_other_patterns_mean_what_they_find():
    assert recorded("drop") == ["drop"]
    assert recorded(["*", "same"]) == ["first", "same", "relu", "own", "last"]
    assert recorded(nn.Dropout) == ["drop", "box.1"]
    assert recorded("box.?") == ["box.0", "box.1"]
    assert recorded(re.compile("s.*")) == ["same"]
    assert recorded(lambda name, module: name.startswith("box")) == ["box.0", "box.1", "box"]


def test_dropout_computes_in_training():
    names = recorded(model=Net().train())
    assert names == ["first", "drop", "relu", "own", "box.1", "box", "last"]


def test_the_error_if_nothing_else_is_left():
    with pytest.raises(CaptureError, match=r"(?s)box.0: returned its input.*Pass all_modules=True"):
        recorded("box.*")


def test_a_value_that_is_asked_for_but_left_out():
    model = Net().eval()
    with torch.no_grad(), Recorder(model) as recorder:
        model(X.clone())
        with pytest.raises(KeyError, match="returned its input unchanged"):
            recorder["drop"]


def test_a_map_of_a_vit_has_no_rows_of_identities():
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, embed_dim=16, num_heads=2,
    )  # fmt: skip
    data = [torch.randn(8, 3, 32, 32) for _ in range(2)]
    names = compare(model, data=data, progress=False).layer_x.values.tolist()
    modules = dict(model.named_modules())
    assert not [n for n in names if isinstance(modules[n], nn.Identity | nn.Dropout)]
    everything = compare(model, data=data, all_modules=True, progress=False).layer_x.values
    assert [n for n in everything if n in names] == names
    assert len(everything) > 1.8 * len(names)


def test_hooks_are_gone_after_the_first_forward():
    model = Net().eval()
    with torch.no_grad(), Recorder(model):
        assert any(module._forward_pre_hooks for module in model.modules() if module is not model)
        model(X.clone())
        assert not [m for m in model.modules() if m is not model and m._forward_pre_hooks]
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
