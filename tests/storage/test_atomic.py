"""A file is replaced completely and durably, or stays unchanged."""

import os
import signal
import threading

import pytest

from repsim.storage import differences, uninterrupted, write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "x"
    for content in (b"before", b"after"):
        write_whole(path, lambda file, content=content: file.write(content))
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["x"]


def test_file_and_folder_are_synced_around_the_renaming(tmp_path, monkeypatch):
    path, done = tmp_path / "x", []
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        is_folder = os.path.isdir(f"/dev/fd/{handle}")
        done.append("folder" if is_folder else f"file of {os.fstat(handle).st_size} bytes")
        fsync(handle)

    def renamed(*names):
        done.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    before = os.listdir("/dev/fd")
    write_whole(path, lambda file: file.write(b"x"))
    assert done == ["file of 1 bytes", "rename", "folder"]
    assert len(os.listdir("/dev/fd")) == len(before)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failed_write_leaves_the_file_unchanged(tmp_path, monkeypatch, call):
    path = tmp_path / "x"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OSError, match="No space") as caught:
            write_whole(path, lambda file: file.write(b"after"))
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
    with pytest.raises(FileNotFoundError) as caught:  # of a file that the writer reads
        write_whole(path, lambda file: file.write((tmp_path / "other").read_bytes()))
    assert caught.value.filename == str(tmp_path / "other")
    with pytest.raises(ZeroDivisionError):  # in the writer itself, half-way
        write_whole(path, lambda file: file.write(b"af") / 0)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["x"]


def test_what_kills_left_is_removed_when_it_is_old(tmp_path):
    path = tmp_path / "x[1].npz"
    names = (".x[1].npz.11.tmp", ".x[1].npz.12.tmp", ".x1.npz.11.tmp", ".x[1].npz.a.tmp")
    for name in names:
        (tmp_path / name).write_bytes(b"part")
    for name in (names[0], *names[2:]):
        os.utime(tmp_path / name, (0, 0))
    write_whole(path, lambda file: file.write(b"x"))
    assert sorted(os.listdir(tmp_path)) == sorted([*names[1:], path.name])


def test_differences_name_the_place_and_both_values():
    before = {"n": 3, "model": {"name": "a", "seed": 0}, "same": [1, 2], "gone": True}
    now = {"n": 4, "model": {"name": "a"}, "same": [1, 2], "new": "é" * 100}
    n, seed, gone, new = differences(before, now)
    assert n == "n: was 3, now 4"
    assert seed == "model seed: was 0, now not given"
    assert gone == "gone: was true, now not given"
    assert new.startswith('new: was not given, now "é')
    assert len(new) < 100
    assert differences(before, dict(reversed(before.items()))) == []
    assert differences({"a": 3, "b": {"c": 1}}, {"a": {"c": 1}, "b": 3}) == [
        'a: was 3, now {"c": 1}',
        'b: was {"c": 1}, now 3',
    ]


def test_ctrl_c_does_afterwards_what_it_did_before():
    before = signal.getsignal(signal.SIGINT)
    arrived = []
    try:
        for handler, count in ((signal.SIG_IGN, 0), (lambda *_: arrived.append(len(done)), 1)):
            signal.signal(signal.SIGINT, handler)
            done = []
            with uninterrupted():
                signal.raise_signal(signal.SIGINT)
                done.append("all of the block")
            assert arrived == [1] * count
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    done = []

    def elsewhere():  # Ctrl-C never arrives there
        with uninterrupted():
            done.append("all of the block")

    other = threading.Thread(target=elsewhere)
    other.start()
    other.join()
    assert done
