"""``--out``: the contents of a run folder, its lock, and resuming after an interrupt."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import repsim
from repsim.report import load_results

TWO = ("compare", "cli.tiny_models:mlp", "cli.tiny_models:mlp", "--data", "inputs.npz")
COUNTED = (
    "compare", "cli.tiny_models:counted", "cli.tiny_models:mlp", "--data", "inputs.npz",
    "--batch-size", "8", "--no-progress",
)  # fmt: skip
FINISHED = ["compare.nc", "report.html", "run.json"]


def files(folder="run"):
    return sorted(path.name for path in Path(folder).iterdir() if path.name != ".lock")


def forwards(file):
    return len(file.read_text().splitlines())


def test_a_run_folder_holds_all_of_it(repsim_command, inputs):
    ran = repsim_command(*TWO, "--out", "run")
    assert ran.code == 0, ran.err
    run = Path("run")
    assert files() == FINISHED
    record = json.loads((run / "run.json").read_text())
    assert record["command_line"] == ["repsim", *TWO, "--out", "run"]
    assert record["arguments"]["model_y"]["seed"] == 1
    assert record["analyses"] == {"compare": {"status": "done", "file": "compare.nc"}}
    assert record["weights"].keys() == {"model_x", "model_y"}
    result = load_results(run)["compare"]
    assert result.cka.shape == (3, 3)
    assert result.attrs["spec_x"] == "cli.tiny_models:mlp"
    assert "repsim compare" in (run / "report.html").read_text()
    assert str(run / "report.html") in ran.out


def test_a_finished_run_is_not_computed_again(repsim_command, inputs, counted):
    first = repsim_command(*COUNTED, "--out", "run", "--json")
    assert first.code == 0, first.err
    assert forwards(counted) == 5
    again = repsim_command(*COUNTED, "--out", "run", "--json")
    assert again.code == 0
    assert forwards(counted) == 5
    assert again.json == first.json
    assert "nothing is computed again" in again.err


HOLD = """
import sys, time
from pathlib import Path
from repsim.storage import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_two_commands_at_once_are_refused(repsim_command, inputs):
    """Both had ended with exit code 0, and the result of one was lost."""
    assert repsim_command(*TWO, "--out", "run").code == 0
    before = {name: (Path("run") / name).read_bytes() for name in files()}
    other = subprocess.Popen([sys.executable, "-c", HOLD, "run"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "held\n"
        refused = repsim_command(*TWO, "--out", "run")
        assert refused.code == 2
        assert "another command is at work in the folder" in refused.err
        assert {name: (Path("run") / name).read_bytes() for name in files()} == before
    finally:
        other.kill()
        other.communicate()
    assert repsim_command(*TWO, "--out", "run").code == 0  # a killed command holds nothing


@pytest.fixture
def sigterm():
    """The handler of SIGTERM outside the command, which must be restored."""

    def fail(*_):
        pytest.fail("the command did not take the signal")

    before = signal.signal(signal.SIGTERM, fail)
    yield fail
    signal.signal(signal.SIGTERM, before)


def test_an_interrupted_run_resumes_where_it_stopped(
    repsim_command, inputs, counted, monkeypatch, sigterm
):
    whole = repsim_command(*COUNTED, "--json")
    for name in ("SIGINT", "SIGTERM"):  # Ctrl-C, and the time limit of a batch system
        counted.unlink()
        monkeypatch.setenv("SIGNAL", name)
        monkeypatch.setenv("STOP_AT", "4")
        run = f"run-{name}"
        stopped = repsim_command(*COUNTED, "--out", run, "--json")
        assert stopped.code == 130
        assert stopped.out == ""
        assert "To resume, run the same command again" in stopped.err
        assert "repsim compare cli.tiny_models:counted" in stopped.err
        assert files(run) == ["run.json", "state.npz"]
        assert signal.getsignal(signal.SIGTERM) is sigterm

        monkeypatch.delenv("STOP_AT")
        finished = repsim_command(*COUNTED, "--out", run, "--json")
        assert finished.code == 0, finished.err
        # Five batches; the one in which the signal came may be counted or not.
        assert forwards(counted) in (5, 6), name
        assert files(run) == FINISHED
        assert finished.json["variables"] == whole.json["variables"]


def test_an_interrupt_without_a_folder_names_the_option_that_saves_work(
    repsim_command, inputs, counted, monkeypatch
):
    monkeypatch.setenv("STOP_AT", "3")
    ran = repsim_command(*COUNTED)
    assert ran.code == 130
    assert "--out FOLDER" in ran.err
    assert ran.out == ""


def started(counted, until):
    """Start the command in a new process, and wait until this number of forwards has begun."""
    here = [Path(__file__).parents[1], Path(repsim.__file__).parents[1]]
    process = subprocess.Popen(
        [sys.executable, "-m", "repsim.cli", *COUNTED, "--out", "run", "--json"],
        env={**os.environ, "SLOW": "0.5", "PYTHONPATH": os.pathsep.join(map(str, here))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (counted.exists() and forwards(counted) >= until):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


@pytest.mark.slow
def test_after_a_signal_from_outside_and_a_kill_the_same_command_finishes(
    repsim_command, inputs, counted
):
    process = started(counted, until=3)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "To resume, run the same command again" in err
    assert "Traceback" not in err
    assert files() == ["run.json", "state.npz"]
    stopped = forwards(counted)
    assert stopped <= 4

    process = started(counted, until=stopped + 1)
    process.kill()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    killed = forwards(counted)

    finished = repsim_command(*COUNTED, "--out", "run", "--json")
    assert finished.code == 0, finished.err
    # The terminated process counted two or three of the five batches.
    assert forwards(counted) - killed in (2, 3)
    assert files() == FINISHED
    whole = repsim_command(*COUNTED, "--json")
    assert finished.json["variables"] == whole.json["variables"]


def test_the_folder_of_another_command_is_refused(repsim_command, inputs):
    assert repsim_command(*TWO, "--out", "run").code == 0
    before = Path("run/run.json").read_text()
    stored = dict(np.load(inputs))
    stored["inputs"][3, 2] += 1
    np.savez("changed.npz", **stored)
    for said, argv in {
        "passes: was 1, now 2": (*TWO, "--passes", 2),
        "limit: was not given, now 39": (*TWO, "--limit", 39),
        'layers: was ["*"], now ["0"]': (*TWO, "--layers", "0"),
        "kernel: was": (*TWO, "--kernel", "rbf"),
        "transform: was": (*TWO, "--transform", "cls"),
        "model_x seed: was 0, now 9": (*TWO, "--seed", 9),
        "data: was": (*TWO[:4], "changed.npz"),
        "command: was compare, now analyse": ("analyse", TWO[1], *TWO[3:]),
    }.items():
        ran = repsim_command(*argv, "--out", "run")
        assert ran.code == 2, said
        assert said in ran.err
        assert Path("run/run.json").read_text() == before


def test_a_folder_of_images_is_known_by_its_names(repsim_command, greys):
    argv = ("compare", "cli.tiny_models:cnn", "--size", 16, "--data", greys, "--layers", "4")
    assert repsim_command(*argv, "--out", "run").code == 0
    assert repsim_command(*argv, "--out", "run").code == 0
    (greys / "cat" / "11.png").rename(greys / "cat" / "99.png")  # the last stays the last
    ran = repsim_command(*argv, "--out", "run")
    assert ran.code == 2
    assert "data: was" in ran.err


def test_weights_that_changed_behind_the_name_are_refused(
    repsim_command, inputs, counted, monkeypatch
):
    argv = ("compare", "cli.tiny_models:counted", "cli.tiny_models:changing", "--data", inputs)
    monkeypatch.setenv("STOP_AT", "1")
    assert repsim_command(*argv, "--out", "run").code == 130
    monkeypatch.setenv("FACTOR", "2")
    ran = repsim_command(*argv, "--out", "run")
    assert ran.code == 2
    assert "other weights of model_y" in ran.err


def test_folders_that_cannot_be_written(repsim_command, inputs, monkeypatch):
    def full(self, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    for patched, by, reason in (
        (Path, "mkdir", "run: No space left on device"),
        (os, "access", "run: no permission to write in"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(patched, by, full if by == "mkdir" else lambda *_: False)
            ran = repsim_command(*TWO, "--out", "run")
        assert ran.code == 2
        assert f"--out: the folder cannot be made or written.\n  got {reason}" in ran.err

    def hidden(self, **_):
        if self.name == "run":  # its folder may not be searched
            raise PermissionError(errno.EACCES, "Permission denied")
        return os.stat(self)

    monkeypatch.setattr(Path, "stat", hidden)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission to write in" in repsim_command(*TWO, "--out", "run").err


def test_folders_that_cannot_be_a_run(repsim_command, inputs, tmp_path):
    (tmp_path / "file").write_text("")
    for below_a_file in ("file", "file/run"):
        ran = repsim_command(*TWO, "--out", below_a_file)
        assert ran.code == 2
        assert f"must be a folder, not a file.\n  got {below_a_file}" in ran.err
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine.nc").write_text("")
    assert "results that no command of repsim made" in repsim_command(*TWO, "--out", "results").err
    (tmp_path / "run").mkdir()
    for record in ("{", "{}", "[]"):
        (tmp_path / "run" / "run.json").write_text(record)
        ran = repsim_command(*TWO, "--out", "run")
        assert ran.code == 1
        assert "record is damaged" in ran.err


def test_a_damaged_result_is_named(repsim_command, inputs):
    assert repsim_command(*TWO, "--out", "run").code == 0
    Path("run/compare.nc").write_bytes(b"damaged")
    ran = repsim_command(*TWO, "--out", "run")
    assert ran.code == 1
    assert "compare.nc" in ran.err
    assert "Traceback" not in ran.err


def test_a_command_that_cannot_run_does_not_claim_the_folder(repsim_command, inputs):
    assert repsim_command(*TWO, "--layers", "blok*", "--out", "run").code == 2
    assert not Path("run").exists()
    assert repsim_command(*TWO, "--layers", "0*", "--out", "run").code == 0
