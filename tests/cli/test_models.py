"""Models by name: their weights, their images, and the errors for unknown names."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import repsim
from repsim.report import load_results


@pytest.fixture
def compared(repsim_command):
    """A function that compares models and returns the result and the digests of their weights."""

    def run(*argv: object):
        for path in Path().glob("run/*"):
            path.unlink()
        ran = repsim_command("compare", *argv, "--out", "run", "--no-progress")
        assert ran.code == 0, ran.err
        weights = json.loads(Path("run/run.json").read_text())["weights"]
        return load_results("run")["compare"], weights

    return run


@pytest.fixture
def few(tmp_path) -> Path:
    """``few``: eight images of different sizes."""
    rng = np.random.default_rng(0)
    (tmp_path / "few").mkdir()
    for at in range(8):
        pixels = rng.integers(0, 255, (36 + at, 44, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "few" / f"{at}.png")
    return tmp_path / "few"


@pytest.mark.slow
def test_random_weights_follow_the_seed(compared, few):
    torch = pytest.importorskip("torch")
    for spec, layers in {
        "cli.tiny_models:vit": "head",
        "timm:test_vit": "head",
        "torchvision:squeezenet1_1": "classifier.1",
    }.items():
        before = torch.random.get_rng_state()
        size = () if spec.startswith("cli") else ("--size", 64)
        argv = (spec, spec, "--data", few, *size, "--layers", layers)
        same, alike = compared(*argv, "--seed-y", 0)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert alike["model_x"] == alike["model_y"]
        other, different = compared(*argv)
        assert different["model_x"] == alike["model_x"] != different["model_y"], spec
        if not spec.startswith("cli"):
            assert other.attrs["weights_y"] == "random (seed 1)"
            assert same.attrs["weights_y"] == "random (seed 0)"


@pytest.mark.slow
def test_a_model_gets_its_own_size_and_scale(compared, few):
    for spec, layer, size, said in (
        ("timm:test_vit", "norm", None, ("size=(160, 160)", "Normalize")),
        ("timm:test_vit", "norm", 64, ("size=(64, 64)", "Normalize")),
        ("torchvision:squeezenet1_1", "features.3", None, ("crop_size=[224]", "mean=[0.485")),
        ("torchvision:squeezenet1_1", "features.3", 65, ("crop_size=[65]", "resize_size=[74]")),
        (
            "cli.tiny_models:vit",
            "norm",
            None,
            ("centre 32x32", "3 channels", "less [0.5, 0.5, 0.5]"),
        ),
        ("cli.tiny_models:hf_vit", "layernorm", None, ("centre 32x32", "3 channels")),
        ("cli.tiny_models:grey", "0", 9, ("centre 9x9", "1 channels")),
    ):
        options = () if size is None else ("--size", size)
        result, _ = compared(spec, "--data", few, "--limit", 4, "--layers", layer, *options)
        for each in said:
            assert each in result.attrs["preparation_x"], spec


def test_the_preparation_is_that_of_the_library(compared, few):
    torch, timm = pytest.importorskip("torch"), pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("test_vit")
    order = np.random.default_rng(0).permutation(8)
    for options, changed in (
        ((), {}),
        (("--normalise", "none"), {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
    ):
        config = timm.data.resolve_model_data_config(model) | changed
        transform = timm.data.create_transform(**config, is_training=False)
        images = torch.stack([transform(Image.open(few / f"{at}.png")) for at in order])
        chosen = ["patch_embed", "blocks.5"]
        expected = repsim.compare(model, data=images.split(4), layers=chosen, progress=False)
        layers = [word for layer in chosen for word in ("--layers", layer)]
        argv = ("--data", few, "--batch-size", 4, *layers, *options)
        found, _ = compared("timm:test_vit", *argv)
        np.testing.assert_allclose(found.cka, expected.cka, rtol=1e-6)


def test_weights_from_a_file(compared, inputs, tiny):
    import torch

    from repsim.analysis import model_digest

    torch.manual_seed(7)
    trained = tiny.mlp()
    state = trained.state_dict()
    pytest.importorskip("safetensors.torch").save_file(state, "weights.safetensors")
    torch.save(state, "weights.pt")
    wrapped = {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}
    torch.save(wrapped, "weights.wrapped.pth")
    mlp = "cli.tiny_models:mlp"
    for name in ("weights.safetensors", "weights.pt", "weights.wrapped.pth"):
        result, digests = compared(mlp, mlp, "--data", inputs, "--weights-y", name)
        assert digests["model_y"] == model_digest(trained) != digests["model_x"], name
        assert result.attrs["weights_y"].startswith(f"{name} (sha256 ")


class Payload:
    """What a malicious pickle does when it is read."""

    def __reduce__(self):
        return print, ("code was run",)


def test_weights_of_another_model_are_refused(repsim_command, tiny):
    torch = pytest.importorskip("torch")
    state = tiny.mlp().state_dict()
    state["0.weight"] = torch.zeros(2, 2)
    state["3.bias"] = state.pop("2.bias")
    torch.save(state, "other.pt")
    torch.save({**tiny.mlp().state_dict(), "0.bias": [1.0], 3: "a"}, "lists.pt")
    torch.save({"0.weight": Payload()}, "pickle.pt")
    torch.save([1, 2], "list.pt")
    np.save("rows.npy", np.ones((3, 2)))
    Path("text.safetensors").write_text("not weights")
    Path("empty.safetensors").write_text("")
    for name, said in {
        "other.pt": ("missing: 2.bias", "unknown: 3.bias", "0.weight (2, 2), expected (8, 6)"),
        "lists.pt": ("unknown: 3", "not a tensor: 0.bias list"),
        "pickle.pt": ("be read without running code", "holds print, which is no tensor"),
        "rows.npy": ("torch.save did not write it",),
        "list.pt": ("holds no state dict",),
        "text.safetensors": ("damaged",),
        "empty.safetensors": ("damaged",),
    }.items():
        ran = repsim_command("layers", "cli.tiny_models:mlp", "--weights", name)
        assert ran.code == 1, name
        assert "code was run" not in ran.err + ran.out
        assert "will likely succeed" not in ran.err  # the advice to read it unsafely
        for each in said:
            assert each in ran.err, name


def test_too_little_memory_is_not_taken_for_a_damaged_file(repsim_command, monkeypatch):
    torch, safe = pytest.importorskip("torch"), pytest.importorskip("safetensors.torch")

    def full(*_args, **_options):
        raise MemoryError("no room")

    names = ("a.pt", "a.safetensors")
    for name in names:
        Path(name).write_bytes(b"")
    np.savez("a.npz", np.zeros((4, 2)))
    for module, function in ((torch, "load"), (safe, "load_file"), (np, "load")):
        monkeypatch.setattr(module, function, full)
    layers = ("layers", "cli.tiny_models:mlp", "--weights")
    one = ("cli.tiny_models:mlp", "--data", "a.npz", "--out", "run")
    for words in (
        (*layers, "a.pt"), (*layers, "a.safetensors"), ("compare", *one),
        ("measure", "a.npz", "a.npz"),
    ):  # fmt: skip
        ran = repsim_command(*words)
        assert (ran.code, ran.err.splitlines()[0]) == (1, "error: MemoryError: no room"), words


def test_names_of_no_model_are_refused_with_the_near_ones(repsim_command):
    for spec, said in {
        "resnet18": "Write timm:resnet18, torchvision:resnet18",
        "timm:resnet81": "Did you mean timm:resnet",
        "timm:no_such_model_at_all": "no model of this name",
        "torchvision:resnet81": "torchvision:resnet18",
        "nowhere.at_all:model": "no module 'nowhere.at_all'",
        "tiny_models.py:mlp": "Write tiny_models:mlp",
        "./tiny_models.py:mlp": "Write tiny_models:mlp",
        "./cli/tiny_models:mlp": "Write cli.tiny_models:mlp",
        "/cli/tiny_models:mlp": "Write package.module:mlp",
        "tiny_models.py": "Write tiny_models:FUNCTION",
        "weights.pt": "--weights weights.pt",
        "x.npy": "repsim measure takes arrays",
        "cli.tiny_models:mlp": "--data FILE.npz",
        "cli.tiny_models:vitt": "Did you mean vit",
        "cli.tiny_models:number": "got int",
        "cli.tiny_models:wide": "def my_model(): return wide(...)",
        "cli.tiny_models:ready": "is a model, not a function",
        ".": "Write transformers:. if it is a folder",
        "transformers:vitt": "Did you mean transformers:vit",
        "transformers:ViTConfg": "Did you mean transformers:ViT",
        "transformers:./nowhere": "no such folder",
    }.items():
        ran = repsim_command("layers", spec, "--no-progress")
        assert ran.code == 2, spec
        assert said in ran.err, spec
        assert ran.out == ""


def test_transformers_from_their_default_configuration(repsim_command, compared, few):
    pytest.importorskip("transformers")
    names = ("transformers:levit", "transformers:LevitConfig")
    argv = ("--seed-y", 0, "--size", 64, "--layers", "encoder.stages.2")
    result, digests = compared(*names, "--data", few, *argv)
    assert digests["model_x"] == digests["model_y"]
    assert "centre 64x64" in result.attrs["preparation_y"]
    by_class = "transformers:LevitForImageClassification"
    assert "classifier" in repsim_command("layers", by_class, "--layers", "*", "--size", 64).out


def test_transformers_from_a_folder(compared, few, tiny):
    torch = pytest.importorskip("torch")
    from repsim.analysis import model_digest

    torch.manual_seed(3)
    saved = tiny.hf_vit()
    saved.save_pretrained("model")
    Path("model/preprocessor_config.json").write_text(
        '{"image_mean": [0.25, 0, 0], "image_std": [1, 1, 1]}'
    )
    result, digests = compared("transformers:./model", "--data", few, "--layers", "embeddings")
    assert digests["model_x"] == model_digest(saved)
    assert result.attrs["weights_x"] == "folder ./model"
    assert "centre 32x32" in result.attrs["preparation_x"]
    assert "less [0.25, 0.0, 0.0], over [1.0, 1.0, 1.0]" in result.attrs["preparation_x"]


def test_a_text_model_takes_no_images(repsim_command, few):
    ran = repsim_command("compare", "cli.tiny_models:bert", "--data", few)
    assert ran.code == 2
    assert "input_ids, not images" in ran.err


def test_published_weights_without_network(repsim_command, monkeypatch):
    """The hub is asked once, unless the weights are on the disk; the message names alternatives."""
    asked = []

    def offline(*arguments, **_):
        asked.append(arguments)
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    monkeypatch.setattr("huggingface_hub.file_exists", offline)
    for spec in ("timm:test_vit", "torchvision:squeezenet1_1"):
        ran = repsim_command("layers", spec, "--pretrained")
        assert ran.code == 1
        for said in (f"published weights of {spec}", "ConnectionError", "--weights FILE"):
            assert said in ran.err
    assert asked[0] == ("timm/test_vit.r160_in1k", "model.safetensors")

    asked.clear()
    state = importlib.import_module("timm").create_model("test_vit").state_dict()
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: state)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: "model.safetensors")
    assert repsim_command("layers", "timm:test_vit", "--pretrained").code == 0
    assert not asked


def test_unpublished_weights(repsim_command, inputs):
    for argv in (
        ("layers", "transformers:vit"),
        ("analyse", "cli.tiny_models:vit", "--data", "inputs.npz"),
        ("compare", "cli.tiny_models:mlp", "transformers:vit", "--data", "inputs.npz"),
    ):
        ran = repsim_command(*argv, "--pretrained")
        assert ran.code == 2
        assert "--pretrained: is for timm and torchvision" in ran.err


def test_a_device_that_is_not_there(repsim_command):
    torch = pytest.importorskip("torch")
    for device in ("nonsense", *(() if torch.cuda.is_available() else ("cuda",))):
        ran = repsim_command("layers", "cli.tiny_models:mlp", "--device", device)
        assert ran.code == 2
        assert f"--device: the model cannot be moved there.\n  got {device}" in ran.err


def test_the_error_of_a_function_is_one_line(repsim_command):
    ran = repsim_command("layers", "cli.tiny_models:raising")
    assert ran.code == 1
    assert "ZeroDivisionError: no such luck" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in repsim_command("layers", "cli.tiny_models:raising", "--debug").err


def test_a_missing_library_of_models_is_named(repsim_command, monkeypatch):
    pytest.importorskip("torch")
    for name in ("timm", "torchvision", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
        ran = repsim_command("layers", f"{name}:resnet18")
        assert ran.code == 2
        assert f"{name}, which is not installed" in ran.err


@pytest.mark.slow
def test_blocks_are_the_repeated_parts_of_a_model(repsim_command, greys):
    for spec, size, blocks in (
        ("timm:test_vit", 32, [f"blocks.{k}" for k in range(6)]),
        ("torchvision:resnet18", 32, [f"layer{k}.{i}" for k in range(1, 5) for i in range(2)]),
        ("cli.tiny_models:cnn", 32, ["0", "4"]),  # nothing repeats: what has weights
        # Not the convolutions in them.
        ("torchvision:mobilenet_v3_small", 32, [f"features.{k}" for k in range(1, 12)]),
        # One in each stage; that of stage 3 is of another class.
        ("timm:test_resnet", 32, [f"layer{k}.0" for k in range(1, 5)]),
        (
            "cli.tiny_models:torchvision_swin",
            32,
            ["features.1.0", "features.1.1", "features.3.0", "features.3.1"],
        ),
        ("torchvision:squeezenet1_1", 64, [f"features.{k}" for k in (3, 4, 6, 7, 9, 10, 11, 12)]),
    ):
        out = spec.partition(":")[2]
        argv = ("--data", greys, "--size", size, "--only", "linear_probe")
        ran = repsim_command("analyse", spec, *argv, "--out", out, "--no-progress")
        assert ran.code == 0, ran.err
        assert load_results(out)["linear_probe"].layer.values.tolist() == blocks, spec
