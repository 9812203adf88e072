"""The names of models, their weights, and what is said where there is no such thing."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from cli import tiny_models
from repsim.cli._outcome import DataError, UsageError
from repsim.cli._session import Session
from repsim.cli.models._load import ModelRequest, load_model


@pytest.fixture
def load():
    def loaded(spec, **options):
        return load_model(Session(), ModelRequest(spec, **options))

    return loaded


def same(a: nn.Module, b: nn.Module) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "spec", ["cli.tiny_models:vit", "timm:test_vit", "torchvision:squeezenet1_1"]
)
def test_random_weights_follow_the_seed(load, spec, capsys):
    before = torch.random.get_rng_state()
    first, again, other = load(spec), load(spec), load(spec, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(first.module, again.module)
    assert not same(first.module, other.module)
    if not spec.startswith("cli"):
        assert "random weights (seed 1)" in capsys.readouterr().err
        assert other.weights == "random (seed 1)"


def test_a_model_gets_its_own_size_and_scale(load):
    own = load("timm:test_vit").preparation
    assert own.shape == tuple(timm.get_pretrained_cfg("test_vit").input_size)
    assert "Normalize" in own.label
    assert load("timm:test_vit", size=64).preparation.shape == (3, 64, 64)
    assert load("torchvision:squeezenet1_1").preparation.shape == (3, 224, 224)
    assert load("torchvision:squeezenet1_1", size=65).preparation.shape == (3, 65, 65)
    assert load("cli.tiny_models:vit").preparation.shape == (3, 32, 32)
    assert load("cli.tiny_models:hf_vit").preparation.shape == (3, 32, 32)
    assert load("cli.tiny_models:grey", size=9).preparation.shape == (1, 9, 9)
    assert load("cli.tiny_models:cnn").preparation is None


def test_the_preparation_is_that_of_the_library(load):
    image = pytest.importorskip("PIL.Image").effect_noise((90, 70), 80).convert("RGB")
    config = timm.data.resolve_model_data_config(timm.create_model("test_vit"))
    expected = timm.data.create_transform(**config, is_training=False)(image)
    torch.testing.assert_close(load("timm:test_vit").preparation(image), expected)

    half = load("timm:test_vit", scale="none").preparation(image)
    assert 0 <= half.min() < half.max() <= 1


def test_plain_pictures_are_cropped_in_the_middle_and_scaled(load):
    image = pytest.importorskip("PIL.Image")
    picture = image.new("RGB", (80, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 20, 40))  # what the crop takes off
    tensor = load("cli.tiny_models:cnn", size=32, scale="none").preparation(picture)
    expected = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 32, 32)
    torch.testing.assert_close(tensor, expected)
    tensor = load("cli.tiny_models:cnn", size=32, scale="half").preparation(picture)
    torch.testing.assert_close(tensor, 2 * expected - 1)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".wrapped.pth"])
def test_weights_from_a_file(load, tmp_path, suffix):
    torch.manual_seed(7)
    trained = tiny_models.mlp()
    path = tmp_path / f"weights{suffix}"
    state = trained.state_dict()
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(state, path)
    elif suffix == ".pt":
        torch.save(state, path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, path)
    loaded = load("cli.tiny_models:mlp", weights=path)
    assert same(loaded.module, trained)
    assert loaded.weights.startswith(path.name)


class Payload:
    """What a malicious pickle does when it is read."""

    def __reduce__(self):
        return print, ("code was run",)


def test_a_pickle_is_never_run(load, tmp_path, capsys):
    path = tmp_path / "weights.pt"
    torch.save({"0.weight": Payload()}, path)
    with pytest.raises(DataError, match="without running code"):
        load("cli.tiny_models:mlp", weights=path)
    assert "code was run" not in capsys.readouterr().out


def test_weights_of_another_model_are_named(load, tmp_path):
    path = tmp_path / "weights.pt"
    state = tiny_models.mlp().state_dict()
    state["0.weight"] = torch.zeros(2, 2)
    state["3.bias"] = state.pop("2.bias")
    torch.save(state, path)
    with pytest.raises(DataError) as caught:
        load("cli.tiny_models:mlp", weights=path)
    for said in ("missing: 2.bias", "unknown: 3.bias", "0.weight (2, 2), expected (8, 6)"):
        assert said in str(caught.value)
    for content in (b"not weights", b""):
        (tmp_path / "weights.safetensors").write_bytes(content)
        with pytest.raises(DataError, match="damaged"):
            load("cli.tiny_models:mlp", weights=tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("resnet18", "timm:NAME"),
        ("timm:resnet81", "Did you mean timm:resnet"),
        ("torchvision:resnet81", "torchvision:resnet18"),
        ("nowhere.at_all:model", "no module 'nowhere.at_all'"),
        ("cli.tiny_models:vitt", "Did you mean vit"),
        ("cli.tiny_models:number", "got int"),
    ],
)
def test_what_is_no_model(load, spec, said):
    with pytest.raises(UsageError) as caught:
        load(spec)
    assert said in str(caught.value)


def test_transformers_by_name(load):
    pytest.importorskip("transformers")
    for name in ("vitt", "ViTConfg"):
        with pytest.raises(UsageError, match="Did you mean transformers:[vV]i[tT]"):
            load(f"transformers:{name}")
    with pytest.raises(UsageError, match="no such folder"):
        load("transformers:./nowhere")


@pytest.mark.slow
def test_transformers_from_their_default_configuration(load):
    pytest.importorskip("transformers")
    by_type = load("transformers:vit", size=32)
    by_class = load("transformers:ViTConfig", size=32)
    assert by_type.module.config.image_size == 32
    assert by_type.preparation.shape == (3, 32, 32)
    assert same(by_type.module, by_class.module)
    assert load("transformers:ViTForImageClassification", size=32).module.classifier is not None


def test_transformers_from_a_folder(load, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    saved = tiny_models.hf_vit()
    saved.save_pretrained("model")
    (tmp_path / "model" / "preprocessor_config.json").write_text(
        '{"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}'
    )
    loaded = load("transformers:./model")
    assert same(loaded.module, saved)
    assert loaded.preparation.shape == (3, 32, 32)
    image = pytest.importorskip("PIL.Image").new("RGB", (50, 50), "white")
    torch.testing.assert_close(loaded.preparation(image), torch.ones(3, 32, 32))


def test_a_text_model_takes_no_images(load):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
    )
    loaded = load("cli.tiny_models:mlp")
    text = type(loaded)("bert", transformers.BertModel(config), "random", None)
    with pytest.raises(UsageError, match="input_ids, not images"):
        text.for_images()


@pytest.mark.parametrize("spec", ["timm:test_vit", "torchvision:squeezenet1_1"])
def test_published_weights_without_network(load, spec, monkeypatch):
    """The download is what fails; the message says what else to do."""

    def offline(*_, **__):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(DataError) as caught:
        load(spec, pretrained=True)
    for said in ("published weights of", "ConnectionError", "--weights FILE"):
        assert said in str(caught.value)


@pytest.mark.parametrize(
    "argv",
    [
        ("layers", "transformers:vit"),
        ("analyse", "cli.tiny_models:vit", "--data", "inputs.npz"),
        ("compare", "cli.tiny_models:mlp", "transformers:vit", "--data", "inputs.npz"),
    ],
)
def test_nobody_publishes_these_weights(repsim_command, inputs, argv):
    ran = repsim_command(*argv, "--pretrained")
    assert ran.code == 2
    assert "--pretrained: is for timm and torchvision" in ran.err


def test_a_device_that_is_not_there(load):
    with pytest.raises(UsageError, match="--device"):
        load("cli.tiny_models:mlp", device="nonsense")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="--device"):
            load("cli.tiny_models:mlp", device="cuda")


def test_a_function_that_raises_is_told_in_a_line(repsim_command, inputs):
    ran = repsim_command("layers", "cli.tiny_models:raising")
    assert ran.code == 1
    assert "ZeroDivisionError: no such luck" in ran.err
    assert "Traceback" not in ran.err
    assert "Traceback" in repsim_command("layers", "cli.tiny_models:raising", "--debug").err
