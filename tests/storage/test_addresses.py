"""Stores at addresses of fsspec and in store objects of Zarr, as they are on a disk."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import repsim

ROWS = 4
SMALL = {"memory": 2 * ROWS * 4 * (6 + 3), "progress": False}
"""Chunks of four rows."""

names = itertools.count()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3)).eval()


def data(sizes=(7, 7, 7, 4)):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 5, generator=generator) for n in sizes]


def stopping(after):
    yield from data()[:after]
    raise OSError("loader")


def in_memory():
    import zarr

    return zarr.storage.MemoryStore()


def at_address():
    return f"memory://tests/{next(names)}/run.zarr"


def same(stored, other):
    assert list(stored) == list(other)
    for name in (*other, *other.coords):
        np.testing.assert_array_equal(stored[name].values, other[name].values)


def sync(answer):
    """The result of a coroutine of a store, wherever an event loop already runs."""
    from zarr.core.sync import sync as wait

    return wait(answer)


def changed(store, key, change):
    """Change an object of a store in memory."""
    from zarr.core.buffer import default_buffer_prototype

    prototype = default_buffer_prototype()
    raw = sync(store.get(key, prototype)).to_bytes()
    sync(store.set(key, prototype.buffer.from_bytes(change(raw))))


def test_a_store_in_memory_is_that_of_a_disk(tmp_path):
    disk = repsim.extract(net(), data(), out=tmp_path / "run.zarr", **SMALL)
    for out in (in_memory(), at_address()):
        with pytest.raises(OSError, match="loader"):
            repsim.extract(net(), stopping(2), out=out, **SMALL)
        with pytest.warns(repsim.RepsimWarning, match="not finished"):
            assert repsim.open_activations(out).sizes["sample"] == 14
        with pytest.raises(repsim.StateError, match="batch 0 of pass 0"):
            repsim.extract(net(), data()[1:], out=out, **SMALL)
        stored = repsim.extract(net(), data(), out=out, **SMALL)
        same(stored, disk)
        assert stored.attrs == disk.attrs
        same(repsim.open_activations(out), disk)
        np.testing.assert_array_equal(repsim.cka_matrix(stored), repsim.cka_matrix(disk))


def test_a_file_of_an_address_lies_on_the_disk(tmp_path):
    disk = repsim.extract(net(), data(), out=f"file://{tmp_path}/run.zarr", **SMALL)
    same(repsim.open_activations(tmp_path / "run.zarr"), disk)
    assert (tmp_path / "run.zarr.journal").exists()
    options = {"auto_mkdir": True}  # by fsspec, without the guarantees of a disk
    address = f"file://{tmp_path}/a new folder/other.zarr"
    stored = repsim.extract(net(), data(), out=address, storage_options=options, **SMALL)
    same(stored, disk)
    same(repsim.open_activations(address, storage_options=options), disk)


def test_a_second_writer_is_found():
    out = in_memory()

    def while_another_begins():
        yield from data()[:2]
        with pytest.raises(OSError, match="loader"):
            repsim.extract(net(), stopping(3), out=out, **SMALL)
        yield from data()[2:]

    with pytest.raises(repsim.StateError, match="another process is writing"):
        repsim.extract(net(), while_another_begins(), out=out, **SMALL)
    stored = repsim.extract(net(), data(), out=out, **SMALL)
    same(stored, repsim.extract(net(), data(), out=in_memory(), **SMALL))


def test_a_journal_that_is_left_without_its_group_begins_anew():
    out = in_memory()
    repsim.extract(net(), data(), out=out, **SMALL)
    sync(out.delete("zarr.json"))
    other = [x + 1 for x in data()]
    for _ in range(2):  # the second finds all batches
        stored = repsim.extract(net(), other, out=out, **SMALL)
        same(stored, repsim.extract(net(), other, out=in_memory(), **SMALL))


def test_damage_is_named():
    def damaged(change):
        out = in_memory()
        stored = repsim.extract(net(), data(), out=out, **SMALL)
        change(out)
        return out, stored

    def bit(raw):
        return raw[:5] + bytes([raw[5] ^ 1]) + raw[6:]

    out, stored = damaged(lambda out: sync(out.delete("1/c.2.0")))
    for attempt in (lambda: repsim.open_activations(out), lambda: stored["1"].values):
        with pytest.raises(repsim.StateError, match=r"layer '1': .*1/c\.2\.0 is missing") as said:
            attempt()
        assert "or delete it, and extract again" in str(said.value)
    for key, says in (("1/c.2.0", "layer '1'"), ("zarr.json", "damaged"), (".journal", "line 1")):
        out, _ = damaged(lambda out, key=key: changed(out, key, bit))
        with pytest.raises(repsim.StateError, match=says):
            repsim.open_activations(out).load()
    out, _ = damaged(lambda out: changed(out, "0/c.1.0", lambda raw: raw[:9]))
    with pytest.raises(repsim.StateError, match="layer '0'"):
        repsim.open_activations(out).load()


def test_what_cannot_be_reached_is_an_error_of_ours(tmp_path):
    import zarr

    class Gone(zarr.storage.WrapperStore):
        """A store whose server does not answer, with an error of a package of its own."""

        room = 10

        async def set(self, key, value):
            Gone.room -= 1
            if Gone.room < 0:
                raise LookupError("no route to the server")
            await super().set(key, value)

    memory = in_memory()
    with pytest.raises(repsim.CheckpointError, match="LookupError: no route") as caught:
        repsim.extract(net(), data(), out=Gone(memory), **SMALL)
    assert "call again with the same arguments" in str(caught.value)
    stored = repsim.extract(net(), data(), out=memory, **SMALL)
    same(stored, repsim.extract(net(), data(), out=in_memory(), **SMALL))

    def away(method, error, end=""):
        """A store of which one method fails, if its first argument has this end."""

        class Away(zarr.storage.WrapperStore):
            def with_read_only(self, read_only=False):  # older WrapperStores have none
                return Away(self._store.with_read_only(read_only=read_only))

        def fails(self, key, *arguments, **options):
            if key.endswith(end):
                raise error
            return getattr(self._store, method)(key, *arguments, **options)

        setattr(Away, method, fails)
        return Away

    refused, missing = PermissionError(13, "Access denied"), FileNotFoundError("no bucket")
    for method, end, says in (
        ("exists", "zarr.json", r"store cannot be read.*\n.*: Access denied"),
        ("get", ".journal", r"journal cannot be read.*\n.*/\.journal: Access denied"),
    ):
        with pytest.raises(repsim.CheckpointError, match=says):
            repsim.open_activations(away(method, refused, end)(memory))
    with pytest.raises(repsim.CheckpointError, match="journal cannot be written") as caught:
        repsim.extract(net(), data(), out=away("set", refused, ".journal")(in_memory()), **SMALL)
    assert "Access denied" in str(caught.value)
    with pytest.raises(repsim.StateError, match="no store"):
        repsim.open_activations(away("exists", missing)(in_memory()))
    stored = repsim.extract(net(), data(), out=away("is_empty", missing)(in_memory()), **SMALL)
    same(stored, repsim.open_activations(memory))
    for wrong, says in (
        ({"path": "nope://x"}, "an address that fsspec opens"),
        ({"path": "run.zarr", "storage_options": {}}, "for an address like 's3://...'"),
        ({"path": "memory://x", "storage_options": 3}, "must be a mapping"),
        ({"path": "memory://x", "order": "time"}, "unknown order"),
        ({"path": 3}, "must be a path"),
    ):
        with pytest.raises(repsim.InputError, match=says):
            repsim.open_activations(**wrong)
    (tmp_path / "photo.png").touch()
    for nothing in ("memory://none", in_memory(), tmp_path):  # a folder of photos is not damaged
        with pytest.raises(repsim.StateError, match="no store"):
            repsim.open_activations(nothing)
    zarr.create_group(memory, path="other")
    with pytest.raises(repsim.StateError, match="something else"):
        sync(memory.delete(".journal"))
        repsim.extract(net(), data(), out=memory, **SMALL)


@pytest.mark.slow
def test_a_store_on_s3(monkeypatch, tmp_path):
    """Against moto's own server, where the packages are installed."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    import s3fs

    running = server.ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}"}
    try:
        s3fs.S3FileSystem(**options).mkdir("bucket")
        where = {"out": "s3://bucket/run.zarr", "storage_options": options}
        with pytest.raises(OSError, match="loader"):
            repsim.extract(net(), stopping(2), **where, **SMALL)
        stored = repsim.extract(net(), data(), **where, **SMALL)
        disk = repsim.extract(net(), data(), out=tmp_path / "run.zarr", **SMALL)
        same(stored, disk)
        np.testing.assert_array_equal(repsim.cka_matrix(stored), repsim.cka_matrix(disk))
        with pytest.raises(repsim.CheckpointError, match="bucket does not exist"):
            where["out"] = "s3://none/run.zarr"
            repsim.extract(net(), data(), **where, **SMALL)
    finally:
        running.stop()
    with pytest.raises(repsim.CheckpointError, match="cannot be read"):
        repsim.open_activations("s3://bucket/run.zarr", storage_options=options)
