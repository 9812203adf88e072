"""Forwards do not meet what others left behind: changed inputs, caches, states, scripted parts."""

from __future__ import annotations

import copy
import threading
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import inputs
from repsim import CaptureError, InputError

QUIET = {"progress": False}


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return x + self.fc(x).relu()


class Net(nn.Module):
    """Blocks on an input that is normalised, in place or not."""

    def __init__(self, *, in_place):
        super().__init__()
        self.blocks, self.in_place = nn.Sequential(Block(6), Block(6)), in_place

    def forward(self, x, cache=None):
        if cache is not None:
            x = x + cache.total(x)
        return self.blocks(x.sub_(1).div_(2) if self.in_place else (x - 1) / 2)


class Cache:
    """What one sample at a time leaves for the next forward, as a cache of keys and values does."""

    def __init__(self):
        self.seen = []

    def total(self, x):
        total = sum(self.seen, torch.zeros_like(x))
        self.seen.append(x)
        return total


def two_nets():
    torch.manual_seed(0)
    plain, other = Net(in_place=False), Net(in_place=False)
    changing = copy.deepcopy(plain)
    changing.in_place = True
    return plain, changing, other


def tokens(n_batches=2):
    return [x[:, None].expand(-1, 3, -1) + torch.arange(3.0)[:, None] for x in inputs(n_batches)]


ANALYSES = {
    "compare": lambda net, other, data: repsim.compare(net, other, data=data, **QUIET).cka,
    "passes": lambda net, _, data: repsim.compare(net, data=data, passes=2, **QUIET).cka,
    "influence": lambda net, _, data: repsim.block_influence(net, data, **QUIET).influence,
    "data_scale": lambda net, other, data: (
        repsim.data_scale({0.5: net}, other, data, layers="blocks.*", **QUIET).cka
    ),
    "stitch": lambda net, other, data: repsim.stitch(
        net, "blocks.0", other, "blocks.0", data, lambda b: torch.arange(len(b)) % 3, **QUIET
    ).to_array(),
}


@pytest.mark.filterwarnings("ignore::repsim.RepsimWarning")
def test_a_model_that_changes_its_input_in_place():
    plain, changing, other = two_nets()
    for name, analysis in ANALYSES.items():
        data = inputs()
        expected, found = analysis(plain, other, inputs()), analysis(changing, other, data)
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=name)
        assert all(torch.equal(a, b) for a, b in zip(data, inputs(), strict=True)), name


def test_a_batch_is_copied_once_for_each_forward():
    """A second copy, in main memory, is not pinned, so the upload of a batch would wait."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Copies(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func is torch.ops.aten.clone.default and args[0].shape == (7, 6)
            return func(*args, **(kwargs or {}))

    net, _, other = two_nets()
    counts = []
    for n in (2, 4):
        data = [torch.randn(7, 6) for _ in range(n)]
        with Copies() as copies:
            repsim.compare(net, other, data=data, layers="blocks", **QUIET)
        counts.append(copies.count)
    assert counts[1] - counts[0] == 2 * 2  # two models, two more batches


def test_a_cache_in_the_batch_is_that_of_the_batch():
    net = two_nets()[0]
    data = [{"x": x, "cache": Cache()} for x in inputs()]
    expected = repsim.block_influence(net, inputs(), **QUIET)
    found = repsim.block_influence(net, data, **QUIET)
    np.testing.assert_allclose(found.influence, expected.influence, rtol=1e-6)
    expected = repsim.compare(net, data=inputs(), **QUIET)
    found = repsim.compare(net, data=data, **QUIET)
    np.testing.assert_allclose(found.cka, expected.cka, atol=1e-7)
    assert all(batch["cache"].seen == [] for batch in data)


def test_objects_in_the_batch_that_refuse_to_be_copied():
    """What refuses is shared with the model; the tensors beside it are not."""

    class Shared(Cache):
        def __init__(self, x):
            super().__init__()
            self.lock, self.itself, self.x = threading.Lock(), self, x
            self.rows, self.counts = (row for row in x), np.zeros(2)

        def total(self, x):
            with self.lock:
                self.itself.x.sub_(1)
                self.counts += 1
            return super().total(x)

    net, data = two_nets()[0], inputs()
    batches = [{"x": x, "cache": Shared(x.clone())} for x in data]
    expected = repsim.block_influence(net, data, **QUIET).influence
    found = repsim.block_influence(net, batches, **QUIET).influence
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for batch, x in zip(batches, data, strict=True):
        assert torch.equal(batch["cache"].x, x)
        assert not batch["cache"].counts.any()
        assert batch["cache"].seen == []


class Accumulating(nn.Module):
    """Adds the rows of the batch before, which it keeps in a dict, and counts them in a list."""

    def __init__(self):
        super().__init__()
        self.fc, self.kept, self.rows = nn.Linear(6, 6), {}, []

    def forward(self, x):
        y = self.fc(x) + self.kept.get("rows", 0.0)
        self.kept["rows"] = y.detach()
        self.rows.append(len(y))
        return y


def test_a_state_in_a_dict_or_a_list_is_that_of_the_batches():
    model = nn.Sequential(Accumulating(), nn.ReLU())
    repsim.compare(model, data=inputs(3), **QUIET)
    assert model[0].rows == [8, 8, 8]
    assert len(model[0].kept["rows"]) == 8


class Remembering(nn.Module):
    """Each batch meets the mean of the batch before."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(6), Block(6))
        self.register_buffer("memory", torch.zeros(6))

    def forward(self, x):
        x = self.blocks(x + self.memory)
        self.memory.copy_(5 * x.mean((0, 1)))
        return x


def test_a_model_with_a_state_meets_each_batch_once(tmp_path):
    torch.manual_seed(0)
    model, data, held = Remembering(), tokens(), []
    with torch.no_grad():
        one = copy.deepcopy(model)
        for x in data:
            stream = [x + one.memory]
            stream += [stream[0] + one.blocks[0].fc(stream[0]).relu()]
            held.append([*stream, one(x)])
    first, second, third = (torch.cat(parts) for parts in zip(*held, strict=True))
    influence = repsim.block_influence(copy.deepcopy(model), data, **QUIET).influence
    for i, (x, y) in enumerate([(first, second), (second, third)]):
        cosine = torch.cosine_similarity(x.double(), y.double(), dim=-1)
        assert influence[i].item() == pytest.approx(1 - cosine.mean().item(), rel=1e-5)
    other = copy.deepcopy(model)
    del other.memory
    other.memory = torch.zeros(6)  # an attribute, no buffer
    other.register_buffer("graph", torch.eye(2).to_sparse())
    again = repsim.block_influence(other, data, **QUIET).influence
    np.testing.assert_array_equal(again, influence)
    store = repsim.extract(
        copy.deepcopy(model), data, "blocks.0", out=tmp_path / "run", samples="tokens", **QUIET
    )
    np.testing.assert_allclose(np.asarray(store["blocks.0"]), second.flatten(0, 1), atol=1e-5)
    found = repsim.compare(copy.deepcopy(model), data=data, samples="tokens", pairs="all", **QUIET)
    accumulator = repsim.MinibatchCKA()
    for _, x, y in held:
        accumulator.update({"x": x.flatten(0, 1)}, {"y": y.flatten(0, 1)})
    expected = accumulator.compute().item()
    assert found.cka.sel(layer_x="blocks.0", layer_y="blocks").item() == pytest.approx(expected)


class Eye(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        return x + self.attention(x, x, x)[0]


def test_forwards_of_the_data_and_of_functions_of_the_caller_do_not_count():
    torch.manual_seed(0)
    model, data = Eye().eval(), [torch.randn(8, 3, 16, 16) for _ in range(3)]

    def prepared(x):
        model(3 * x)
        return x

    for analysis in (
        lambda data, f: repsim.compare(model, data=data, prepare_x=f, **QUIET).cka,
        lambda data, f: repsim.attention_distance(model, data, prepare=f, **QUIET).distance,
        lambda data, f: repsim.residual_ratios(model, data, prepare=f, **QUIET).ratio,
        lambda data, f: repsim.token_localization(model, data, "attention", prepare=f, **QUIET).cka,
    ):
        expected = analysis(data, None)
        for found in (analysis(data, prepared), analysis(map(prepared, data), None)):
            assert found.equals(expected)


def test_the_default_device_of_the_caller_does_not_matter():
    torch.manual_seed(0)
    model, data = Eye().eval(), [torch.randn(12, 3, 16, 16) for _ in range(2)]
    labelled = [(x, torch.arange(12) % 2) for x in data]
    named = {"layers": ["attention"], **QUIET}
    for analysis in (
        lambda: repsim.compare(model, data=data, samples="tokens", max_samples=20, **named),
        lambda: repsim.attention_distance(model, data, **QUIET),
        lambda: repsim.effective_receptive_field(model, data, n_probes=2, **named),
        lambda: repsim.linear_probe(model, labelled, labelled, tokens="mean", **named),
        lambda: repsim.stitch(model, "patches", model, "attention", data, **QUIET),
    ):
        expected = analysis()
        with torch.device("meta"):
            assert analysis().identical(expected)


class Counting(nn.Module):
    """Adds how many forwards came before, in buffers that are replaced and written to."""

    def __init__(self):
        super().__init__()
        self.register_buffer("replaced", torch.zeros(1))
        self.register_buffer("written", torch.zeros(1))

    def forward(self, x):
        out = x + self.replaced + self.written
        self.replaced = self.replaced + 1
        self.written.add_(1)
        return out


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)


def test_scripted_parts_among_ordinary_modules():
    torch.manual_seed(0)
    parts = [nn.Linear(6, 6), Counting(), Block(6), Block(6)]
    plain = nn.Sequential(*copy.deepcopy(parts))
    model = nn.Sequential(parts[0], scripted(parts[1]), *parts[2:])
    for analysis in (
        lambda net: repsim.compare(net, data=inputs(), layers=["0", "3"], **QUIET).cka,
        lambda net: repsim.block_influence(net, inputs(), blocks=["2", "3"], **QUIET).influence,
    ):
        expected, found = analysis(copy.deepcopy(plain)), analysis(copy.deepcopy(model))
        np.testing.assert_allclose(found, expected, atol=1e-7)
    with pytest.raises(CaptureError, match="scripted or traced"):
        repsim.compare(model, data=inputs(), **QUIET)


class Doubling(nn.Module):
    """Multiplies by numbers that it keeps in attributes, twice the number of the forward before."""

    def __init__(self):
        super().__init__()
        self.calls, self.factor, self.last = 0, 1.0, torch.zeros(1)

    def forward(self, x):
        out = x * self.factor + self.last * self.calls
        self.calls += 1
        self.factor *= 2.0
        self.last = self.last + 1
        return out


def test_a_scripted_part_keeps_the_numbers_of_its_attributes():
    torch.manual_seed(0)
    parts = [nn.Linear(6, 6), Doubling(), Block(6), Block(6)]
    plain = nn.Sequential(*copy.deepcopy(parts))
    model = nn.Sequential(parts[0], scripted(parts[1]), *parts[2:])
    expected = repsim.block_influence(plain, inputs(), blocks=["2", "3"], **QUIET).influence
    found = repsim.block_influence(model, inputs(), blocks=["2", "3"], **QUIET).influence
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert model[1].calls == plain[1].calls == len(inputs())


def test_a_model_made_in_inference_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), Block(6), Block(6))
    with torch.inference_mode():
        made = copy.deepcopy(model)
        counting = nn.Sequential(Counting(), copy.deepcopy(model))
    for analysis in (
        lambda net: repsim.compare(net, data=inputs(), **QUIET).cka,
        lambda net: repsim.block_influence(net, inputs(), **QUIET).influence,
    ):
        np.testing.assert_array_equal(analysis(made), analysis(copy.deepcopy(model)))
    with torch.inference_mode():
        repsim.block_influence(counting, inputs(), **QUIET)
    assert counting[0].written.item() == counting[0].replaced.item() == len(inputs())


def test_weights_and_data_without_values_are_named():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3, bias=False).to("meta"))
    for net, data, message in (
        (model, inputs(), r"weights of Sequential .* '0.1.weight'"),
        (nn.Sequential(model[1]), inputs(), "weights of Sequential"),
        (nn.Linear(6, 3), [x.to("meta") for x in inputs()], "a tensor of the batch is on the meta"),
    ):
        with pytest.raises(InputError, match=f"(?s)compare: {message}"):
            repsim.compare(nn.Sequential(net), data=data, **QUIET)
        with pytest.raises(InputError, match="(?s)block_influence: .* meta device"):
            repsim.block_influence(nn.Sequential(net), data, blocks="0", **QUIET)
