"""data_scale is the diagonal of compare, for several models in one pass."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import Counted, Shuffled, inputs, net, of_loops, unchanged
from packages import timm
from repsim import DegenerateWarning, InputError, NonFiniteError, compare, data_scale

quiet = {"progress": False, "all_modules": True}


def vit(seed):
    torch.manual_seed(seed)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=3, embed_dim=24, num_heads=2,
        num_classes=5,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_the_diagonal_of_compare(kernel):
    full, small, large, other = vit(0), vit(1), vit(2), vit(3)
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn(n, 3, 32, 32, generator=generator) for n in (8, 8, 6)]
    options = {"layers": ["blocks.*", "head"], "kernel": kernel, **quiet}
    with unchanged(full, small, large, other):
        result = data_scale(
            {0.3: large, 0.03: small}, full, data, controls={"other seed": other}, **options
        )
    assert result.fraction.values.tolist() == [0.03, 0.3]
    assert result.control.values.tolist() == ["other seed"]
    found = {
        "small": result.sel(fraction=0.03),
        "large": result.sel(fraction=0.3),
        "other": result.sel(control="other seed")[["control_cka", "control_standard_error"]].rename(
            control_cka="cka", control_standard_error="standard_error"
        ),
    }
    for name, model in (("small", small), ("large", large), ("other", other)):
        want = compare(model, full, data=data, **options)
        assert result.layer.values.tolist() == want.layer_x.values.tolist()
        for variable in ("cka", "standard_error"):
            np.testing.assert_allclose(
                found[name][variable], np.diagonal(want[variable]), rtol=0, atol=1e-12
            )
    assert (result.cka[0] != result.cka[1]).all()
    assert result.sizes["layer"] > 50


def test_the_papers_loops():
    full, small, data = net(), net(seed=1), inputs()
    result = data_scale({0.1: small}, full, data, layers=["0", "2"], **quiet)
    for layer, depth in (("0", 1), ("2", 3)):
        with torch.no_grad():
            x, y = ([m.eval()[:depth](b).double().numpy() for b in data] for m in (small, full))
        got = result.cka.sel(fraction=0.1, layer=layer).item()
        assert got == pytest.approx(of_loops(x, y), abs=1e-6)


def test_the_full_model_itself_scores_one():
    full, data = net(), inputs()
    result = data_scale({1.0: full, 0.5: net(seed=1)}, full, data, layers="*", **quiet)
    np.testing.assert_allclose(result.cka.sel(fraction=1.0), 1, atol=1e-12)
    assert (result.cka.sel(fraction=0.5) < 0.999).all()
    np.testing.assert_allclose(result.standard_error.sel(fraction=1.0), 0, atol=1e-9)


def test_one_pass_and_one_forward_of_each():
    full, small, control = (Counted(net(seed=s)) for s in range(3))
    loader = Shuffled(torch.cat(inputs()), 8)
    result = data_scale(
        {0.1: small}, full, loader, layers="inner.*", controls={"seed": control}, **quiet
    )
    assert loader.iterations == 1
    assert [m.forwards for m in (full, small, control)] == [4, 4, 4]
    assert result.attrs["n_samples"] == 32


def test_models_that_share_modules_do_not_record_each_other(monkeypatch):
    made = []
    gram = repsim.kernels.Linear.gram
    monkeypatch.setattr(
        repsim.kernels.Linear, "gram", lambda self, x: made.append(x.shape) or gram(self, x)
    )
    body, data = nn.Linear(6, 5), inputs()
    full, other = nn.Sequential(body, nn.Tanh()), nn.Sequential(body, nn.ReLU())
    result = data_scale({0.1: other}, full, data, layers="*", **quiet)
    assert len(made) == 2 * 2 * len(data)
    want = np.diagonal(compare(other, full, data=data, **quiet).cka)
    np.testing.assert_allclose(result.cka.sel(fraction=0.1), want, atol=1e-12)
    assert want[1] < 0.999


def test_transform_prepare_and_forward():
    full, small, data = net(), net(seed=1), inputs()
    options = {"layers": ["0", "4"], **quiet}
    want = data_scale({0.1: small}, full, [b * 2 for b in data], **options).cka
    got = data_scale({0.1: small}, full, data, prepare=lambda b: b * 2, **options).cka
    np.testing.assert_array_equal(got, want)
    got = data_scale({0.1: small}, full, data, forward=lambda m, b: m(b * 2), **options).cka
    np.testing.assert_array_equal(got, want)
    narrow = {"transform": lambda x: x[:, :2], **options}
    want = np.diagonal(
        compare(small, full, data=data, transform=narrow["transform"], **options).cka
    )
    np.testing.assert_allclose(
        data_scale({0.1: small}, full, data, **narrow).cka[0], want, atol=1e-12
    )


def test_every_batch_counts_and_short_ones_are_reported_once():
    full, small, data = net(), net(seed=1), inputs()
    whole = data_scale({0.1: small}, full, data, layers="*", **quiet).cka
    with pytest.warns(repsim.RepsimWarning, match=r"1 batch\(es\) of fewer than 4") as caught:
        short = data_scale(
            {0.1: small}, full, [*data, inputs(1, 3, seed=5)[0]], layers="*",
            controls={"a": net(seed=2)}, **quiet,
        )  # fmt: skip
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(short.cka, whole)
    assert (short.attrs["n_skipped_batches"], short.attrs["n_skipped_samples"]) == (1, 3)
    assert short.attrs["n_batches"] == 4
    for b in range(4):
        others = [*data[:b], inputs(1, seed=7)[0], *data[b + 1 :]]
        changed = data_scale({0.1: small}, full, others, layers="*", **quiet).cka
        assert np.abs(changed - whole).max() > 1e-4


def test_one_batch_has_no_standard_error():
    with pytest.warns(repsim.RepsimWarning, match="there is one batch") as caught:
        result = data_scale({0.1: net(seed=1)}, net(), inputs(1), layers="*", **quiet)
    assert len(caught) == 1
    assert np.isnan(result.standard_error).all()
    assert not np.isnan(result.cka).any()


def test_a_constant_layer_is_undefined_and_named():
    dead = net(seed=1)
    with torch.no_grad():
        dead[4].weight.zero_()
    with pytest.warns(DegenerateWarning, match=r"4 \(fraction 0.1\)") as caught:
        result = data_scale(
            {0.1: dead, 0.2: net(seed=2)}, net(), inputs(), layers=["0", "4"], **quiet
        )
    assert len(caught) == 1
    assert np.isnan(result.cka).values.tolist() == [[False, True], [False, False]]


def test_other_warnings_are_not_swallowed():
    def forward(model, batch):
        warnings.warn("mine", UserWarning, stacklevel=1)
        return model(batch)

    with pytest.warns(UserWarning, match="mine"):
        data_scale({0.1: net(seed=1)}, net(), inputs(), layers="*", forward=forward, **quiet)


def test_the_models_come_back():
    full, small = net().train(), net(seed=1).train()
    small[1].eval()
    with unchanged(full, small):
        data_scale({0.1: small}, full, inputs(), layers="*", **quiet)
    wrong = [*inputs(), torch.randn(8, 5)]
    with unchanged(full, small), pytest.raises(RuntimeError):
        data_scale({0.1: small}, full, wrong, layers="*", **quiet)


def test_results_and_provenance(tmp_path):
    xarray = pytest.importorskip("xarray")
    result = data_scale(
        {0.1: net(seed=1)}, net(), inputs(), layers="*", controls={"untrained": net(seed=2)},
        name="mlp", **quiet,
    )  # fmt: skip
    assert result.attrs["model"] == "mlp"
    assert result.attrs["kernel"] == "Linear()"
    for name in ("cka", "standard_error", "control_cka", "control_standard_error"):
        assert result[name].attrs["units"] == "1"
        assert result[name].attrs["long_name"]
    assert result.cka.dims == ("fraction", "layer")
    assert result.control_cka.dims == ("control", "layer")
    result.to_netcdf(tmp_path / "scale.nc", engine="scipy")
    with xarray.open_dataset(tmp_path / "scale.nc", engine="scipy") as back:
        np.testing.assert_array_equal(back.cka, result.cka)
    without = data_scale({0.1: net(seed=1)}, net(), inputs(), layers="*", **quiet)
    assert "control_cka" not in without


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_gpus_and_processors():
    """Each model where it lives; the Grams meet on the full model's device."""
    full, small, data = net(), net(seed=1), inputs()
    want = data_scale({0.1: small}, full, data, layers="*", **quiet)
    for a, b in (("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")):
        got = data_scale({0.1: small.to(a)}, full.to(b), data, layers="*", **quiet)
        np.testing.assert_allclose(got.cka, want.cka, atol=1e-4)
    with pytest.raises(NonFiniteError, match=r"(?s)x, batch 1 .*'head \(fraction 0.1\)'"):
        data_scale({0.1: Poisoned(2).cuda()}, Poisoned(0).cuda(), data, layers="*", **quiet)


class Poisoned(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.body, self.head, self.at, self.calls = nn.Linear(6, 4), nn.Tanh(), at, 0

    def forward(self, x):
        self.calls += 1
        return self.head(self.body(x) * (float("nan") if self.calls == self.at else 1.0))


class TestErrors:
    def test_layers_that_differ(self):
        full = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU())
        with pytest.raises(InputError, match=r"(?s)fraction 0.1 has 4, full has 3.*there: \['3'\]"):
            data_scale({0.1: other}, full, inputs(), layers="*", **quiet)
        with pytest.raises(InputError, match=r"(?s)control 'seed' has 3.*missing: \['3'\]"):
            data_scale({0.1: other}, other, inputs(), layers="*", controls={"seed": full}, **quiet)

    @pytest.mark.parametrize(
        ("which", "text"), [("small", "fraction 0.1"), ("control", "control 'c'")]
    )
    def test_not_finite(self, which, text):
        models = {
            name: Poisoned(2 if name == which else 0) for name in ("full", "small", "control")
        }
        pattern = rf"(?s)^data_scale: a layer of a model.*x, batch 1 .*head \({text}\)"
        with pytest.raises(NonFiniteError, match=pattern):
            data_scale(
                {0.1: models["small"]}, models["full"], inputs(), layers="*",
                controls={"c": models["control"]}, **quiet,
            )  # fmt: skip

    def test_the_full_model_not_finite(self):
        with pytest.raises(NonFiniteError, match=r"(?s)y, batch 1 .*'head \(full\)'"):
            data_scale({0.1: Poisoned(0)}, Poisoned(2), inputs(), layers="*", **quiet)

    def test_samples_that_differ(self):
        full, small = net(), net(seed=1)

        def forward(model, batch):
            return model(batch[:5] if model is small else batch)

        with pytest.raises(InputError, match=r"same samples.\n  layer '0': fraction 0.1 n=5"):
            data_scale({0.1: small}, full, inputs(), layers="*", forward=forward, **quiet)

    @pytest.mark.parametrize(
        ("models", "message"),
        [
            ({}, "must map fractions"),
            ([net()], "must map fractions"),
            ({10: net()}, r"in \(0, 1\]"),
            ({0: net()}, r"in \(0, 1\]"),
            ({"10%": net()}, r"in \(0, 1\]"),
            ({True: net()}, r"in \(0, 1\]"),
            ({0.1: "net"}, r"models\[0.1\] must be a torch.nn.Module"),
        ],
    )
    def test_models(self, models, message):
        with pytest.raises(InputError, match=rf"^data_scale: .*{message}"):
            data_scale(models, net(), inputs(), layers="*", **quiet)

    def test_other_arguments(self):
        models = {0.1: net(seed=1)}
        with pytest.raises(InputError, match=r"full must be a torch.nn.Module"):
            data_scale(models, "net", inputs(), layers="*", **quiet)
        with pytest.raises(InputError, match=r"controls must map"):
            data_scale(models, net(), inputs(), layers="*", controls=[net()], **quiet)
        with pytest.raises(InputError, match=r"unknown kernel"):
            data_scale(models, net(), inputs(), layers="*", kernel="cubic", **quiet)
        with pytest.raises(InputError, match=r"no batch"):
            data_scale(models, net(), [], layers="*", **quiet)
