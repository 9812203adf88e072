"""Models as other tools leave them: offloaded, sharded, lazy, quantised, exported, wrapped."""

from __future__ import annotations

import contextlib
import copy
import threading
import types

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim import CaptureError, InputError, LayerNotFoundError, RepsimWarning, compare

quiet = {"progress": False}


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def data() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 6, generator=generator) for _ in range(3)]


def test_weights_that_accelerate_offloads():
    accelerate = pytest.importorskip("accelerate")
    plain = net()
    model = accelerate.cpu_offload(net(), execution_device=torch.device("cpu"))
    assert next(model.parameters()).is_meta
    found = compare(model, plain, data=data(), **quiet)
    expected = compare(net(), plain, data=data(), **quiet)
    np.testing.assert_array_equal(found.cka, expected.cka)
    assert next(model.parameters()).is_meta


def test_offloaded_weights(tmp_path):
    """As accelerate leaves them: on the meta device between forwards."""
    model, plain = net(), net()
    kept = {name: p.detach().clone() for name, p in model[0].named_parameters()}

    def load(module, _args):
        for name, value in kept.items():
            setattr(module, name, nn.Parameter(value))

    def unload(module, *_):
        for name, value in kept.items():
            setattr(module, name, nn.Parameter(value.to("meta")))

    unload(model[0])
    model[0].register_forward_pre_hook(load)
    model[0].register_forward_hook(unload)
    expected = compare(plain, data=data(), **quiet)
    for device in (None, "cpu"):
        if device is not None:
            model._hf_hook = types.SimpleNamespace(execution_device=device)
        result = compare(model, data=data(), checkpoint=tmp_path / f"{device}", **quiet)
        np.testing.assert_array_equal(result.cka.values, expected.cka.values)
    assert model[0].weight.device.type == "meta"


def test_lazy_modules(tmp_path):
    def lazy():
        return nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d(), nn.ReLU())

    result = compare(lazy(), data=data(), checkpoint=tmp_path / "state", **quiet)
    assert result.layer_x.values.tolist() == ["0", "1", "2"]
    stored = repsim.extract(lazy(), data(), out=tmp_path / "a.zarr", **quiet)
    assert stored["1"].shape == (48, 5)


def test_sharded_modules(tmp_path):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    sharded, plain = net(), net()
    file = tmp_path / "rendezvous"
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=0, world_size=1)
    try:
        fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
        state = tmp_path / "state"
        result = compare(sharded, data=data(), checkpoint=state, **quiet)
        np.testing.assert_array_equal(
            result.cka.values, compare(plain, data=data(), **quiet).cka.values
        )
        stored = repsim.extract(sharded, data(), out=tmp_path / "a.zarr", **quiet)
        assert stored["2"].shape == (48, 3)
        with torch.no_grad():
            sharded[2].weight.mul_(2)  # the digest sees what the shard holds
        with pytest.raises(repsim.StateError, match="weights of model_x"):
            compare(sharded, data=data(), checkpoint=state, **quiet)
    finally:
        dist.destroy_process_group()


class Quantised(nn.Module):
    def forward(self, x):
        return torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)


class Dequantised(nn.Module):
    def forward(self, x):
        return x.dequantize()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_layers_are_dequantised(tmp_path):
    model = nn.Sequential(nn.Linear(6, 5), Quantised(), Dequantised())
    result = compare(model, data=data(), **quiet)
    assert result.layer_x.values.tolist() == ["0", "1", "2"]
    np.testing.assert_allclose(result.cka.sel(layer_x="1", layer_y="2"), 1)
    stored = repsim.extract(model, data(), out=tmp_path / "a.zarr", **quiet)
    np.testing.assert_array_equal(stored["1"].values, stored["2"].values)
    # Weights may be quantised too.
    model.register_buffer("table", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
    compare(model, data=data(), checkpoint=tmp_path / "state", **quiet)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_advice_about_nested_tensors_works_under_a_glob():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    padding = torch.zeros(16, 5, dtype=torch.bool)
    padding[::2, 3:] = True
    batches = [{"src": torch.randn(16, 5, 8), "src_key_padding_mask": padding} for _ in range(2)]
    options = {"mask": None, **quiet}  # padding may count here
    with pytest.raises(CaptureError, match="nothing is left to record") as caught:
        compare(model, data=batches, **options)
    advice = next(line for line in str(caught.value).splitlines() if "select=lambda" in line)
    select = eval(advice.partition("select=")[2])
    with pytest.warns(RepsimWarning, match="self_attn a nested tensor"):
        result = compare(model, data=batches, select=select, **options)
    assert "layers.1" in result.layer_x.values


class TestMessagesSayWhatToDo:
    def test_a_model_without_layers(self):
        with pytest.raises(LayerNotFoundError, match=r"Pass nn\.Sequential\(model\)"):
            compare(nn.Linear(6, 5), data=data(), **quiet)
        result = compare(nn.Sequential(nn.Linear(6, 5)), data=data(), **quiet)
        assert result.layer_x.values.tolist() == ["0"]

    def test_an_exported_module(self):
        program = torch.export.export(
            net().eval(), (data()[0],), dynamic_shapes=({0: torch.export.Dim.AUTO},)
        )
        with pytest.raises(InputError, match=r"as it was before torch\.export"):
            compare(program.module(), data=data(), **quiet)
        with pytest.raises(InputError, match=r"as it was before torch\.export"):
            compare(program, data=data(), **quiet)
        result = compare(torch.export.unflatten(program), data=data(), **quiet)
        np.testing.assert_allclose(
            result.cka.values, compare(net(), data=data(), **quiet).cka.values
        )

    def test_a_wrapper_that_is_no_module(self, tmp_path):
        class Traced:
            def __init__(self):
                self._model = net()

        for run in (
            lambda: compare(Traced(), data=data(), **quiet),
            lambda: repsim.extract(Traced(), data(), out=tmp_path / "a", **quiet),
            lambda: repsim.linear_probe(Traced(), data(), data(), layers="*", **quiet),
            lambda: repsim.data_scale({0.5: Traced()}, net(), data(), layers="*", **quiet),
            lambda: repsim.Recorder(Traced()),
        ):
            with pytest.raises(InputError, match="whose attribute _model is one: pass that"):
                run()

    def test_two_threads_on_one_model(self):
        model, inside, errors = net(), threading.Barrier(2, timeout=30), []

        class Meeting(nn.Module):
            def forward(self, x):
                if len(x) > 3 and not inside.broken:
                    with contextlib.suppress(threading.BrokenBarrierError):
                        inside.wait()
                return x

        model.insert(1, Meeting())

        def run():
            try:
                compare(model, data=data(), **quiet)
            except Exception as error:
                errors.append(error)
            finally:
                inside.abort()

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors
        for error in errors:
            assert isinstance(error, CaptureError)
            assert "copy.deepcopy(model)" in str(error)
        assert not model[0]._forward_hooks
        compare(copy.deepcopy(model), data=data(), **quiet)
