"""Models that people use, unmodified, with random weights."""

import re
from collections import Counter

import pytest
import torch
from torch import nn

from packages import timm, torchvision, transformers
from repsim import CaptureError, LayerNotFoundError
from repsim.capture import Recorder

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))

CONVOLUTIONAL = {
    "resnet18": lambda: torchvision.models.resnet18(),
    "densenet121": lambda: torchvision.models.densenet121(),
    "efficientnet_b0": lambda: torchvision.models.efficientnet_b0(),
    "timm-efficientnet_b0": lambda: timm.create_model("efficientnet_b0", pretrained=False),
}


def plain_hooks(model: nn.Module, keep) -> tuple[dict[str, torch.Tensor], list]:
    """A plain reference: a hook per module, and a list of their outputs."""
    seen, calls = {}, Counter()

    def hook(name):
        def record(module, args, output):
            seen[name, calls[name]] = keep(output)
            calls[name] += 1

        return record

    handles = [m.register_forward_hook(hook(name)) for name, m in model.named_modules() if name]
    return seen, handles


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_every_layer_of_a_convolutional_model(name, unchanged):
    model = CONVOLUTIONAL[name]().eval()
    next(m for m in model.modules() if isinstance(m, nn.BatchNorm2d)).train()
    cloned, handles = plain_hooks(model, lambda output: output.detach().clone())
    aliased, more = plain_hooks(model, lambda output: output.detach())
    with torch.no_grad(), unchanged(model), Recorder(model, all_modules=True) as rec:
        model(IMAGES)
    for handle in [*handles, *more]:
        handle.remove()

    calls = Counter(layer for layer, _ in cloned)
    labels = [layer if calls[layer] == 1 else f"{layer}:{k}" for layer, k in cloned]
    assert list(rec) == labels  # in execution order
    overwritten = 0
    for label, key in zip(labels, cloned, strict=True):
        assert torch.equal(rec[label], cloned[key]), label
        overwritten += not torch.equal(aliased[key], cloned[key])
    assert overwritten > len(labels) // 10  # the test would notice records without a copy


def test_an_in_place_relu_does_not_change_the_record_of_a_batch_norm():
    model = torchvision.models.resnet18().eval()
    aliased, handles = plain_hooks(model, lambda output: output.detach())
    with torch.no_grad(), Recorder(model, "bn1") as rec:
        model(IMAGES)
    assert aliased["bn1", 0].min() == 0
    assert rec["bn1"].min() < -0.5
    for handle in handles:
        handle.remove()


def test_labels_are_in_execution_order_not_registration_order():
    model = torchvision.models.resnet18().eval()
    with torch.no_grad(), Recorder(model, "layer2.0.*") as rec:
        model(IMAGES)
    assert [label.removeprefix("layer2.0.") for label in rec] == [
        *("conv1", "bn1", "relu:0", "conv2", "bn2", "downsample.0", "downsample.1", "downsample"),
        "relu:1",
    ]
    assert list(dict(model.layer2[0].named_modules()))[1:4] == ["conv1", "bn1", "relu"]


def test_vit(unchanged):
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=3)
    model.eval()
    x = torch.randn(5, 3, 32, 32)
    with unchanged(model), torch.no_grad(), Recorder(model, re.compile(r"blocks\.\d")) as rec:
        y = model(x)
        assert list(rec) == ["blocks.0", "blocks.1", "blocks.2"]
        assert torch.equal(model.forward_head(model.norm(rec["blocks.2"])), y)
        for transform, shape in {"cls": (5, 192), "mean": (5, 192), "flatten": (5, 960)}.items():
            with Recorder(model, "blocks.?", transform=transform) as reduced:
                model(x)
            assert reduced["blocks.0"].shape == shape
    with torch.no_grad(), Recorder(model, "*") as rec:
        model.forward_features(x)
    assert "head" not in rec
    assert list(rec)[-1] == "norm"


def test_vit_misspelt():
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, depth=3)
    with pytest.raises(LayerNotFoundError, match=r"Did you mean 'blocks\.2"):
        Recorder(model, ["blocks.1", "block.2"])


def test_torchvision_swin():
    """attn.qkv is used through its weight and never runs; inside there is no batch axis 0."""
    model = torchvision.models.SwinTransformer(
        patch_size=[4, 4], embed_dim=8, depths=[2], num_heads=[2], window_size=[4, 4], num_classes=3
    ).eval()
    name = "features.1.0.attn.qkv"
    missing = pytest.raises(LayerNotFoundError, match=f"did not run: '{name}'")
    with torch.no_grad(), missing, Recorder(model, ["features.1.0", name]):
        model(IMAGES[:, :, :32, :32])
    with torch.no_grad(), Recorder(model) as rec:
        model(IMAGES[:, :, :32, :32])
    assert name not in rec
    assert rec["features.1.0"].shape == (2, 8, 8, 8)


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation="sdpa",
    )
    return transformers.BertModel(config).eval()


def test_bert(bert, unchanged):
    ids = torch.randint(0, 30, (3, 7))
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[0, 4:] = 0
    # The library places hooks on the first call that asks for hidden states.
    bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    with unchanged(bert), torch.no_grad(), Recorder(bert) as rec:
        out = bert(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    for i in range(2):
        assert torch.equal(rec[f"encoder.layer.{i}"], out.hidden_states[i + 1])
    assert torch.equal(rec["embeddings"], out.hidden_states[0])
    assert torch.equal(rec["encoder"], out.last_hidden_state)  # a ModelOutput
    assert rec["encoder.layer.0.attention.self"].shape == (3, 7, 16)  # a tuple with None
    assert torch.equal(rec["pooler"], out.pooler_output)
    # (1, 7, 16), the same for all samples: left out without a word
    assert "embeddings.position_embeddings" not in rec


def test_bert_position_embeddings_by_name(bert):
    name = "embeddings.position_embeddings"
    wrong = pytest.raises(CaptureError, match=rf"{name}' is not(.|\n)*\(1, 7, 16\)")
    with torch.no_grad(), wrong, Recorder(bert, name):
        bert(input_ids=torch.randint(0, 30, (3, 7)))


def test_hugging_face_vit():
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        attn_implementation="sdpa",
    )
    model = transformers.ViTModel(config).eval()
    with torch.no_grad(), Recorder(model, "*", transform="flatten") as rec:
        out = model(pixel_values=IMAGES[..., :32, :32])
    assert torch.equal(rec["layernorm"], out.last_hidden_state.flatten(1))
    assert {len(value) for value in rec.values()} == {2}


class TestTransformerEncoder:
    @staticmethod
    def make(**options) -> nn.TransformerEncoder:
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
        return nn.TransformerEncoder(layer, 2).eval()

    def test_out_proj_never_runs(self):
        model = self.make()
        x = torch.randn(3, 5, 8)
        name = "layers.0.self_attn.out_proj"
        missing = pytest.raises(LayerNotFoundError, match=f"did not run: '{name}'")
        with torch.no_grad(), missing, Recorder(model, ["layers.0", name]):
            model(x)
        with torch.no_grad(), Recorder(model) as rec:
            y = model(x)
        assert name not in rec
        assert rec["layers.0.self_attn"].shape == (3, 5, 8)  # a tuple (output, None)
        assert torch.equal(rec["layers.1"], y)

    def test_on_the_fast_path_submodules_do_not_run(self):
        """Hooks on the layer's own modules turn it off, so their records are complete."""
        model = self.make()
        x = torch.randn(3, 5, 8)
        with torch.no_grad():
            fast = model(x)
            with Recorder(model, nn.Linear) as rec:
                slow = model(x)
        assert "layers.0.linear1" in rec
        torch.testing.assert_close(slow, fast)

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    def test_nested_tensors(self):
        model = self.make()
        x, padding = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
        padding[0, 3:] = True
        nested = pytest.raises(CaptureError, match=r"'layers\.0' returned a nested tensor")
        with torch.no_grad(), nested, Recorder(model, "layers.0"):
            model(x, src_key_padding_mask=padding)
        nothing = pytest.raises(CaptureError, match=r"nothing is left(.|\n)*a nested tensor")
        with torch.no_grad(), nothing, Recorder(model):
            model(x, src_key_padding_mask=padding)
        padded = Recorder(model, "layers.1", select=lambda output: output.to_padded_tensor(0.0))
        with torch.no_grad(), padded as rec:
            y = model(x, src_key_padding_mask=padding)
        assert torch.equal(rec["layers.1"], y)
        assert rec["layers.1"][0, 3:].abs().max() == 0


def test_lstm_tuples():
    model = nn.Sequential(nn.LSTM(4, 6, batch_first=True))
    with Recorder(model, "0") as rec:
        output, _ = model(torch.randn(3, 5, 4))
    assert torch.equal(rec["0"], output)
    with Recorder(model, "0", select=lambda out: out[1][0].movedim(1, 0)) as rec:
        model(torch.randn(3, 5, 4))
    assert rec["0"].shape == (3, 1, 6)
