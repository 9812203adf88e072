"""``repsim analyse``, ``attention``, ``layers`` and ``report``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import repsim
from repsim.report import load_results, save_result

VIT = ("cli.tiny_models:vit", "--data", "photos", "--batch-size", "12", "--no-progress")
ALL = [
    "layer_map", "attention_distance", "residual_ratios", "block_influence", "receptive_field",
    "localization", "linear_probe",
]  # fmt: skip


def test_all_of_a_vision_transformer(repsim_command, folder):
    ran = repsim_command("analyse", *VIT, "--out", "run", "--json")
    assert ran.code == 0, ran.err
    analyses = ran.json["analyses"]
    assert list(analyses) == ALL
    assert {each["status"] for each in analyses.values()} == {"done"}
    results = load_results("run")
    assert list(results) == ALL
    assert results["layer_map"].attrs["n_samples"] == 24
    assert results["receptive_field"].layer.values.tolist() == ["blocks.0", "blocks.1"]
    assert results["attention_distance"].sizes == {"layer": 2, "head": 3}
    assert results["linear_probe"].attrs["n_test"] == 5
    for result in results.values():
        assert result.attrs["spec"] == "cli.tiny_models:vit"
        assert result.attrs["command"].startswith("repsim analyse")
    assert sorted(p.name for p in Path("run").iterdir() if p.name != ".lock") == sorted(
        [*(f"{name}.nc" for name in ALL), "report.html", "run.json"]
    )
    again = repsim_command("analyse", *VIT, "--out", "run", "--json")
    assert again.json == ran.json
    assert "nothing is computed again" in again.err


def test_analyses_that_do_not_fit_a_model_are_skipped_with_the_reason(repsim_command, folder):
    argv = ("analyse", "cli.tiny_models:cnn", "--size", 32, "--data", "photos", "--no-progress")
    ran = repsim_command(*argv, "--out", "run", "--json")
    assert ran.code == 0, ran.err
    status = {name: each["status"] for name, each in ran.json["analyses"].items()}
    assert status == {
        "layer_map": "done",
        "attention_distance": "skipped",
        "residual_ratios": "skipped",
        "block_influence": "skipped",
        "receptive_field": "done",
        "localization": "done",
        "linear_probe": "done",
    }
    assert "attention" in ran.json["analyses"]["attention_distance"]["reason"]
    assert "residual" in ran.json["analyses"]["residual_ratios"]["reason"]
    again = repsim_command(*argv, "--out", "run")
    assert again.code == 0
    assert "nothing is computed again" in again.err
    assert again.out.count("skipped") == 3
    page = Path("run/report.html").read_text("utf-8")
    assert "<h1>cli.tiny_models:cnn</h1>" in page  # not the folder
    for name in ("attention_distance", "residual_ratios", "block_influence"):
        assert f"<dt>{name}</dt><dd>" in page
    assert repsim_command("report", "run", "--no-progress").code == 0
    assert Path("run/report.html").read_text("utf-8") == page


def test_layers_are_those_of_the_blocks_not_of_the_attention_in_them(repsim_command, folder):
    chosen = ("--only", "layer_map", "--only", "attention_distance", "--only", "linear_probe")
    argv = ("analyse", *VIT, *chosen, "--layers", "blocks.1", "--out", "run")
    assert repsim_command(*argv).code == 0
    results = load_results("run")
    assert results["layer_map"].layer_x.values.tolist() == ["blocks.1"]
    assert results["linear_probe"].layer.values.tolist() == ["blocks.1"]
    assert results["attention_distance"].sizes["layer"] == 2
    found = repsim_command("attention", *VIT, "--layers", "blocks.1.attn", "--json").json
    assert found["coords"]["layer"]["data"] == ["blocks.1.attn"]
    assert found["coords"]["patch_height"]["attrs"]["units"] == "pixels"


def test_data_without_labels_have_no_probe(repsim_command, folder):
    (folder / "cat" / "00.png").rename(folder / "loose.png")
    ran = repsim_command("analyse", *VIT, "--only", "linear_probe", "--out", "run", "--json")
    assert ran.code == 0
    assert ran.json["analyses"] == {
        "linear_probe": {
            "status": "skipped",
            "reason": "linear_probe: the data have no labels.\n"
            "  Put the images of each class into a sub-folder, or labels into the .npz.",
        }
    }
    assert ran.json["files"]["report"] is None


def test_a_folder_grows_by_later_requests(repsim_command, folder):
    """Without ``--out`` it is named after the model."""
    one, other = ("--only", "residual_ratios"), ("--only", "layer_map")
    assert repsim_command("analyse", *VIT, *one).code == 0
    run = Path("repsim-vit")
    assert list(load_results(run)) == ["residual_ratios"]
    ran = repsim_command("analyse", *VIT, *one, *other)
    assert ran.code == 0
    assert "residual_ratios ..." not in ran.err
    assert set(load_results(run)) == {"residual_ratios", "layer_map"}

    page = run / "report.html"
    before = page.read_text()
    page.unlink()
    again = repsim_command("report", run, "--json")
    assert again.code == 0
    assert again.json["files"]["report"] == str(page)
    assert page.read_text() == before


def test_after_an_interrupt_the_next_one_runs(repsim_command, inputs, counted, monkeypatch):
    argv = ("analyse", "cli.tiny_models:counted", "--data", inputs, "--out", "run")
    names = ("layer_map", "attention_distance", "linear_probe")
    options = [word for name in names for word in ("--only", name)]
    monkeypatch.setenv("STOP_AT", "3")  # the first forward of the probe
    stopped = repsim_command(*argv, *options)
    assert stopped.code == 130
    assert "repsim analyse cli.tiny_models:counted" in stopped.err
    assert list(load_results("run")) == ["layer_map"]
    assert len(counted.read_text().splitlines()) == 3
    monkeypatch.delenv("STOP_AT")
    finished = repsim_command(*argv, *options)
    assert finished.code == 0
    assert [name for name in names if f"{name} ..." in finished.err] == ["linear_probe"]
    assert set(load_results("run")) == {"layer_map", "linear_probe"}


def test_an_analysis_that_fails_does_not_stop_the_others(repsim_command, inputs):
    argv = ("analyse", "cli.tiny_models:broken", "--data", "inputs.npz", "--out", "run")
    ran = repsim_command(*argv, "--json")
    assert ran.code == 1
    analyses = ran.json["analyses"]
    assert analyses["layer_map"]["status"] == "failed"
    assert "must be finite" in analyses["layer_map"]["reason"]
    assert len(analyses) == len(ALL)
    # The next call tries again what failed, and skips again what was skipped.
    again = repsim_command(*argv)
    assert again.code == 1
    assert "layer_map ..." in again.err
    assert "attention_distance ..." not in again.err


def test_fine_maps_are_localised_on_coarse_patches(repsim_command, folder):
    argv = ("analyse", "cli.tiny_models:cnn", "--size", 64, "--data", "photos", "--layers", "0")
    assert repsim_command(*argv, "--only", "localization", "--out", "run").code == 0
    assert load_results("run")["localization"].sizes["patch"] == 14 * 14


def test_attention_is_that_of_the_library(repsim_command, tmp_path, tiny):
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).standard_normal((12, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "images.npz", inputs=images)
    argv = ("attention", "cli.tiny_models:vit", "--data", "images.npz", "--no-progress")
    found = repsim_command(*argv, "--out", "run", "--json").json
    assert found["command"] == "attention"
    stored = load_results("run")["attention_distance"]
    np.testing.assert_array_equal(found["variables"]["distance"]["data"], stored.distance.values)
    torch.manual_seed(0)
    order = np.random.default_rng(0).permutation(12)
    data = [torch.from_numpy(images[order])]
    expected = repsim.attention_distance(tiny.vit(), data, progress=False)
    np.testing.assert_allclose(stored.distance.values, expected.distance.values)
    shown = repsim_command(*argv)
    assert "blocks.1.attn" in shown.out
    assert "farthest head" in shown.out


def test_the_places_of_tokens_can_be_passed(repsim_command, tmp_path):
    values = np.random.default_rng(0).standard_normal((16, 7, 8))
    np.savez(tmp_path / "rows.npz", inputs=values.astype(np.float32))
    argv = ("attention", "cli.tiny_models:encoder", "--data", "rows.npz", "--no-progress")
    refused = repsim_command(*argv)
    assert refused.code == 1
    assert "grid=(1, tokens)" in refused.err
    assert "On the command line: --grid" in refused.err
    ran = repsim_command(*argv, "--grid", "1x7", "--patch-size", 1, "--prefix", 0, "--json")
    assert ran.code == 0, ran.err
    distance = np.array(ran.json["variables"]["distance"]["data"])
    assert distance.shape == (1, 2)
    assert 0 < distance.min() < distance.max() < 6  # tokens
    for grid in ("7", "1x", "x7", "0x7", "1x7x1"):
        assert repsim_command(*argv, "--grid", grid).code == 2, grid


def test_the_tokens_of_text_are_found(repsim_command, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "text.npz", inputs=rng.integers(0, 20, (16, 7)))
    argv = ("attention", "cli.tiny_models:bert", "--data", "text.npz", "--no-progress", "--json")
    found = repsim_command(*argv)
    assert found.code == 0, found.err
    said = repsim_command(*argv, "--grid", "1x7", "--patch-size", 1, "--prefix", 0)
    distance, expected = (
        np.array(ran.json["variables"]["distance"]["data"]) for ran in (found, said)
    )
    np.testing.assert_array_equal(distance, expected)
    assert 0 < distance.min() < distance.max() < 6  # tokens


def test_attention_of_a_model_without_any_is_an_error(repsim_command, folder):
    ran = repsim_command("attention", "cli.tiny_models:cnn", "--size", 32, "--data", "photos")
    assert ran.code == 1
    assert "attention" in ran.err
    assert ran.out == ""


def test_layers_in_execution_order_with_their_shapes(repsim_command):
    found = repsim_command("layers", "cli.tiny_models:vit", "--layers", "blocks.0*", "--json").json
    layers = {each["name"]: each for each in found["layers"]}
    assert layers["blocks.0.attn.qkv"]["shape"] == ["n", 17, 72]
    assert layers["blocks.0"]["type"] == "Block"
    names = [each["name"] for each in found["layers"] if each["runs"]]
    assert (
        names.index("blocks.0.norm1") < names.index("blocks.0.attn.qkv") < names.index("blocks.0")
    )
    assert not layers["blocks.0.attn.attn_drop"]["runs"]
    blocks = repsim_command("layers", "cli.tiny_models:vit")
    assert "blocks.1 " in blocks.out
    assert "blocks.0.attn" not in blocks.out
    assert "layers: --layers '*' lists all" in blocks.out
    shown = repsim_command("layers", "cli.tiny_models:vit", "--layers", "blocks.0.attn*").out
    assert "(n, 17, 24)" in shown
    assert "does not run" in shown


def test_layers_of_a_model_that_runs_on_other_inputs(repsim_command, inputs):
    ran = repsim_command("layers", "cli.tiny_models:mlp")
    assert ran.code == 2
    assert "--size" in ran.err
    found = repsim_command("layers", "cli.tiny_models:mlp", "--data", "inputs.npz", "--json").json
    assert [each["shape"] for each in found["layers"]] == [["n", 8], ["n", 8], ["n", 4]]


def test_modules_that_run_twice_are_labelled_as_in_results(repsim_command, inputs, tmp_path):
    (tmp_path / "own_models_here.py").write_text(
        "from torch import nn\n"
        "def twice():\n"
        "    act = nn.ReLU()\n"
        "    return nn.Sequential(nn.Linear(6, 4), act, nn.Linear(4, 4), act)\n"
    )
    found = repsim_command("layers", "own_models_here:twice", "--data", "inputs.npz", "--json").json
    assert [each["name"] for each in found["layers"]] == ["0", "1:0", "2", "1:1"]
    (tmp_path / "of_two_inputs.py").write_text(
        "from torch import nn\n"
        "class Both(nn.Sequential):\n"
        "    def forward(self, image, text):\n"
        "        return super().forward(image + text)\n"
        "def both():\n"
        "    return Both(nn.Linear(6, 4))\n"
    )
    ran = repsim_command("layers", "of_two_inputs:both", "--data", "inputs.npz")
    assert ran.code == 1
    assert "If the model needs more, name a" in ran.err


def test_wrong_arguments_are_reported(repsim_command, folder):
    for code, said, argv in (
        (2, "no such folder", ("report", "missing")),
        (1, "no result in the folder", ("report", "photos")),
        (2, "no layer matches", ("layers", "cli.tiny_models:vit", "--layers", "nothing*")),
        (2, "Did you mean receptive_field", ("analyse", *VIT, "--only", "receptive_fields")),
        (2, "--data FOLDER", ("analyse", "cli.tiny_models:vit")),
        (2, "--data FOLDER", ("attention", "cli.tiny_models:vit")),
        (2, "MODEL", ("analyse",)),
        (2, "anlyse", ("anlyse",)),
        (2, "--no-such-option", ("--no-such-option",)),
    ):
        ran = repsim_command(*argv)
        assert ran.code == code, argv
        assert said in " ".join(ran.err.split()), argv
        assert ran.out == ""
        assert "Traceback" not in ran.err


def test_results_of_a_program_have_a_page_too(repsim_command, tmp_path):
    x = np.random.default_rng(0).standard_normal((20, 4))
    save_result(tmp_path / "mine", "map", repsim.cka_matrix({"a": x, "b": x**3}))
    assert repsim_command("report", "mine").code == 0
    assert Path("mine/report.html").is_file()


def test_version_and_help(repsim_command):
    assert repsim_command("--version").out == f"repsim {repsim.__version__}\n"
    shown = repsim_command("--help")
    assert shown.code == 0
    assert "Exit codes" in shown.out
    for command in ("measure", "compare", "attention", "analyse", "layers", "report"):
        assert command in shown.out
        assert f"repsim {command}" in repsim_command(command, "--help").out
    assert repsim_command().code == 2


def test_json_is_json_for_every_command(repsim_command, folder, arrays):
    for argv in (
        ("measure", "x.npy", "y.npy"),
        ("compare", "cli.tiny_models:vit", "--data", "photos", "--layers", "blocks.?"),
        ("attention", "cli.tiny_models:vit", "--data", "photos"),
        ("layers", "cli.tiny_models:vit"),
    ):
        ran = repsim_command(*argv, "--json")
        assert ran.code == 0, ran.err
        assert json.loads(ran.out)["command"] == argv[0]
