"""compare(checkpoint=...): killed and interrupted runs resume to the same bits, or are refused."""

from __future__ import annotations

import itertools
import os
import signal
import time
from dataclasses import make_dataclass

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim.storage import uninterrupted


def net(seed=0, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3))


def data(batches=7, n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 5, generator=generator) for _ in range(batches)]


def stopping(batches, after, error):
    """The batches, and an error in place of one."""
    for i, batch in enumerate(batches):
        if i == after:
            raise error
        yield batch


class Counting(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


def same(a, b):
    np.testing.assert_array_equal(a.cka.values, b.cka.values)
    np.testing.assert_array_equal(a.standard_error.values, b.standard_error.values)
    assert a.layer_x.values.tolist() == b.layer_x.values.tolist()
    for key in ("n_samples", "n_batches", "n_skipped_batches", "passes"):
        assert a.attrs[key] == b.attrs[key]


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("after", [1, 4])
def test_a_failed_run_resumes_to_the_same_bits(tmp_path, kernel, after):
    file, options = tmp_path / "run.npz", {"kernel": kernel, "progress": False}
    whole = repsim.compare(net(), net(1), data(), **options)
    with pytest.raises(OSError, match="disk"):
        repsim.compare(
            net(), net(1), stopping(data(), after, OSError("disk")), checkpoint=file, **options
        )
    model = Counting(net())
    # The layers of a wrapper have other names, so the same model is used, once counting forwards.
    same(repsim.compare(net(), net(1), data(), checkpoint=file, **options), whole)
    assert "interrupted" not in whole.attrs
    with pytest.raises(repsim.StateError, match="model_x"):
        repsim.compare(model, net(1), data(), checkpoint=file, **options)


def test_counted_batches_run_through_no_model(tmp_path):
    model, file = Counting(net()), tmp_path / "run.npz"
    with pytest.raises(OSError, match="loader"):
        repsim.compare(
            model, data=stopping(data(), 5, OSError("loader")), checkpoint=file, progress=False
        )
    assert model.calls == 5
    whole = repsim.compare(model, data=data(), checkpoint=file, progress=False)
    assert model.calls == 7
    assert whole.attrs["n_batches"] == 7
    same(repsim.compare(model, data=data(), checkpoint=file, progress=False), whole)
    assert model.calls == 7  # a finished run is read


def test_several_passes_go_on_in_the_second(tmp_path):
    file, batches = tmp_path / "run.npz", data(4)

    class Reshuffled:
        def __init__(self, broken):
            self.epoch, self.broken = 0, broken

        def __iter__(self):
            self.epoch += 1
            order = batches[self.epoch :] + batches[: self.epoch]
            if self.broken and self.epoch == 2:
                return stopping(order, 2, OSError("disk"))
            return iter(order)

    whole = repsim.compare(net(), data=Reshuffled(False), passes=3, progress=False)
    options = {"passes": 3, "checkpoint": file, "progress": False}
    with pytest.raises(OSError, match="disk"):
        repsim.compare(net(), data=Reshuffled(True), **options)
    same(repsim.compare(net(), data=Reshuffled(False), **options), whole)


def test_more_batches_in_a_finished_pass_are_refused(tmp_path):
    class Passes:
        def __init__(self, *passes):
            self.passes = list(passes)

        def __iter__(self):
            return iter(self.passes.pop(0))

    options = {"passes": 2, "checkpoint": tmp_path / "run.npz", "progress": False}
    with pytest.raises(OSError, match="loader"):
        repsim.compare(
            net(), data=Passes(data(3), stopping(data(4, seed=2), 1, OSError("loader"))), **options
        )
    with pytest.raises(repsim.StateError, match="pass 0 .* now has more than 3 batches"):
        repsim.compare(net(), data=Passes(data(4), data(4, seed=2)), **options)


def test_bandwidths_come_back_in_their_dtype_however_often_a_run_fails(tmp_path):
    """The second run of a failed one saves bandwidths of layers that it has not seen again."""
    for dtype in (torch.float32, torch.float64):
        batches = [batch.to(dtype) for batch in data()]
        options = {"model_x": net().to(dtype), "kernel": "rbf", "progress": False}
        whole = repsim.compare(data=batches, **options)
        options["checkpoint"] = tmp_path / f"{dtype}.npz"
        for after in (2, 2, 5):
            with pytest.raises(OSError, match="disk"):
                repsim.compare(data=stopping(batches, after, OSError("disk")), **options)
        same(repsim.compare(data=batches, **options), whole)


def test_short_batches_are_counted_once(tmp_path):
    file, batches = tmp_path / "run.npz", [*data(2), data(1, n=2)[0], *data(2, seed=3)]
    with pytest.raises(OSError, match="loader"):
        repsim.compare(
            net(), data=stopping(batches, 4, OSError("loader")), checkpoint=file, progress=False
        )
    with pytest.warns(repsim.RepsimWarning, match="1 batch"):
        whole = repsim.compare(net(), data=batches, progress=False)
    with pytest.warns(repsim.RepsimWarning, match="1 batch"):
        same(repsim.compare(net(), data=batches, checkpoint=file, progress=False), whole)


def test_an_interrupt_returns_the_result_so_far(tmp_path):
    file = tmp_path / "run.npz"
    with pytest.warns(repsim.RepsimWarning, match="interrupted after 3 batches"):
        part = repsim.compare(
            net(), data=stopping(data(), 3, KeyboardInterrupt()), checkpoint=file, progress=False
        )
    first_three = repsim.compare(net(), data=data()[:3], progress=False)
    same(part, first_three)
    assert part.attrs["interrupted"] == "after 3 batches"
    same(
        repsim.compare(net(), data=data(), checkpoint=file, progress=False),
        repsim.compare(net(), data=data(), progress=False),
    )


def test_an_interrupt_before_anything_and_one_without_a_checkpoint_are_raised(tmp_path):
    for after, checkpoint in ((0, tmp_path / "run.npz"), (3, None)):
        with pytest.raises(KeyboardInterrupt):
            repsim.compare(
                net(),
                data=stopping(data(), after, KeyboardInterrupt()),
                checkpoint=checkpoint,
                progress=False,
            )


def test_an_interrupt_is_raised_if_the_state_cannot_be_saved(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    def batches():
        yield from data()[:3]
        monkeypatch.setattr(os, "replace", refuse)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        repsim.compare(net(), data=batches(), checkpoint=tmp_path / "run.npz", progress=False)
    assert "Permission denied" in raised.value.__notes__[0]


def test_ctrl_c_waits_until_a_batch_is_counted():
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        done.append("counted")
    assert done == ["counted"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_x": net(3)}, "weights of model_x"),
        ({"model_x": nn.Sequential(net()[0], nn.GELU(), net()[2])}, "modules of model_x"),
        ({"model_x": net(width=7)}, "weights of model_x"),
        ({"layers": ["0"]}, "layers"),
        ({"kernel": "rbf"}, "kernel"),
        ({"transform": "mean"}, "transform"),
        ({"passes": 2}, "passes"),
        ({"prepare_x": torch.neg}, "prepare"),
        ({"data": data(seed=2)}, "batch 0 of pass 0"),
        ({"data": [*data()[:3], *data()[:2:-1]]}, "batch 3 of pass 0"),
        ({"data": data()[:5]}, "ended after 5 batches; 7"),
    ],
)
def test_a_foreign_state_is_refused_with_the_differences(tmp_path, change, says):
    file = tmp_path / "run.npz"
    options = {"model_x": net(), "data": data(), "checkpoint": file, "progress": False}
    repsim.compare(**options)
    before = file.read_bytes()
    with pytest.raises(repsim.StateError, match=says):
        repsim.compare(**{**options, **change})
    assert joined_state(before) == joined_state(file.read_bytes())


Example = make_dataclass("Example", ["x"])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_other_data_in_containers_and_layouts_are_refused(tmp_path):
    for number, (wrap, unwrap) in enumerate(
        [
            (Example, lambda batch: batch.x),
            (torch.Tensor.to_sparse, torch.Tensor.to_dense),
            (lambda x: torch.nested.nested_tensor(list(x)), lambda x: x.to_padded_tensor(0.0)),
        ]
    ):
        options = {
            "forward": lambda model, batch, unwrap=unwrap: model(unwrap(batch)),
            "checkpoint": tmp_path / f"{number}.npz",
            "progress": False,
        }
        for _ in range(2):
            repsim.compare(net(), data=[wrap(x) for x in data(2)], **options)
        with pytest.raises(repsim.StateError, match="batch 0 of pass 0"):
            repsim.compare(net(), data=[wrap(x) for x in data(2, seed=2)], **options)


def joined_state(raw):
    import io

    with np.load(io.BytesIO(raw)) as stored:
        return {name: stored[name].tobytes() for name in stored.files}


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_state_is_refused(tmp_path, damage):
    file = tmp_path / "run.npz"
    repsim.compare(net(), data=data(), checkpoint=file, progress=False)
    raw = file.read_bytes()
    at = raw.index(b"array0.npy") + 200  # inside the first array
    file.write_bytes(
        {
            "cut": raw[: len(raw) // 2],
            "flipped": raw[:at] + bytes([raw[at] ^ 255]) + raw[at + 1 :],
            "empty": b"",
            "text": b"this is no state",
        }[damage]
    )
    with pytest.raises(repsim.StateError, match="saved state"):
        repsim.compare(net(), data=data(), checkpoint=file, progress=False)


def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path, monkeypatch):
    model, file = Counting(net()), tmp_path / "run.npz"
    with pytest.raises(repsim.RepsimError, match="cannot be written"):
        repsim.compare(model, data=data(), checkpoint=tmp_path / "no" / "run", progress=False)
    assert model.calls == 0
    with pytest.raises(OSError, match="loader"):
        repsim.compare(
            model, data=stopping(data(), 5, OSError("loader")), checkpoint=file, progress=False
        )
    before, rename = file.read_bytes(), os.replace

    def read_only(*_args):  # the tests may run as root, whom permissions do not stop
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", read_only)
    with pytest.raises(repsim.RepsimError, match="Permission denied"):
        repsim.compare(model, data=data(), checkpoint=file, progress=False)
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.npz"]  # nothing half-written beside it
    monkeypatch.setattr(os, "replace", rename)
    same(
        repsim.compare(model, data=data(), checkpoint=file, progress=False),
        repsim.compare(model, data=data(), progress=False),
    )


def test_a_disk_that_fills_up_does_not_end_the_run(tmp_path, monkeypatch):
    clock = itertools.count(0.0, 3600.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))  # so a save is always due
    file, rename, calls = tmp_path / "run.npz", os.replace, []

    def full_once(*args):
        calls.append(args)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        rename(*args)

    monkeypatch.setattr(os, "replace", full_once)
    with pytest.warns(repsim.RepsimWarning, match="No space left"):
        result = repsim.compare(net(), data=data(), checkpoint=file, progress=False)
    same(result, repsim.compare(net(), data=data(), progress=False))
    assert len(calls) == 8  # the first, after every batch, and none at the end: it is written


@pytest.mark.parametrize("compared", ["compare", "cka_matrix"])
def test_a_state_of_other_ranks_is_not_left_aside_in_silence(compared, tmp_path):
    path = tmp_path / "state[1].npz"
    layers = {"a": np.random.default_rng(0).standard_normal((20, 3))}

    def run():
        if compared == "compare":
            return repsim.compare(net(), data=data(), checkpoint=path, progress=False)
        return repsim.cka_matrix(layers, checkpoint=path)

    (tmp_path / "state[1].npz.rank0of4").touch()
    with pytest.warns(repsim.RepsimWarning, match="begins anew") as caught:
        run()
    assert "state: 4    this call: 1" in str(caught[0].message)
    run()  # no warning: this call has a state of its own
