"""compare(precision=), the order of features in memory, and no reading on an accelerator."""

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from accelerator import Accelerator, Far, moved
from analysis.plain import agrees, reference
from repsim import compare
from repsim.kernels import RBF, Linear

quiet = {"progress": False}


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.Identity(),
        nn.Conv2d(8, 4, 3, stride=2),
        nn.Flatten(),
        nn.Linear(4 * 5 * 5, 10),
    ).eval()


def images(count=3, n=8):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 12, 12, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(("precision", "most"), [("tf32", 1e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_precision_is_used_and_reported(kernel, precision, most):
    plain = compare(net(), net(1), data=images(), kernel=kernel, **quiet)
    rounded = compare(net(), net(1), data=images(), kernel=kernel, precision=precision, **quiet)
    assert plain.attrs["precision"] == "highest"
    assert rounded.attrs["precision"] == precision
    assert f"precision='{precision}'" in rounded.attrs["kernel"]
    assert 0 < float(abs(rounded.cka - plain.cka).max()) < most


def test_the_kernel_may_bring_its_own():
    own = compare(net(), data=images(), kernel=Linear("bf16"), **quiet)
    asked = compare(net(), data=images(), precision="bf16", **quiet)
    overruled = compare(net(), data=images(), kernel=Linear("bf16"), precision="highest", **quiet)
    plain = compare(net(), data=images(), **quiet)
    assert own.identical(asked)
    assert overruled.identical(plain)
    assert not np.array_equal(own.cka, plain.cka)


def test_kernels_without_a_precision_refuse_one():
    for kernel in ("cosine", "polynomial"):
        with pytest.raises(repsim.InputError, match="compare: this kernel takes no precision"):
            compare(net(), data=images(), kernel=kernel, precision="bf16", **quiet)
        compare(net(), data=images(), kernel=kernel, precision="highest", **quiet)
    with pytest.raises(repsim.InputError, match="compare: unknown precision"):
        compare(net(), data=images(), precision="fp8", **quiet)


def test_a_checkpoint_is_of_one_precision(tmp_path):
    file = tmp_path / "run.npz"
    compare(net(), data=images(), precision="bf16", checkpoint=file, **quiet)
    with pytest.raises(repsim.StateError, match=r"bf16"):
        compare(net(), data=images(), checkpoint=file, **quiet)
    again = compare(net(), data=images(), precision="bf16", checkpoint=file, **quiet)
    assert again.identical(compare(net(), data=images(), precision="bf16", **quiet))


@pytest.mark.parametrize("kernel", [Linear("bf16"), RBF(precision="tf32")], ids=repr)
def test_a_state_keeps_the_precision(kernel):
    acc = repsim.MinibatchCKA(kernel=kernel)
    x = np.random.default_rng(0).standard_normal((8, 5))
    acc.update({"a": x})
    assert repsim.MinibatchCKA.from_state_dict(acc.state_dict()).kernel == kernel
    with pytest.raises(repsim.StateError, match="precision"):
        acc.merge(repsim.MinibatchCKA(kernel=type(kernel)()))


def test_a_state_from_before_there_was_a_choice():
    acc = repsim.MinibatchCKA()
    acc.update({"a": np.random.default_rng(0).standard_normal((8, 5))})
    state = acc.state_dict()
    assert state["kernel"] == {"name": "Linear", "parameters": {}}
    assert repsim.MinibatchCKA.from_state_dict(state, kernel=Linear()).kernel == Linear()


# Channels last


def last(batches):
    return [batch.to(memory_format=torch.channels_last) for batch in batches]


def copies(monkeypatch):
    """Where the features that reach the kernel lie in memory."""
    seen = []
    original = Linear.gram

    def gram(self, x):
        seen.append(x.data_ptr())
        return original(self, x)

    monkeypatch.setattr(Linear, "gram", gram)
    return seen


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_channels_last_changes_no_value(kernel):
    plain = compare(net(), net(1), data=images(), kernel=kernel, **quiet)
    model_x, model_y = (m.to(memory_format=torch.channels_last) for m in (net(), net(1)))
    other = compare(model_x, model_y, data=last(images()), kernel=kernel, **quiet)
    assert other.layer_x.equals(plain.layer_x)
    np.testing.assert_allclose(other.cka, plain.cka, atol=2e-6)
    if kernel == "linear":
        agrees(other, *reference(model_x, model_y, last(images())))


def test_channels_last_copies_nothing_and_shares(monkeypatch):
    model = net().to(memory_format=torch.channels_last)
    outputs = []
    for layer in model[:5]:
        layer.register_forward_hook(lambda _m, _a, out: outputs.append(out))
    seen = copies(monkeypatch)
    compare(model, data=last(images(2)), **quiet)
    outputs = outputs[2 * 5 :]  # of the batches, not of the 2 and 3 samples before
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in outputs)
    assert set(seen) >= {outputs[0].data_ptr(), outputs[4].data_ptr()}
    # conv, norm, relu (in place: another version), conv, flatten (a copy), linear; no identity
    assert len(seen) == 2 * 6


def test_a_permutation_shares_its_gram(monkeypatch):
    class Permute(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Permute(), nn.Identity()).eval()
    seen = copies(monkeypatch)
    result = compare(model, data=images(2), **quiet)
    assert len(seen) == 2
    np.testing.assert_allclose(result.cka, 1, atol=1e-6)


def test_a_users_kernel_gets_features_in_their_order():
    class First:
        """Only the first half of the features."""

        def gram(self, x):
            half = x[:, : x.shape[1] // 2]
            return half @ half.T

        def fit(self, x):
            return self

    plain = compare(net(), net(1), data=images(), kernel=First(), **quiet)
    model_x, model_y = (m.to(memory_format=torch.channels_last) for m in (net(), net(1)))
    other = compare(model_x, model_y, data=last(images()), kernel=First(), **quiet)
    np.testing.assert_allclose(other.cka, plain.cka, atol=1e-4)


def test_transforms_get_the_unchanged_tensor():
    plain = compare(net(), net(1), data=images(), transform=lambda x: x[:, :2], **quiet)
    model_x, model_y = (m.to(memory_format=torch.channels_last) for m in (net(), net(1)))
    other = compare(model_x, model_y, data=last(images()), transform=lambda x: x[:, :2], **quiet)
    np.testing.assert_allclose(other.cka, plain.cka, atol=2e-6)


def test_a_reducer_does_not_take_a_permutation_for_the_same():
    class Permute(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(nn.Conv2d(3, 10, 3), Permute()).eval()
    options = {"data": images(2), "transform": lambda x: x.mean(1), **quiet}
    assert float(compare(model, **options).cka[0, 1]) < 0.999


# Nothing is read back during a batch


def test_no_batch_reads_a_value(monkeypatch):
    """On an accelerator played by the processor, from the second batch on."""
    reads = []

    def data():
        for batch in images(6):
            reads.append(list(accelerator.reads))
            accelerator.reads.clear()
            yield Far(batch)

    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=None: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: None)
    with Accelerator() as accelerator:
        compare(moved(net()), moved(net(1)), data=data(), **quiet)
    assert reads[2:] == [[]] * 4
    assert accelerator.reads  # the sums are read at the end


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["highest", "tf32", "bf16"])
def test_cuda_does_not_synchronise(precision):
    acc = repsim.MinibatchCKA(kernel=Linear(precision))
    batches = [{"a": x.cuda().flatten(1), "b": x.cuda().mean(1).flatten(1)} for x in images()]
    acc.update(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[1:]:
            acc.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(acc.compute()).all()
