"""Which part of a layer's output is compared."""

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import (
    images,
    inputs,
    net,
    unchanged,
    without_versions,
)
from reference import kernels, minibatch
from repsim import InputError, compare
from repsim.capture import token

quiet = {"progress": False}


def matrix(model_x, model_y, batches, **options):
    return compare(model_x, model_y, data=batches, **quiet, **options).cka


class Tokens(nn.Module):
    """(n, 3, 6, 6) → a map → tokens → one vector per sample."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.map = nn.Conv2d(3, 4, 3, stride=3)
        self.norm = nn.LayerNorm(4)
        self.tokens = nn.Linear(4, 5)
        self.flat = nn.Flatten()
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        x = self.map(x).flatten(2).transpose(1, 2)
        return self.head(self.flat(self.tokens(self.norm(x))))


@pytest.fixture
def tokens():
    generator = torch.Generator().manual_seed(1)
    return Tokens(), [torch.randn(8, 3, 6, 6, generator=generator) for _ in range(3)]


def by_hand(model, data, reduce, layers=None):
    acts = []
    for batch in data:
        kept = {}
        handles = []
        for name, module in model.named_children():
            if layers is None or name in layers:

                def keep(_module, _args, output, name=name, kept=kept):
                    kept[name] = output.clone()

                handles.append(module.register_forward_hook(keep))
        with torch.no_grad():
            model(batch)
        for handle in handles:
            handle.remove()
        acts.append({k: reduce(k, v).double().flatten(1).numpy() for k, v in kept.items()})
    gram = lambda v: kernels.linear(kernels.centred(v))  # noqa: E731
    return np.array(
        [
            [
                minibatch.minibatch_cka([a[x] for a in acts], [a[y] for a in acts], gram)
                for y in acts[0]
            ]
            for x in acts[0]
        ]
    )


def means(_name, v):
    return v.mean((2, 3)) if v.ndim == 4 else v.mean(1) if v.ndim == 3 else v


@pytest.mark.parametrize(
    ("transform", "layers", "reduce"),
    [
        (None, "*", lambda _, v: v),
        ("flatten", "*", lambda _, v: v),
        ("mean", "*", means),
        ("first", ["norm", "tokens"], lambda _, v: v[:, 0]),
        (lambda v: v.flatten(1)[:, ::2], "*", lambda _, v: v.flatten(1)[:, ::2]),
        (token(-1), ["norm", "tokens"], lambda _, v: v[:, -1]),
    ],
    ids=["none", "flatten", "mean", "first", "callable", "token"],
)
@pytest.mark.parametrize("dedupe", [True, False])
def test_transforms(tokens, transform, layers, reduce, dedupe):
    """A view may be another representation: tokens and their flattening have other means."""
    model, data = tokens
    forward = None if dedupe else without_versions
    result = compare(model, data=data, layers=layers, transform=transform, forward=forward, **quiet)
    expected = by_hand(model, data, reduce, None if layers == "*" else layers)
    np.testing.assert_allclose(result.cka.values, expected, atol=1e-6)
    assert "0x" not in result.attrs["transform"]  # an address would differ from run to run


def test_a_transform_that_knows_its_layer(tokens):
    model, data = tokens
    seen = set()

    class Told:
        wants_layer = True

        def __call__(self, tensor, layer, call):
            seen.add((layer, call))
            return tensor.flatten(1)

    compare(model, data=data, transform=Told(), **quiet)
    assert seen == {(name, 0) for name in ("map", "norm", "tokens", "flat", "head")}


@pytest.mark.parametrize("transform", ["clss", 3])
def test_a_transform_that_does_not_exist(transform):
    with pytest.raises(InputError, match="transform"):
        compare(net(), data=inputs(), transform=transform, **quiet)


@pytest.mark.parametrize("layers", ["0", "*"])
def test_a_transform_that_loses_the_samples(layers):
    """Features compared as if they were samples: an error wherever their numbers differ."""
    with pytest.raises(repsim.RepsimError):
        compare(net(), data=inputs(n=9), layers=layers, transform=lambda x: x.mean(0), **quiet)


def test_cls_refuses_layers_without_tokens(tokens):
    model, data = tokens
    with unchanged(model), pytest.raises(repsim.CaptureError, match="cls: layer 'map'"):
        compare(model, data=data, layers=["map"], transform="cls", **quiet)
    with (
        unchanged(model),
        pytest.warns(
            repsim.RepsimWarning, match=r"map \(.*\): first takes tokens(.|\n)*second.*transform_y="
        ),
    ):
        found = compare(model, data=data, transform="first", **quiet)
    assert "map" not in found.layer_x.values
    with pytest.raises(repsim.CaptureError, match="first: layer 'flat'"):
        compare(model, data=data, layers=["tokens", "flat"], transform="first", **quiet)


def normed():
    """Instance norms, by both names, whose means are their biases; only rounding differs."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.GroupNorm(5, 5), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.InstanceNorm2d(4)
    )
    nn.init.normal_(model[1].bias)
    return model.eval()


@pytest.mark.parametrize("measure", ["cka", "mutual_knn", "rsa", "nbs"])
def test_means_that_a_norm_makes_equal(measure):
    with pytest.warns(repsim.DegenerateWarning) as warned:
        batches = images(n=9, size=8)
        found = compare(normed(), data=batches, transform="mean", measure=measure, **quiet)[measure]
    told = " ".join(str(each.message) for each in warned)
    assert "'1'" in told
    assert "'4'" in told
    assert found.sel(layer_x=["1", "4"]).isnull().all()
    assert found.sel(layer_x=["0", "2", "3"], layer_y=["0", "2", "3"]).notnull().all()


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_means_that_a_norm_makes_equal_are_stored_so(tmp_path, dtype):
    """In batches of any size, and after a run that was stopped."""
    model, batches = normed(), list(torch.cat(images(n=9, size=8)).split([4, 9, 1, 4]))
    nn.init.constant_(model[1].bias, 1 + 2**-11)  # between two numbers of float16
    options = {"transform": "mean", "dtype": dtype, **quiet}
    stored = repsim.extract(model, batches, out=tmp_path / "whole.zarr", **options)
    for layer, x in stored.items():
        spread = np.ptp(x.values, axis=0)
        assert (spread == 0).all() if layer in ("1", "4") else (spread > 0.01).all()
    np.testing.assert_allclose(stored["1"][0], model[1].bias.detach(), atol=1e-3)

    repsim.extract(model, batches[:1], out=tmp_path / "parts.zarr", **options)
    parts = repsim.extract(model, batches, out=tmp_path / "parts.zarr", **options)
    assert parts.equals(stored)


def test_means_that_a_norm_makes_equal_are_so_after_a_stop(tmp_path):
    batches = images(n=9, size=8)
    options = {"transform": "mean", "measure": "rsa", "checkpoint": tmp_path / "x.zarr", **quiet}
    for count in (1, 2):
        with pytest.warns(repsim.DegenerateWarning):
            found = compare(normed(), data=batches[:count], **options).rsa
        assert found.sel(layer_x=["1", "4"]).isnull().all()
