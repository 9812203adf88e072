"""extract stores what the layers return; a run that was stopped anywhere is resumed or refused."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, TensorDataset

import repsim
from repsim.storage import locked


def net(seed=0, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(inplace=True), nn.Linear(width, 3)).eval()


def data(sizes=(7, 7, 7, 7, 4), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 5, generator=generator) for n in sizes]


def stopping(batches, after, error=None):
    yield from batches[:after]
    raise error or OSError("loader")


def expected(model, batches, layers="*", transform=None):
    """What a Recorder sees, batch after batch."""
    found = {}
    for batch in batches:
        with torch.no_grad(), repsim.Recorder(model, layers, transform=transform) as recorder:
            model(batch)
        for layer, value in recorder.items():
            found.setdefault(layer, []).append(value.numpy())
    return {layer: np.concatenate(values) for layer, values in found.items()}


def same(stored, arrays):
    assert list(stored) == list(arrays)
    for layer, values in arrays.items():
        np.testing.assert_array_equal(stored[layer].values, values)
        assert stored[layer].dtype == values.dtype


class Counting(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += 1
        return self.inner(x)


def chunks_of(rows):
    """The memory for this many rows of the three layers, collected once and encoded once."""
    return {"memory": 2 * rows * 4 * (6 + 6 + 3), "progress": False}


def rows_so_far(out):
    with pytest.warns(repsim.RepsimWarning, match="the run that wrote this store has not finished"):
        return repsim.open_activations(out).sizes["sample"]


@pytest.fixture(params=[1, 4, 1024])
def chunks(request):
    """Chunks of a row, which outgrow the array; those that straddle batches; one for everything."""
    return chunks_of(request.param)


def test_stored_values_are_the_outputs_of_the_layers(tmp_path, chunks):
    stored = repsim.extract(net(), data(), out=tmp_path / "run.zarr", **chunks)
    same(stored, expected(net(), data()))
    assert stored["0"].dims == ("sample", "0[1]")
    assert stored.sample.values.tolist() == list(range(32))
    assert stored.attrs["n_samples"] == 32
    assert stored.attrs["n_batches"] == 5
    assert stored.attrs["model"] == "Sequential"
    assert sorted(stored.attrs) == [
        *("format", "layers", "model", "n_batches", "n_samples"),
        *("repsim_version", "torch_version", "transform"),
    ]
    assert (stored["0"].values.min() < 0).all()  # before the ReLU that works in place
    part = stored["0"].isel({"sample": [30, 2, 9], "0[1]": [4, 1]})
    np.testing.assert_array_equal(part, stored["0"].values[[30, 2, 9]][:, [4, 1]])
    again = repsim.open_activations(tmp_path / "run.zarr")
    same(again, {layer: x.values for layer, x in stored.items()})


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_failed_run_resumes_and_runs_no_batch_twice(tmp_path, chunks, after):
    out, model = tmp_path / "run.zarr", Counting(net())
    layers = {"layers": ["inner.0", "inner.1", "inner.2"], **chunks}
    with pytest.raises(OSError, match="loader"):
        repsim.extract(model, stopping(data(), after), out=out, **layers)
    assert rows_so_far(out) == 7 * after
    stored = repsim.extract(model, data(), out=out, **layers)
    assert model.calls == 5
    same(stored, expected(Counting(net()), data(), layers["layers"]))
    repsim.extract(model, data(), out=out, **layers)
    assert model.calls == 5  # a finished store is read
    longer = [*data(), *data((3, 9), seed=2)]
    same(
        repsim.extract(model, longer, out=out, **layers),
        expected(net_of(model), longer, layers["layers"]),
    )
    assert model.calls == 7  # and resumes if there are more batches


def net_of(model):
    return Counting(model.inner)


def test_a_run_that_failed_before_its_first_batch_starts_again(tmp_path):
    for _ in range(2):
        with pytest.raises(OSError, match="loader"):
            repsim.extract(net(), stopping(data(), 0), out=tmp_path / "run.zarr", progress=False)
        with pytest.raises(repsim.StateError, match="or it has no batch"):
            repsim.open_activations(tmp_path / "run.zarr")
    stored = repsim.extract(net(), data(), out=tmp_path / "run.zarr", progress=False)
    same(stored, expected(net(), data()))


def test_an_interrupt_keeps_the_rows_so_far(tmp_path):
    out = tmp_path / "run.zarr"
    with pytest.raises(KeyboardInterrupt):
        repsim.extract(net(), stopping(data(), 3, KeyboardInterrupt()), out=out, progress=False)
    with open(f"{out}.journal", "ab") as journal:  # a kill inside a line
        journal.write(b'01234567 {"rows": 2')
    assert rows_so_far(out) == 21
    for _ in range(2):  # the second reads what the first wrote
        same(repsim.extract(net(), data(), out=out, progress=False), expected(net(), data()))


def test_rows_go_to_disk_every_two_minutes(tmp_path, monkeypatch):
    clock = itertools.count(0.0, 3600.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    out, found = tmp_path / "run.zarr", []

    def looking():
        for i, batch in enumerate(data()):
            if i:
                found.append(rows_so_far(out))
            yield batch

    repsim.extract(net(), looking(), out=out, progress=False)
    assert found == [7, 14, 21, 28]


# -- ids -----------------------------------------------------------------------------------------


def numbered(kind=str, sizes=(7, 7, 7)):
    count = itertools.count(100)
    return [(x, [kind(next(count)) for _ in range(len(x))]) for x in data(sizes)]


@pytest.mark.parametrize("kind", [int, str])
def test_samples_go_by_their_ids_and_are_stored_once(tmp_path, chunks, kind):
    batches = numbered(kind)
    repeated = [*batches[:2], (batches[0][0], batches[0][1]), batches[2]]
    repeated[3] = (
        torch.cat([batches[2][0], batches[1][0][:2]]),
        batches[2][1] + batches[1][1][:2],
    )
    options = {"sample_ids": lambda batch: batch[1], **chunks}
    out = tmp_path / "run.zarr"
    with pytest.raises(OSError, match="loader"):
        repsim.extract(net(), stopping(repeated, 3), out=out, **options)
    stored = repsim.extract(net(), repeated, out=out, **options)
    assert stored.sample.values.tolist() == [i for _, ids in batches for i in ids]
    assert stored.sample.values.dtype == (object if kind is str else np.int64)
    assert stored.attrs["n_duplicates"] == 9
    whole = expected(net(), [x for x, _ in batches])
    for layer, values in whole.items():
        np.testing.assert_allclose(stored[layer].values, values, rtol=1e-6, atol=1e-7)


def test_a_last_batch_of_known_samples_is_run_once(tmp_path):
    model, batches = Counting(net()), [*numbered(), numbered()[0]]
    for _ in range(2):
        stored = repsim.extract(
            model, batches, "inner.0", out=tmp_path / "run.zarr", sample_ids=lambda b: b[1],
            forward=lambda model, batch: model(batch[0]), memory=2 * 4 * 6, progress=False,
        )  # fmt: skip
        assert (stored.sizes["sample"], model.calls) == (21, 4)


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (lambda batch: batch[1][:3], "3 ids for 7 samples"),
        (lambda batch: [1, "a", *batch[1][2:]], "all integers or all strings"),
        (lambda batch: [0.5] * 7, "all integers or all strings"),
        (lambda batch: None, "one number or string per sample"),
        ("name", "must be a callable"),
    ],
)
def test_invalid_ids_are_refused(tmp_path, ids, says):
    with pytest.raises(repsim.InputError, match=says):
        repsim.extract(net(), numbered(), out=tmp_path / "run.zarr", sample_ids=ids, progress=False)


# -- what is read from it --------------------------------------------------------------------------


def test_measures_and_inference_read_a_store(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).eval()
    batches = [torch.randn(20, 2, 6, 6) for _ in range(3)]
    stored = repsim.extract(
        model, batches, ["0", "1", "3"], out=tmp_path / "run.zarr", progress=False
    )
    arrays = expected(model, batches, ["0", "1", "3"])
    flat = {layer: x.reshape(60, -1) for layer, x in arrays.items()}
    exact = repsim.pairwise(flat, estimator="unbiased")
    np.testing.assert_allclose(repsim.cka_matrix(stored).values, exact.values, atol=1e-5)
    np.testing.assert_array_equal(repsim.pairwise(stored, estimator="unbiased"), exact)
    a, b = stored["0"], stored["3"]
    assert repsim.cka(a, b) == repsim.cka(flat["0"], flat["3"])
    assert isinstance(repsim.cka(a, b), np.ndarray | np.generic)
    for test in (repsim.permutation_test, repsim.jackknife):
        assert test(a, b).value == test(flat["0"], flat["3"]).value
    batch = {name: stored[name][:40] for name in stored}
    acc, plain = repsim.MinibatchCKA(), repsim.MinibatchCKA()
    acc.update(batch)
    plain.update({name: x[:40] for name, x in flat.items()})
    np.testing.assert_array_equal(acc.compute(), plain.compute())
    table = repsim.max_t({"a": a}, {"b": b}, permutations=19)
    assert table.p_value.shape == (1, 1)


def test_rows_of_other_samples_are_refused(tmp_path):
    one = repsim.extract(
        net(), numbered(), out=tmp_path / "a.zarr", sample_ids=lambda b: b[1], progress=False
    )
    other = one.isel(sample=[1, 0, *range(2, 21)])
    for operation in (
        lambda: repsim.cka(one["0"], other["2"]),
        lambda: repsim.pairwise(one, other),
        lambda: repsim.cka_matrix(one, other),
        lambda: repsim.permutation_test(one["0"], other["2"]),
    ):
        with pytest.raises(repsim.InputError, match="same samples in the same order"):
            operation()
    plain = one.drop_vars("sample")  # without labels there is nothing to check
    repsim.cka(plain["0"], other["2"])


def test_a_probe_of_a_store_is_the_probe_of_the_model(tmp_path):
    torch.manual_seed(0)
    labels = torch.arange(120) % 3
    images = torch.randn(120, 5) + 2 * torch.eye(5)[labels]
    train = [(images[i : i + 16], labels[i : i + 16]) for i in range(0, 80, 16)]
    test = [(images[80:], labels[80:])]
    direct = repsim.linear_probe(
        net(), train, test, layers=["0", "2"], tokens="mean", progress=False
    )
    stores = [
        repsim.extract(net(), part, ["0", "2"], out=tmp_path / name, progress=False)
        for name, part in (("train", train), ("test", test))
    ]
    probed = repsim.probe_activations(stores[0], labels[:80], stores[1], labels[80:].numpy())
    assert probed.token.values.tolist() == ["all"]
    for variable in direct:
        np.testing.assert_allclose(
            probed[variable].values, direct[variable].values, err_msg=variable
        )
    for key in ("n_train", "n_holdout", "n_test", "n_classes", "chance", "ridges"):
        assert probed.attrs[key] == direct.attrs[key]
    assert repsim.plot.probe(probed) is not None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"train_labels": np.zeros(9, int)}, "at least two classes"),
        ({"train_labels": np.arange(8) % 2}, "n=9    train_labels: 8"),
        ({"test": {"b": np.ones((4, 2))}}, "same layers of the same width"),
        ({"test": {"a": np.ones((4, 3))}}, "same layers of the same width"),
        ({"test_labels": [0, 1, 2, 0]}, "from 0 and below 2"),
        ({"train": {"a": np.full((9, 2), np.nan)}}, "rows"),
        ({"shots": 0}, "shots"),
        ({"ridges": ()}, "ridges"),
        ({"train": {}}, "at least one"),
    ],
)
def test_a_probe_reports_wrong_arguments(change, says):
    rng = np.random.default_rng(0)
    options = {
        "train": {"a": rng.standard_normal((9, 2))},
        "train_labels": np.arange(9) % 2,
        "test": {"a": rng.standard_normal((4, 2))},
        "test_labels": [0, 1, 1, 0],
        "ridges": (1.0,),
        "holdout": 0.0,
    }
    repsim.probe_activations(**options)
    with pytest.raises(repsim.InputError, match=says):
        repsim.probe_activations(**{**options, **change})


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": net(3)}, "weights"),
        ({"model": nn.Sequential(net()[0], nn.GELU(), net()[2])}, "modules"),
        ({"layers": ["0"]}, "layers"),
        ({"transform": "mean"}, "transform"),
        ({"dtype": "float16"}, "dtype"),
        ({"prepare": torch.neg}, "prepare"),
        ({"sample_ids": len}, "sample_ids"),
        ({"data": data(seed=2)}, "batch 0 of pass 0"),
        ({"data": [*data()[:3], *data()[:2:-1]]}, "batch 3 of pass 0"),
        ({"data": data()[:3]}, "ended after 3 batches; 5"),
        ({"data": [*data(), torch.ones(3, 2, 5)]}, r"other outputs \(0: was \[\[6\], .*\[\[2, 6\]"),
    ],
)
def test_a_store_of_something_else_is_refused_and_left_alone(tmp_path, change, says):
    options = {"model": net(), "data": data(), "out": tmp_path / "run.zarr", "progress": False}
    repsim.extract(**options)
    before = contents(tmp_path)
    with pytest.raises(repsim.StateError, match=says):
        repsim.extract(**{**options, **change})
    assert contents(tmp_path) == before


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_another_batch_in_place_of_one_that_is_there_in_part_is_refused(tmp_path, monkeypatch):
    out, options = tmp_path / "run.zarr", chunks_of(8)

    def full_from_the_third():  # whole chunks are saved, the rest is not, as after a kill
        yield from data()[:2]
        monkeypatch.setattr(os, "fsync", Disk(0))
        raise OSError("loader")

    with pytest.raises(OSError, match="loader"):
        repsim.extract(net(), full_from_the_third(), out=out, **options)
    monkeypatch.undo()
    assert rows_so_far(out) == 8  # a row of the second batch
    other = data()
    other[1] = other[1] + 1
    with pytest.raises(repsim.StateError, match="batch 1"):
        repsim.extract(net(), other, out=out, **options)
    with pytest.raises(repsim.StateError, match="ended after 1 batches; of one more, some rows"):
        repsim.extract(net(), data()[:1], out=out, **options)
    same(repsim.extract(net(), data(), out=out, **options), expected(net(), data()))


def test_a_disk_that_is_full_inside_a_line_of_the_journal_leaves_the_lines_before(tmp_path):
    resource = pytest.importorskip("resource")
    out, options = tmp_path / "run.zarr", chunks_of(8)
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError, match="loader"):  # lines of an earlier run stay too
        repsim.extract(net(), stopping(data(), 1), out=out, **options)

    def full_after_two():
        yield from data()[:2]
        written = os.path.getsize(f"{out}.journal")
        resource.setrlimit(resource.RLIMIT_FSIZE, (written + 7, most))
        yield data()[2]

    try:
        with pytest.raises(repsim.CheckpointError, match=r"run\.zarr\.journal: File too large"):
            repsim.extract(net(), full_after_two(), out=out, **options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
    assert rows_so_far(out) >= 8
    same(repsim.extract(net(), data(), out=out, **options), expected(net(), data()))


def test_a_place_that_is_taken_is_refused(tmp_path):
    (tmp_path / "run.zarr").mkdir()
    (tmp_path / "file").write_text("mine")
    for name in ("run.zarr", "file"):
        with pytest.raises(repsim.StateError, match="something else"):
            repsim.extract(net(), data(), out=tmp_path / name, progress=False)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(repsim.CheckpointError, match=r"No such file.*\n  Make the folder"):
        repsim.extract(net(), data(), out=tmp_path / "no" / "run.zarr", progress=False)


def test_one_writer_at_a_time(tmp_path):
    out, first = tmp_path / "run.zarr", data()

    def while_another_begins():
        for batch in first:
            with pytest.raises(repsim.StateError, match="another process"):
                repsim.extract(net(), data(), out=out, progress=False)
            yield batch

    stored = repsim.extract(net(), while_another_begins(), out=out, progress=False)
    same(stored, expected(net(), first))
    repsim.extract(net(), data(), out=out, progress=False)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_that_outlive_a_call_keep_no_lock(tmp_path):
    loader = DataLoader(
        torch.cat(data()), batch_size=7, num_workers=1, persistent_workers=True,
        multiprocessing_context="fork",
    )  # fmt: skip
    out, folder = tmp_path / "run.zarr", tmp_path / "folder"
    folder.mkdir()

    def failing():
        for number, batch in enumerate(loader):
            if number == 2:
                raise OSError("disk")
            yield batch

    with pytest.raises(OSError, match="disk"), locked(folder):
        repsim.extract(net(), failing(), out=out, **chunks_of(4))
    same(repsim.extract(net(), loader, out=out, **chunks_of(4)), expected(net(), data()))
    with locked(folder):
        assert loader._iterator._workers[0].is_alive()


def test_a_deleted_store_starts_again(tmp_path):
    out = tmp_path / "run.zarr"
    repsim.extract(net(), data(), out=out, progress=False)
    for path in sorted(out.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    out.rmdir()
    same(repsim.extract(net(3), data(), out=out, progress=False), expected(net(3), data()))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("missing", "0/c.1.0 is missing"),
        ("cut", r"0/c.1.0 has 9 bytes, not 196"),
        ("flipped", "checksum"),
        ("metadata", "damaged"),
        ("layer", "damaged"),
        ("group", "damaged"),
        ("shape", r"its row is \(3,\), not \(6,\)"),
        ("attributes", "checksum of zarr.json does not fit"),
        ("journal", "line 3"),
    ],
)
def test_damage_is_found(tmp_path, damage, says):
    out = tmp_path / "run.zarr"
    repsim.extract(net(), data((7, 7)), out=out, **chunks_of(8))
    chunk = out / "0" / "c.1.0"
    raw = chunk.read_bytes()
    if damage == "missing":
        chunk.unlink()
    elif damage == "cut":
        chunk.write_bytes(raw[:9])
    elif damage == "flipped":
        chunk.write_bytes(raw[:5] + bytes([raw[5] ^ 1]) + raw[6:])
    elif damage == "metadata":
        (out / "0" / "zarr.json").write_text("{")
    elif damage == "layer":
        (out / "0" / "zarr.json").unlink()
    elif damage == "group":
        (out / "zarr.json").unlink()
    elif damage == "shape":
        shutil.copy(out / "2" / "zarr.json", out / "0" / "zarr.json")
    elif damage == "attributes":
        file = out / "zarr.json"
        file.write_text(file.read_text().replace('"n_samples": 14', '"n_samples": 13'))
    else:
        journal = tmp_path / "run.zarr.journal"
        journal.write_bytes(journal.read_bytes().replace(b'"rows": 8', b'"rows": 9'))
    with pytest.raises(repsim.StateError, match=says):
        repsim.extract(net(), data(), out=out, **chunks_of(8))
    with pytest.raises(repsim.StateError, match=says):
        repsim.open_activations(out).load()
    if damage not in ("attributes", "group", "journal"):
        with pytest.raises(repsim.StateError, match=r"run\.zarr, layer '0'"):
            repsim.open_activations(out).load()


def test_damage_to_an_open_store_is_refused(tmp_path):
    stored = repsim.extract(net(), data((7, 7)), out=tmp_path / "run.zarr", progress=False)
    (tmp_path / "run.zarr" / "2" / "c.0.0").unlink()
    with pytest.raises(repsim.StateError, match=r"run\.zarr, layer '2': 2/c\.0\.0 is missing"):
        repsim.cka_matrix(stored)


def test_too_little_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    def full(*_):
        raise MemoryError("no room")

    stored = repsim.extract(net(), data(), out=tmp_path / "run.zarr", progress=False)
    monkeypatch.setattr("zarr.Array.__getitem__", full)
    with pytest.raises(repsim.StateError, match="layer '0': no room\n  Read fewer rows") as raised:
        _ = stored["0"].values
    assert "delete" not in str(raised.value)


def test_a_store_that_cannot_be_read_is_not_taken_for_damage(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    out = tmp_path / "run.zarr"
    stored = repsim.extract(net(), data(), out=out, progress=False)
    with monkeypatch.context() as patched:
        patched.setattr("zarr.Array.__getitem__", refuse)
        patched.setattr("zarr.open_group", refuse)
        for read, label in (
            (lambda: stored["0"].values, ", layer '0'"),
            (lambda: repsim.open_activations(out), ""),
            (lambda: repsim.extract(net(), data(), out=out, progress=False), ""),
        ):
            with pytest.raises(repsim.CheckpointError, match="store cannot be read") as caught:
                read()
            assert f"run.zarr{label}: Permission denied\n" in str(caught.value)
    journal = tmp_path / "run.zarr.journal"
    journal.unlink()
    journal.mkdir()
    with pytest.raises(repsim.CheckpointError, match=r"journal cannot be read.*\n.*Is a directory"):
        repsim.open_activations(out)
    with pytest.raises(repsim.CheckpointError, match="journal cannot be written"):
        repsim.extract(net(), data(), out=out, progress=False)


def test_the_settings_of_zarr_do_not_matter(tmp_path):
    import zarr

    batches, options = [torch.zeros(9, 5), *data()], {"all_modules": True, "progress": False}
    with zarr.config.set({"default_zarr_format": 2, "array.write_empty_chunks": False}):
        stored = repsim.extract(
            nn.Sequential(nn.ReLU()), batches, out=tmp_path / "run.zarr", memory=160, **options
        )
    np.testing.assert_array_equal(stored["0"], torch.cat(batches).relu())


def test_a_store_of_another_version_is_refused(tmp_path):
    out, journal = tmp_path / "run.zarr", tmp_path / "run.zarr.journal"
    repsim.extract(net(), data(), out=out, progress=False)
    first, *others = journal.read_bytes().splitlines(keepends=True)
    older = first[9:].replace(b"activations/2", b"activations/1")
    journal.write_bytes(b"".join([b"%08x " % zlib.crc32(older[:-1]), older, *others]))
    for call in (
        lambda: repsim.open_activations(out),
        lambda: repsim.extract(net(), data(), out=out, progress=False),
    ):
        with pytest.raises(repsim.StateError, match="format 'repsim.activations/1', expected"):
            call()


def test_there_is_nothing_to_open(tmp_path):
    import zarr

    with pytest.raises(repsim.StateError, match="no store"):
        repsim.open_activations(tmp_path / "none.zarr")
    zarr.create_group(str(tmp_path / "other.zarr"))
    with pytest.raises(repsim.StateError, match="not a store"):
        repsim.open_activations(tmp_path / "other.zarr")


# -- a disk that is full ---------------------------------------------------------------------------


class Disk:
    """In place of ``os.fsync``: a disk that is full after some chunks, or some journal entries."""

    def __init__(self, room, journal=None):
        self.room, self.journal = room, journal

    def __call__(self, handle):
        if self.journal is not None:
            exists = self.journal.exists()
            written = exists and self.journal.stat().st_ino == os.fstat(handle).st_ino
            if not written:
                return
        self.room -= 1
        if self.room < 0:
            raise OSError(28, "No space left on device")


def test_chunks_and_their_folders_are_synced_before_the_journal_counts_them(tmp_path, monkeypatch):
    fsync, synced = os.fsync, []

    def noted(handle):
        synced.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    repsim.extract(net(), data(), out=tmp_path / "run", progress=False)
    names = {path.stat().st_ino: str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    *before, last = [names[each] for each in synced]
    assert last == "run.journal"
    chunks = [f"run/{layer}/c.0{'.0' * (layer != 'sample')}" for layer in ("0", "1", "2", "sample")]
    for chunk in chunks:
        assert before.index(chunk) < before.index(os.path.dirname(chunk))


@pytest.mark.parametrize("where", ["chunk", "journal"])
def test_a_full_disk_is_an_error_and_saved_rows_stay(tmp_path, monkeypatch, where):
    out, journal = tmp_path / "run.zarr", tmp_path / "run.zarr.journal"
    monkeypatch.setattr(os, "fsync", Disk(40) if where == "chunk" else Disk(5, journal))
    with pytest.raises(repsim.CheckpointError, match="No space left") as caught:
        repsim.extract(net(), data((8,) * 9), out=out, **chunks_of(8))
    assert "goes on from" in str(caught.value)
    assert ("journal" in str(caught.value).splitlines()[0]) == (where == "journal")
    monkeypatch.undo()
    kept = rows_so_far(out)
    if where == "journal":  # two entries describe the store, and the sixth is cut off again
        assert kept == 8 * (5 - 2)
    assert kept % 8 == 0
    assert 0 < kept < 72
    same(
        repsim.extract(net(), data((8,) * 9), out=out, **chunks_of(8)),
        expected(net(), data((8,) * 9)),
    )
    lines = (tmp_path / "run.zarr.journal").read_text().splitlines()
    assert [json.loads(line[9:]).get("rows") for line in lines[2:]] == [*range(8, 73, 8)]


# -- what can be stored ----------------------------------------------------------------------------


class Odd(nn.Module):
    """A model with outputs of several kinds."""

    def __init__(self):
        super().__init__()
        self.brain, self.number, self.whole = nn.Identity(), nn.Identity(), nn.Identity()

    def forward(self, x):
        self.brain(x.to(torch.bfloat16))
        self.number(x[:, 0])
        return self.whole((x > 0).to(torch.int64))


def test_dtypes(tmp_path):
    stored = repsim.extract(Odd(), data(), out=tmp_path / "a", all_modules=True, progress=False)
    kinds = {layer: str(x.dtype) for layer, x in stored.items()}
    assert kinds == {"brain": "float32", "number": "float32", "whole": "int64"}
    assert stored["number"].shape == (32, 1)
    half = repsim.extract(net(), data(), out=tmp_path / "b", dtype="float16", progress=False)
    wide = expected(net(), data())
    for layer, values in wide.items():
        np.testing.assert_array_equal(half[layer].values, values.astype(np.float16))


def test_a_truth_value_of_numpy_is_kept_as_pythons(tmp_path):
    model = nn.Sequential(nn.Identity(), nn.ReLU())
    for one in (True, np.True_):  # the second call resumes the first
        stored = repsim.extract(
            model, data(), out=tmp_path / "run", all_modules=one, progress=False
        )
        assert list(stored) == ["0", "1"]


def test_a_value_beyond_the_dtype_is_named_and_the_batches_before_are_there(tmp_path):
    batches, out = data(), tmp_path / "run.zarr"
    batches[3] = batches[3] * 1e6
    with pytest.raises(repsim.NonFiniteError, match=r"batch 3 .*'0'"):
        repsim.extract(net(), batches, out=out, dtype="float16", progress=False)
    assert rows_so_far(out) == 21
    batches[3][0] = torch.nan
    with pytest.raises(repsim.NonFiniteError, match="batch 3"):
        repsim.extract(net(), batches, out=tmp_path / "wide.zarr", progress=False)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"memory": 16}, repsim.InputError, "one row takes 120"),
        ({"memory": 0}, repsim.InputError, "positive"),
        ({"dtype": "int8"}, repsim.InputError, "'float16', 'float32'"),
        ({"model": 3}, repsim.InputError, "torch.nn.Module"),
        ({"data": torch.ones(3, 5)}, repsim.InputError, "iterable of batches"),
        ({"data": []}, repsim.InputError, "no batch"),
        ({"layers": "5"}, repsim.LayerNotFoundError, "5"),
        ({"transform": "no"}, repsim.InputError, "no transform"),
        ({"transform": lambda x: x.sum(0)}, repsim.CaptureError, "samples on axis 0"),
        ({"transform": lambda x: x[:, :0]}, repsim.CaptureError, "no features"),
        (
            {"data": [torch.ones(4, 5), torch.ones(4, 2, 5)]},
            repsim.InputError,
            "same shape of rows",
        ),
    ],
)
def test_requests_that_cannot_be_stored_are_refused(tmp_path, change, error, says):
    options = {"model": net(), "data": data(), "out": tmp_path / "run.zarr", "progress": False}
    with pytest.raises(error, match=says):
        repsim.extract(**{**options, **change})


class Parts(nn.Module):
    """A layer for each name."""

    def __init__(self, names):
        super().__init__()
        torch.manual_seed(0)
        for name in names:
            self._modules[name] = nn.Linear(5, 2)

    def forward(self, x):
        return sum(layer(x) for layer in self._modules.values())


NAMES = (
    "zarr.json", "Zarr.JSON", "..", ".", " ", "a/b", "A/B", "a%2Fb", "a\\b", "nul\0", "line\nline",
    "\x1b[31mred", "\udcff", "\ud800x", "caf\u00e9", "cafe\u0301", "x" * 400, "x" * 399 + "y",
    "CON", "aux.0", "__init__", "end.", "c", "norm", "Norm", "NORM", "norm%1",
)  # fmt: skip


def test_layers_of_any_name_come_back(tmp_path):
    model, out = Parts(NAMES), tmp_path / "run.zarr"
    stored = repsim.extract(model, data(), NAMES, out=out, progress=False)
    same(stored, expected(model, data(), NAMES))
    folders = [path.name for path in out.iterdir() if path.is_dir()]
    assert len({name.casefold() for name in folders}) == len(NAMES) + 1  # and the ids
    assert all(name.isascii() and name.isprintable() and len(name) < 255 for name in folders)
    again = repsim.extract(model, data(), NAMES, out=out, progress=False)
    same(again, expected(model, data(), NAMES))
    (tmp_path / "run.zarr.journal").unlink()
    same(repsim.open_activations(out), expected(model, data(), NAMES))


def test_a_layer_with_the_name_of_the_ids_is_refused(tmp_path):
    with pytest.raises(repsim.InputError, match="stored under the name 'sample'"):
        repsim.extract(Parts(["sample"]), data(), out=tmp_path / "run.zarr", progress=False)


def test_memory_bounds_the_chunk(tmp_path):
    for rows, chunk in ((11, 8), (1, 1)):
        out = tmp_path / f"{rows}.zarr"
        repsim.extract(net(), data((3,)), out=out, memory=120 * rows, progress=False)
        plan = json.loads((tmp_path / f"{rows}.zarr.journal").read_text().splitlines()[1][9:])
        assert plan["chunk"] == chunk


def test_a_loader_that_shuffles_gives_a_warning(tmp_path):
    """Stores of two models would have other samples in their rows."""
    samples = TensorDataset(torch.cat(data()))
    seed = torch.Generator().manual_seed(0)
    for at, (options, ids, warns) in enumerate(
        (
            ({"shuffle": True}, None, True),
            ({"sampler": SubsetRandomSampler(range(16))}, None, True),
            ({"shuffle": True, "generator": seed}, None, False),
            ({"sampler": RandomSampler(samples, generator=seed)}, None, False),
            ({"shuffle": True}, lambda batch: list(map(str, batch[0])), False),
            ({}, None, False),
        )
    ):
        loader = DataLoader(samples, batch_size=8, **options)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            repsim.extract(net(), loader, out=tmp_path / f"{at}", sample_ids=ids, progress=False)
        assert ["the loader shuffles" in str(each.message) for each in caught] == [True] * warns


def test_the_model_comes_back_unchanged(tmp_path):
    model = net().train()
    model[1].eval()
    with pytest.raises(OSError, match="loader"):
        repsim.extract(model, stopping(data(), 2), out=tmp_path / "a", progress=False)
    repsim.extract(model, data(), out=tmp_path / "a", progress=False)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert not any(module._forward_hooks for module in model.modules())


def test_real_models(tmp_path):
    timm = pytest.importorskip("timm")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2).eval()
    images = [torch.randn(3, 3, 32, 32) for _ in range(2)]
    stored = repsim.extract(
        vit, images, "blocks.?", transform="cls", out=tmp_path / "vit", progress=False
    )
    same(stored, expected(vit, images, "blocks.?", "cls"))
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8, vocab_size=9
    )
    bert = transformers.BertModel(config).eval()
    tokens = [
        {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": mask}
        for mask in (torch.tensor([[1, 1, 1], [1, 1, 0]]), torch.ones(2, 3, dtype=torch.int64))
    ]
    stored = repsim.extract(bert, tokens, "encoder.layer.?", out=tmp_path / "bert", progress=False)
    assert stored["encoder.layer.1"].shape == (4, 3, 8)
    with torch.no_grad():
        direct = [bert(**batch).last_hidden_state.numpy() for batch in tokens]
    np.testing.assert_array_equal(stored["encoder.layer.1"].values, np.concatenate(direct))
