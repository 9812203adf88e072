"""The benchmark for accelerators, on a processor and tiny models: its numbers are right."""

import json

import pytest
import torch
from torch import nn

from reference import minibatch


def networks():
    torch.manual_seed(0)
    x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 5))
    y = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.Identity())
    return x.eval(), y.eval()


@pytest.fixture(scope="module")
def gpu():
    import gpu

    return gpu


@pytest.fixture
def tiny(gpu, monkeypatch):
    models = dict(zip("xy", networks(), strict=True))
    monkeypatch.setattr(gpu.timm, "create_model", models.__getitem__)
    return ["--device", "cpu", "--models", "x", "y", "--batch", "8", "--image", "8", "--no-peers"]


@pytest.mark.slow
def test_run_and_write(gpu, tiny, tmp_path, capsys):
    page, found = tmp_path / "README.md", tmp_path / "found.json"
    page.write_text(f"before\n{gpu.START}\nold\n{gpu.END}\nafter\n")
    options = ["--repeats", "2", "--write", str(page), "--json", str(found)]
    gpu.main([*tiny, *options])
    text = capsys.readouterr().out.strip()
    assert page.read_text() == f"before\n{gpu.START}\n{text}\n{gpu.END}\nafter\n"
    rows = {row["name"]: row for row in json.loads(found.read_text())["rows"]}
    assert list(rows) == ["bare Grams", *(f"repsim, {p}" for p in gpu.PRECISIONS)]
    highest, tf32, bf16 = (rows[f"repsim, {p}"] for p in gpu.PRECISIONS)
    assert highest["shape"] == [4, 3]
    assert highest["error"] < 1e-5
    assert highest["error"] < tf32["error"] < bf16["error"] < 0.05
    assert all(row["nan"] == 0 for row in (highest, tf32, bf16))
    assert all(len(row["seconds"]) == len(row["floor"]) == 2 for row in rows.values())


def test_the_reference_is_minibatch_cka(gpu):
    torch.manual_seed(1)
    batches = [torch.randn(n, 3, 8, 8) for n in (8, 8)]
    models = networks()
    keys, values = gpu.reference(models, batches)
    assert [key.name for key in keys[1]] == ["0", "1", "2", ""]
    x, y = models
    with torch.no_grad():
        pairs = [(x[:1](b).flatten(1).double(), y[:2](b).double()) for b in batches]
    xs, ys = ([p[i].numpy() for p in pairs] for i in (0, 1))
    assert values[0, 1] == pytest.approx(minibatch.minibatch_cka(xs, ys), abs=1e-7)


def test_work_counts_multiplications(gpu, tiny):
    bench = gpu.Bench(gpu.arguments(tiny))
    # conv and relu (one shape), flatten a view of relu, linear; flatten (a copy), linear, identity
    features = [144, 144, 5, 192, 6]
    found = gpu.work(bench, 8)
    assert found.operations == sum(2 * 8 * 8 * p for p in features)
    assert found.bytes == sum(4 * 8 * p for p in features)


def test_a_batch_that_does_not_fit_is_halved(gpu, tiny, monkeypatch):
    bench = gpu.Bench(gpu.arguments(tiny))

    def call(name, size):
        if size > 4:
            raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(bench, "call", call)
    assert bench.largest("anything") == 4


def test_waiting_is_an_error_from_the_second_batch_on(gpu, monkeypatch):
    modes = ["default"]
    monkeypatch.setattr(gpu.torch.cuda, "set_sync_debug_mode", modes.append)
    during = [modes[-1] for _ in gpu.unwaiting(range(3), torch.device("cuda"))]
    assert during == ["default", "error", "error"]
    assert modes[-1] == "default"
    with pytest.raises(ArithmeticError):
        for number in gpu.unwaiting(range(3), torch.device("cuda")):
            if number:
                raise ArithmeticError
    assert modes[-1] == "default"
    modes.clear()
    assert list(gpu.unwaiting(range(3), torch.device("cpu"))) == [0, 1, 2]
    assert not modes


def test_no_device(gpu):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit):
        gpu.arguments([])
