"""After any failure of disk, file or process, a checkpoint is complete or refused."""

import itertools
import os
import resource
import time

import numpy as np
import pytest

from repsim import CheckpointError, StateError, cka_matrix
from repsim.storage import Checkpoint
from streaming.batches import data

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(3), "c": np.array(["x", "yy"])}


def made(path, operation="sums", **fingerprint):
    return Checkpoint(path, operation=operation, fingerprint=fingerprint)


def test_saved_states_come_back(tmp_path):
    file = made(tmp_path / "x.npz", n=3, layers=("a", "b"))
    assert file.load() is None
    assert not file.due  # the time counts from the start
    file.save(ARRAYS)
    file.save({**ARRAYS, "b": np.array(4)})
    back = made(tmp_path / "x.npz", n=3, layers=["a", "b"]).load()
    assert sorted(back) == ["a", "b", "c"]
    for name, x in {**ARRAYS, "b": np.array(4)}.items():
        assert back[name].dtype == x.dtype
        np.testing.assert_array_equal(back[name], x)
    assert os.listdir(tmp_path) == ["x.npz"]  # nothing is left beside it


def test_a_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    made(path, n=3, kernel="rbf").save(ARRAYS)
    with pytest.raises(StateError, match=r"inputs or options \(n: was 3, now 4\)"):
        made(path, n=4, kernel="rbf").load()
    with pytest.raises(StateError, match="another operation, sums"):
        made(path, "other", n=3, kernel="rbf").load()
    with np.load(path) as stored:
        arrays = dict(stored)
    older = arrays["__header__"].tobytes().replace(b"checkpoint/1", b"checkpoint/0")
    np.savez(path, **{**arrays, "__header__": np.frombuffer(older, np.uint8)})
    with pytest.raises(StateError, match="of format 'repsim.checkpoint/0', expected"):
        made(path, n=3, kernel="rbf").load()
    np.savez(path, **ARRAYS)
    with pytest.raises(StateError, match="no header"):
        made(path, n=3).load()
    path.write_text("not an archive")
    with pytest.raises(StateError, match="not a saved state: another kind of file\n"):
        made(path, n=3).load()
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(StateError, match=r"no header\n  Name another file"):  # not: delete it
        made(path, n=3).load()
    with path.open("wb") as file:
        np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StateError, match="not a saved state"):
        made(path, n=3).load()


def test_damage_anywhere_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    made(path, n=3).save(ARRAYS)
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(StateError):
            made(path, n=3).load()
    accepted = 0
    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            back = made(path, n=3).load()
        except StateError:
            continue
        accepted += 1  # a byte of the archive that holds no data: a date, a flag
        for name, x in ARRAYS.items():
            np.testing.assert_array_equal(back[name], x)
    assert accepted < len(whole) / 11 / 2


def test_other_values_under_the_same_header_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    made(path, n=3).save(ARRAYS)
    with np.load(path) as stored:
        arrays = dict(stored)
    a, b = arrays["a"], arrays["b"]
    for change in ({"a": a + 1}, {"a": a.reshape(3, 2)}, {"a": a.view(np.int64)}, {"a": b, "b": a}):
        np.savez(path, **{**arrays, **change})
        with pytest.raises(StateError, match="checksum does not fit"):
            made(path, n=3).load()


def test_a_full_disk_leaves_the_state_before(tmp_path):
    path = tmp_path / "x.npz"
    file = made(path, n=3)
    file.save(ARRAYS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written(.|\n)*still there, whole"):
            file.save({"a": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(file.load()["a"], ARRAYS["a"])
    assert os.listdir(tmp_path) == ["x.npz"]


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"no such folder; nothing .*\n  Make the folder"):
        made(tmp_path / "missing" / "x.npz").save(ARRAYS)
    path = tmp_path / "x.npz"
    file = made(path)
    file.save(ARRAYS)
    if os.geteuid() == 0:  # root may write to read-only folders

        def refuse(*_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "replace", refuse)
    else:
        tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match=r"Permission denied(.|\n)*still there, whole"):
            file.save({"a": np.zeros(3)})
    finally:
        tmp_path.chmod(0o700)
    np.testing.assert_array_equal(file.load()["a"], ARRAYS["a"])
    with pytest.raises(CheckpointError, match="cannot be read"):
        made(tmp_path).load()


# cka_matrix with one


@pytest.fixture
def _always_due(monkeypatch):
    """An hour passes between two looks at the clock, so every save is due."""
    clock = itertools.count(0.0, 3600.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))


class Reads:
    """Counts how often rows are read; the read of number ``last`` is interrupted."""

    def __init__(self, last=None):
        self.count, self.last = 0, last

    def of(self, layers):
        return {name: Watched(x, self) for name, x in layers.items()}


class Watched:
    def __init__(self, x, reads):
        self.x, self.reads = x, reads
        self.shape, self.dtype = x.shape, x.dtype

    def __getitem__(self, rows):
        self.reads.count += 1
        if self.reads.count == self.reads.last:
            raise KeyboardInterrupt
        return self.x[rows]


OPTIONS = {"linear": {"memory": 700}, "rbf": {"kernel": "rbf", "block_size": 9}}


def reads_of(path, xs, ys, last=None, **options):
    """The matrix and the number of reads; no matrix if they were interrupted."""
    reads = Reads(last)
    try:
        out = cka_matrix(reads.of(xs), reads.of(ys), checkpoint=path, **options)
    except KeyboardInterrupt:
        return None, reads.count
    return out.values, reads.count


@pytest.mark.parametrize("kernel", OPTIONS)
@pytest.mark.usefixtures("_always_due")
def test_an_interrupted_matrix_resumes_to_the_same_bits(tmp_path, kernel):
    (xs, ys), options = data(60), OPTIONS[kernel]
    expected, whole = reads_of(tmp_path / "whole.npz", xs, ys, **options)
    again, finished = reads_of(tmp_path / "whole.npz", xs, ys, **options)
    np.testing.assert_array_equal(again, expected)
    assert finished < whole / 2  # the passes that identify the data
    counts = []
    for i, share in enumerate((0.55, 0.75, 0.95)):
        path = tmp_path / f"{i}.npz"
        nothing, _ = reads_of(path, xs, ys, int(share * whole), **options)
        assert nothing is None
        got, reads = reads_of(path, xs, ys, **options)
        np.testing.assert_array_equal(got, expected)
        counts.append(reads)
    assert whole > counts[0] > counts[1] > counts[2] > finished  # no block is computed twice


@pytest.mark.usefixtures("_always_due")
def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    xs, ys = data(60)
    path = tmp_path / "x.npz"
    cka_matrix(xs, ys, checkpoint=path)
    other = {name: x.copy() for name, x in xs.items()}
    other["norm"][31, 2] += 1e-6
    for arguments, changed, what in (
        ((other, ys), {}, "contents"),
        ((xs, ys), {"estimator": "biased"}, "estimator"),
        ((xs, ys), {"kernel": "rbf"}, "kernel"),
        ((xs, ys), {"block_size": 8}, "plan"),
        ((xs, None), {}, "layers_y"),
    ):
        with pytest.raises(StateError, match=what):
            cka_matrix(*arguments, checkpoint=path, **changed)


def test_a_folder_that_is_missing_is_found_out_at_once(tmp_path):
    (xs, ys), options = data(60), OPTIONS["linear"]
    reads_of(tmp_path / "x.npz", xs, ys, **options)
    _, finished = reads_of(tmp_path / "x.npz", xs, ys, **options)
    reads = Reads()
    with pytest.raises(CheckpointError, match="cannot be written"):
        cka_matrix(reads.of(xs), reads.of(ys), checkpoint=tmp_path / "missing" / "x.npz", **options)
    assert reads.count == finished  # it has identified the data and computed nothing
