"""On an accelerator no value is read back during an update; compute reports what was wrong.

``accelerator.py`` plays the accelerator: tensors that are not on the host, and every read counted.
"""

import numpy as np
import pytest

import repsim
from accelerator import Accelerator, Far
from repsim import MinibatchCKA
from streaming.batches import accumulate, data, named, split

torch = pytest.importorskip("torch")


@pytest.fixture
def accelerator():
    with Accelerator() as mode:
        yield mode


def batches(count):
    xs, ys = (split(side, [8] * count) for side in data(8 * count, dtype="float32"))
    return tuple([named(torch.tensor, b) for b in side] for side in (xs, ys))


def far_batches(count):
    """The same batches on the accelerator."""
    return tuple([named(Far, batch) for batch in side] for side in batches(count))


def test_the_counter_counts(accelerator):
    x = Far(torch.ones(3))
    assert torch.zeros(3, device=x.device).device == x.device
    assert x.device.type == "cuda"
    assert accelerator.reads == []
    bool(x.sum() > 2)
    x.sum().item()
    x.cpu()
    x.to("cpu")
    x.tolist()
    float(x[0])
    x[x > 0]
    assert {"__bool__", "item", "cpu", "to", "tolist", "__float__"} <= set(accelerator.reads)
    assert any("aten.index" in name for name in accelerator.reads)


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "cosine", "rbf", "laplacian"])
@pytest.mark.parametrize("two", [True, False], ids=["two models", "one model"])
def test_no_update_reads_a_value(accelerator, kernel, two):
    xs, ys = far_batches(4)
    acc = MinibatchCKA(kernel=kernel)
    if kernel in ("rbf", "laplacian"):  # the pilot batch tells whether its median is zero
        acc.update(xs[0], ys[0] if two else None)
    accelerator.reads.clear()
    for x, y in zip(xs[acc.n_batches :], ys[acc.n_batches :], strict=True):
        acc.update(x, y if two else None)
    assert accelerator.reads == []
    near = batches(4)[: 2 if two else 1]
    expected = accumulate(*near, kernel=kernel, array=lambda t: t.numpy())
    np.testing.assert_allclose(acc.compute().values, expected.compute().values, rtol=1e-4)


def test_no_update_of_grams_reads_a_value(accelerator):
    xs, ys = ([{k: v @ v.T for k, v in b.items()} for b in side] for side in far_batches(4))
    for batch in xs:
        batch["again"] = batch["conv"]
    acc = MinibatchCKA()
    for x, y in zip(xs, ys, strict=True):
        acc.update_grams(x, y)
    assert accelerator.reads == []


def test_no_merge_reads_a_value(accelerator):
    xs, ys = far_batches(2)
    a, b = MinibatchCKA(), MinibatchCKA()
    a.update(xs[0], ys[0])
    b.update(xs[1], ys[1])
    a.merge(b)
    assert accelerator.reads == []


@pytest.mark.parametrize("kernel", ["linear", "polynomial", "rbf", "laplacian"])
@pytest.mark.parametrize("side", ["x", "y"])
def test_compute_reports_non_finite_layers(accelerator, kernel, side):
    xs, ys = far_batches(5)
    bad = (xs if side == "x" else ys)[2]
    layer = "norm" if side == "x" else "block"
    bad[layer].near[1, 0] = float("nan")
    acc = MinibatchCKA(kernel=kernel)
    for x, y in zip(xs, ys, strict=True):
        acc.update(x, y)
    with pytest.raises(repsim.NonFiniteError) as caught:
        acc.compute()
    assert "MinibatchCKA.compute" in str(caught.value)
    assert f"{side}, batch 2 (counted from 0), 1 layer(s): '{layer}'" in str(caught.value)
    partial = caught.value.partial.cka
    nan = np.zeros((3, 2), dtype=bool)
    if side == "x":
        nan[1] = True
    else:
        nan[:, 1] = True
    np.testing.assert_array_equal(np.isnan(partial.values), nan)


def test_the_first_bad_batch_is_remembered_over_merging(accelerator):
    xs, _ = far_batches(4)
    a, b = MinibatchCKA(), MinibatchCKA()
    for batch in xs[:3]:
        a.update(batch)
    b.update(xs[3])
    xs[0]["fc"].near[0, 0] = float("inf")
    b.update(xs[0])
    with pytest.raises(repsim.NonFiniteError, match="batch 4 .*'fc'"):
        a.merge(b).compute()


@pytest.mark.parametrize("bad", [False, True], ids=["finite", "not finite"])
def test_a_state_continues_on_an_accelerator(accelerator, bad):
    """After resuming a checkpoint, its sums are on the host and new batches on the accelerator."""
    xs, ys = far_batches(4)
    if bad:
        xs[1]["fc"].near[0, 0] = float("nan")
    began = MinibatchCKA()
    for b in range(2):
        began.update(xs[b], ys[b])
    resumed = MinibatchCKA.from_state_dict(began.state_dict())
    for b in range(2, 4):
        resumed.update(xs[b], ys[b])
    merged = MinibatchCKA.from_state_dict(began.state_dict())
    rest = MinibatchCKA()
    for b in range(2, 4):
        rest.update(xs[b], ys[b])
    merged.merge(rest)
    for acc in (resumed, merged):
        assert acc.n_batches == 4
        if bad:
            with pytest.raises(repsim.NonFiniteError, match="batch 1 .*'fc'"):
                acc.compute()
        else:
            acc.compute()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_cuda_does_not_synchronise(kernel):
    xs, ys = batches(4)
    xs, ys = ([{k: v.cuda() for k, v in b.items()} for b in side] for side in (xs, ys))
    acc = MinibatchCKA(kernel=kernel)
    acc.update(xs[0], ys[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for b in range(1, 4):
            acc.update(xs[b], ys[b])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = accumulate(xs, ys, kernel, lambda t: t.cpu().numpy()).compute()
    np.testing.assert_allclose(acc.compute().values, expected.values, rtol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_does_not_synchronise_with_grams():
    grams = [
        [{name: x.cuda() @ x.cuda().T for name, x in batch.items()} for batch in side]
        for side in batches(4)
    ]
    for side in grams:
        for batch in side:
            batch["again"] = next(iter(batch.values()))
    acc = MinibatchCKA()
    acc.update_grams(grams[0][0], grams[1][0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        for x, y in zip(*(side[1:] for side in grams), strict=True):
            acc.update_grams(x, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.isfinite(acc.compute()).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_and_cpu_batches_do_not_mix():
    xs, ys = batches(1)
    with pytest.raises(repsim.ArrayTypeError, match="one device"):
        MinibatchCKA().update(xs[0], {k: v.cuda() for k, v in ys[0].items()})


def test_short_batches_around_the_bad_one_do_not_shift_its_number(accelerator):
    """As on the host, a short batch before the bad one counts, and a short last one does not."""
    xs, _ = far_batches(3)
    xs[1]["fc"].near[0, 0] = float("nan")
    short = {name: x[:2] for name, x in xs[0].items()}
    acc = MinibatchCKA()
    for batch in (short, xs[0], xs[1], short, xs[2], short):
        acc.update(batch)
    with pytest.raises(repsim.NonFiniteError, match="x, batch 2 .*'fc'"):
        acc.compute()
