"""``repsim compare MODEL MODEL``: the map, the run folder, and going on after an interrupt."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import repsim
from cli import tiny_models
from repsim.report import load_results

TWO = ("compare", "cli.tiny_models:mlp", "cli.tiny_models:mlp", "--data", "inputs.npz")
COUNTED = (
    "compare", "cli.tiny_models:counted", "cli.tiny_models:mlp", "--data", "inputs.npz",
    "--batch-size", "8", "--no-progress",
)  # fmt: skip


def seeded(build, seed):
    torch.manual_seed(seed)
    return build()


def test_the_map_is_that_of_the_library(repsim_command, inputs):
    ran = repsim_command(*TWO, "--batch-size", 16, "--json")
    assert ran.code == 0, ran.err
    order = np.random.default_rng(0).permutation(40)
    stored = torch.from_numpy(np.load(inputs)["inputs"][order])
    expected = repsim.compare(
        seeded(tiny_models.mlp, 0),
        seeded(tiny_models.mlp, 1),
        data=stored.split(16),
        progress=False,
    )
    found = ran.json
    assert found["coords"]["layer_x"]["data"] == ["0", "1", "2"]
    np.testing.assert_array_equal(found["variables"]["cka"]["data"], expected.cka.values)
    np.testing.assert_array_equal(
        found["variables"]["standard_error"]["data"], expected.standard_error.values
    )
    assert found["files"] is None
    assert "compare:" in ran.err  # the progress bar


def test_the_provenance_says_what_was_compared(repsim_command, inputs):
    attrs = repsim_command(*TWO, "--json", "--seed", 5, "--limit", 30).json["attrs"]
    assert attrs["command"] == (
        "repsim compare cli.tiny_models:mlp cli.tiny_models:mlp --data inputs.npz "
        "--json --seed 5 --limit 30"
    )
    assert attrs["spec_x"] == attrs["spec_y"] == "cli.tiny_models:mlp"
    assert attrs["weights_x"] == "as mlp makes them"
    assert attrs["preparation_x"] == "as they are"
    assert attrs["data"] == "inputs.npz"
    assert attrs["data_seed"] == 5
    assert attrs["n_samples"] == 30
    assert attrs["n_bad_images"] == 0
    assert attrs["model_x"] == "cli.tiny_models:mlp (seed 5)"
    assert attrs["model_y"] == "cli.tiny_models:mlp (seed 6)"
    assert attrs["repsim_version"] == repsim.__version__


def test_images_reach_each_model_at_its_own_size(repsim_command, folder):
    (folder / "cat" / "bad.png").write_text("no image")
    ran = repsim_command(
        "compare", "cli.tiny_models:vit", "timm:test_resnet", "--data", "photos", "--size-y", 64,
        "--layers", "blocks.?", "--layers-y", "layer?", "--batch-size", 12, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    attrs = ran.json["attrs"]
    assert "32x32" in attrs["preparation_x"]
    assert "(64, 64)" in attrs["preparation_y"]
    assert attrs["n_bad_images"] == 1
    assert attrs["bad_images"] == ["cat/bad.png"]
    assert attrs["n_samples"] == 24
    assert "1 image could not be read and was left out:\n  cat/bad.png" in ran.err
    assert "timm:test_resnet has random weights (seed 1)" in ran.err
    assert ran.json["coords"]["layer_x"]["data"] == ["blocks.0", "blocks.1"]


def test_bad_images_can_stop_the_run(repsim_command, folder):
    (folder / "cat" / "bad.png").write_text("no image")
    ran = repsim_command(
        "compare", "cli.tiny_models:vit", "--data", "photos", "--on-bad-image", "error"
    )
    assert ran.code == 1
    assert "cat/bad.png" in ran.err
    assert ran.out == ""


def test_a_map_of_a_model_with_itself_is_shown_for_a_person(repsim_command, inputs, folder):
    ran = repsim_command("compare", "cli.tiny_models:mlp", "--data", "inputs.npz")
    assert ran.code == 0
    assert "CKA of cli.tiny_models:mlp with cli.tiny_models:mlp" in ran.out
    assert ran.out.count("1.0000") == 3
    ran = repsim_command("compare", "cli.tiny_models:vit", "--data", "photos", "--no-progress")
    assert "next layer" in ran.out


def test_what_models_print_is_kept_out_of_the_json(repsim_command, inputs):
    argv = ("compare", "cli.tiny_models:chatty", "--data", "inputs.npz")
    ran = repsim_command(*argv, "--json")
    assert ran.json["command"] == "compare"
    assert "a line on standard output" in ran.err
    assert "a line on standard output" in repsim_command(*argv).out


def test_a_run_folder_holds_all_of_it(repsim_command, inputs):
    ran = repsim_command(*TWO, "--out", "run")
    assert ran.code == 0, ran.err
    run = Path("run")
    assert sorted(path.name for path in run.iterdir()) == ["compare.nc", "report.html", "run.json"]
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


def test_a_finished_run_is_not_computed_again(repsim_command, inputs, monkeypatch):
    monkeypatch.setenv("COUNTED", "forwards")
    first = repsim_command(*COUNTED, "--out", "run", "--json")
    assert first.code == 0, first.err
    assert len(Path("forwards").read_text().splitlines()) == 5
    again = repsim_command(*COUNTED, "--out", "run", "--json")
    assert again.code == 0
    assert len(Path("forwards").read_text().splitlines()) == 5
    assert again.json == first.json
    assert "nothing is computed again" in again.err


def test_an_interrupted_run_goes_on_where_it_stopped(repsim_command, inputs, monkeypatch):
    monkeypatch.setenv("COUNTED", "forwards")
    monkeypatch.setenv("STOP_AT", "4")
    stopped = repsim_command(*COUNTED, "--out", "run")
    assert stopped.code == 130
    assert "To go on, run the same command again" in stopped.err
    assert "repsim compare cli.tiny_models:counted" in stopped.err
    assert sorted(p.name for p in Path("run").iterdir()) == ["run.json", "state.npz"]

    monkeypatch.delenv("STOP_AT")
    finished = repsim_command(*COUNTED, "--out", "run", "--json")
    assert finished.code == 0, finished.err
    assert len(Path("forwards").read_text().splitlines()) == 4 + 2  # the fourth was not counted
    assert not Path("run/state.npz").exists()

    Path("forwards").unlink()
    whole = repsim_command(*COUNTED, "--out", "other", "--json")
    assert finished.json["variables"] == whole.json["variables"]


def test_an_interrupt_without_a_folder_says_what_would_have_kept_it(
    repsim_command, inputs, monkeypatch
):
    monkeypatch.setenv("COUNTED", "forwards")
    monkeypatch.setenv("STOP_AT", "3")
    ran = repsim_command(*COUNTED)
    assert ran.code == 130
    assert "--out FOLDER" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("--passes", 2), "passes: was 1, now 2"),
        (("--limit", 39), "limit: was not given, now 39"),
        (("--layers", "0"), 'layers: was ["*"], now ["0"]'),
        (("--kernel", "rbf"), "kernel: was"),
        (("--seed", 9), "model_x seed: was 0, now 9"),
    ],
)
def test_another_command_is_refused_the_folder(repsim_command, inputs, change, said):
    assert repsim_command(*TWO, "--out", "run").code == 0
    before = Path("run/run.json").read_text()
    ran = repsim_command(*TWO, *change, "--out", "run")
    assert ran.code == 2
    assert said in ran.err
    assert Path("run/run.json").read_text() == before


def test_other_data_and_other_commands_are_refused_the_folder(repsim_command, inputs):
    assert repsim_command(*TWO, "--out", "run").code == 0
    ran = repsim_command("analyse", "cli.tiny_models:mlp", "--data", "inputs.npz", "--out", "run")
    assert ran.code == 2
    assert "command: was compare, now analyse" in ran.err
    stored = dict(np.load(inputs))
    stored["inputs"][3, 2] += 1
    np.savez(inputs, **stored)
    ran = repsim_command(*TWO, "--out", "run")
    assert ran.code == 2
    assert "data: was" in ran.err


def test_weights_that_changed_behind_the_name_are_refused(repsim_command, inputs, monkeypatch):
    argv = (
        "compare",
        "cli.tiny_models:counted",
        "cli.tiny_models:changing",
        "--data",
        "inputs.npz",
    )
    monkeypatch.setenv("COUNTED", "forwards")
    monkeypatch.setenv("STOP_AT", "1")
    assert repsim_command(*argv, "--out", "run").code == 130
    monkeypatch.setenv("FACTOR", "2")
    ran = repsim_command(*argv, "--out", "run")
    assert ran.code == 2
    assert "other weights of model_y" in ran.err


def test_folders_that_cannot_be_a_run(repsim_command, inputs, tmp_path):
    (tmp_path / "file").write_text("")
    assert "not a folder" in repsim_command(*TWO, "--out", "file").err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{")
    ran = repsim_command(*TWO, "--out", "run")
    assert ran.code == 1
    assert "record is damaged" in ran.err
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mine.nc").write_text("")
    assert "results of something else" in repsim_command(*TWO, "--out", "results").err


def test_a_damaged_result_is_named(repsim_command, inputs):
    assert repsim_command(*TWO, "--out", "run").code == 0
    Path("run/compare.nc").write_bytes(b"damaged")
    ran = repsim_command(*TWO, "--out", "run")
    assert ran.code == 1
    assert "compare.nc" in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (TWO[:3], 2, "--data FOLDER"),
        ((*TWO[:4], "missing"), 2, "no such folder or file"),
        (("compare", "timm:resnet81", "--data", "inputs.npz"), 2, "Did you mean timm:resnet"),
        (("compare", "resnet18", "--data", "inputs.npz"), 2, "names no model"),
        ((*TWO, "--layers", "blok*"), 2, "--layers: no layer matches 'blok*'"),
        ((*TWO, "--layers-y", "9"), 2, "--layers-y: no layer is called '9'"),
        ((*TWO, "--weights", "missing.pt"), 2, "--weights: there is no such file"),
        ((*TWO, "--test"), 2, "--test: is an option of repsim measure"),
        ((*TWO, "--batch-size", 0), 2, "--batch-size"),
        ((*TWO, "--on-bad-image", "maybe"), 2, "--on-bad-image"),
        ((*TWO[:2], *TWO[3:], "--seed-y", 3), 2, "for two models only"),
        ((*TWO, "--batch-size", 3), 1, "at least 4 samples"),
        (("compare", "cli.tiny_models:broken", "--data", "inputs.npz"), 1, "must be finite"),
    ],
)
def test_what_is_wrong_is_said(repsim_command, inputs, argv, code, said):
    ran = repsim_command(*argv)
    assert ran.code == code, ran.err
    assert said in " ".join(ran.err.split())
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_a_command_that_cannot_run_does_not_claim_the_folder(repsim_command, inputs):
    assert repsim_command(*TWO, "--layers", "blok*", "--out", "run").code == 2
    assert not Path("run").exists()
    assert repsim_command(*TWO, "--layers", "0*", "--out", "run").code == 0


def test_near_layers_are_named(repsim_command, folder):
    ran = repsim_command(
        "compare", "cli.tiny_models:vit", "--data", "photos", "--layers", "block.0"
    )
    assert ran.code == 2
    assert "Did you mean 'blocks.0'" in ran.err


def in_a_process(tmp_path, **environment):
    env = {
        **os.environ,
        "COUNTED": str(tmp_path / "forwards"),
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[1]), str(Path(repsim.__file__).parents[1])]
        ),
        **environment,
    }
    argv = [sys.executable, "-m", "repsim.cli", *COUNTED, "--out", "run", "--json"]
    return subprocess.Popen(
        argv, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_after_a_signal_the_same_command_finishes(repsim_command, inputs, tmp_path, name):
    forwards = tmp_path / "forwards"
    process = in_a_process(tmp_path, SLOW="0.5")
    deadline = time.monotonic() + 60
    while not (forwards.exists() and len(forwards.read_text().splitlines()) >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert process.returncode == (-9 if name == "SIGKILL" else 130), err
    if name != "SIGKILL":
        assert "To go on, run the same command again" in err

    again = in_a_process(tmp_path)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    # Of five batches two or three were counted; a kill leaves the state as it was last written.
    assert len(forwards.read_text().splitlines()) <= (3 + 5 if name == "SIGKILL" else 3 + 3)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "compare.nc", "report.html", "run.json",
    ]  # fmt: skip
    os.environ["COUNTED"] = str(forwards)
    try:
        whole = repsim_command(*COUNTED, "--json")
    finally:
        del os.environ["COUNTED"]
    assert json.loads(out)["variables"] == whole.json["variables"]


@pytest.mark.slow
def test_networks_of_three_libraries_end_to_end(folder, tmp_path):
    """As a user types it: the entry point, in a process of its own."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).parents[1]), str(Path(repsim.__file__).parents[1])]
        ),
    }
    for x, y, globs, size in (
        ("timm:vit_tiny_patch16_224", "torchvision:resnet18", ("blocks.?", "layer*"), "--size"),
        ("cli.tiny_models:hf_vit", "torchvision:resnet18", ("*layer*.?", "layer?.1"), "--size-y"),
    ):
        argv = ["compare", x, y, "--data", "photos", "--batch-size", "12", "--json"]
        argv += ["--layers", globs[0], "--layers-y", globs[1], size, "64"]
        ran = subprocess.run(
            [sys.executable, "-m", "repsim.cli", *argv],
            cwd=tmp_path, env=env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        found = json.loads(ran.stdout)
        values = np.array(found["variables"]["cka"]["data"], dtype=float)
        assert values.shape == tuple(
            len(found["coords"][c]["data"]) for c in ("layer_x", "layer_y")
        )
        assert np.nanmax(np.abs(values)) <= 1
        assert found["attrs"]["n_samples"] == 24


def test_a_scale_of_pixels_is_refused_for_inputs(inputs, capsys):
    from repsim.cli import main

    argv = ["compare", "timm:resnet18", "timm:resnet34", "--data", str(inputs)]
    assert main([*argv, "--normalise", "imagenet"]) == 2
    assert "--normalise is for the pixels of images" in capsys.readouterr().err
