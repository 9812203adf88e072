"""``head_subset_cka`` against the heads' outputs set side by side by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import unchanged
from packages import timm, torchvision
from repsim import CaptureError, InputError, LayerNotFoundError, RepsimWarning, head_subset_cka

quiet = {"progress": False}


def vit(seed=0, heads=4, **options):
    torch.manual_seed(seed)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=heads,
        num_classes=5,
        **options,
    )
    with torch.no_grad():  # at initialisation all heads attend alike
        for block in model.blocks:
            block.attn.qkv.weight.mul_(12 * torch.linspace(0.2, 1.5, 96)[:, None])
    return model


def cnn(seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3))


def images(sizes=(12, 9), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 32, 32, generator=generator) for n in sizes]


def outputs_of_heads(model, batch, block=0):
    """What the heads of a timm block put out, (n, heads, tokens · width), in float64."""
    attention = model.blocks[block].attn
    kept = []
    handle = attention.qkv.register_forward_hook(lambda *args: kept.append(args[-1].double()))
    with torch.no_grad():
        model.eval()(batch)
    handle.remove()
    n, tokens, _ = kept[0].shape
    q, k, v = kept[0].reshape(n, tokens, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return (weights @ v).flatten(2)


def by_hand(model, other, batches, heads):
    """CKA and standard error of the heads side by side, (layers of the other)."""
    acc = repsim.MinibatchCKA()
    for batch in batches:
        x = outputs_of_heads(model, batch)[:, heads].flatten(1)
        with torch.no_grad(), repsim.Recorder(other.eval()) as recorder:
            other(batch)
        acc.update({"x": x.numpy()}, {k: v.double().numpy() for k, v in recorder.items()})
    return acc.compute().values[0], acc.standard_error().values[0]


def test_heads_side_by_side():
    """Growing and sliding subsets, in the order of the distances, a short last batch included."""
    model, other, batches = vit(), cnn(), images((12, 9, 5))
    distances = repsim.attention_distance(model, batches, layers="blocks.0.attn", **quiet)
    result = head_subset_cka(
        model, other, batches, layer="blocks.0.attn", layers_y="*", width=2, **quiet
    )
    far = distances.distance.values[0]
    np.testing.assert_allclose(result.head_distance.values, far, rtol=1e-12)
    order = np.argsort(far).tolist()
    assert order != sorted(order), "the order has to matter"
    expected = [("growing", order[:k]) for k in range(1, 5)]
    expected += [("sliding", order[k : k + 2]) for k in range(3)]
    assert result.kind.values.tolist() == [kind for kind, _ in expected]
    assert result.heads.values.tolist() == [",".join(map(str, h)) for _, h in expected]
    assert result["size"].values.tolist() == [1, 2, 3, 4, 2, 2, 2]
    assert result.layer_y.values.tolist() == ["0", "1", "2"]
    for row, (_, heads) in enumerate(expected):
        assert result.mean_distance.values[row] == pytest.approx(far[heads].mean(), rel=1e-12)
        cka, error = by_hand(model, other, batches, heads)
        np.testing.assert_allclose(result.cka.values[row], cka, atol=2e-6)
        np.testing.assert_allclose(result.standard_error.values[row], error, atol=2e-6)
    for head in range(4):
        cka, _ = by_hand(model, other, batches, [head])
        np.testing.assert_allclose(result.head_cka.values[head], cka, atol=2e-6)


def test_the_result():
    result = head_subset_cka(
        vit(),
        cnn(),
        images(),
        layer="blocks.1.attn",
        layers_y="2",
        subsets="sliding",
        names=("transformer", "convolutional"),
        **quiet,
    )
    assert set(result.kind.values) == {"sliding"}
    assert result["size"].values.tolist() == [1] * 4  # a quarter of four heads
    assert result.mean_distance.attrs["units"] == result.head_distance.attrs["units"] == "pixels"
    for variable in (result.cka, result.standard_error, result.head_cka):
        assert variable.dtype == np.float64
        assert variable.attrs["units"] == "1"
    expected = {
        "model_x": "transformer",
        "model_y": "convolutional",
        "layer": "blocks.1.attn",
        "n_samples": 21,
        "n_batches": 2,
        "n_skipped_batches": 0,
    }
    assert expected.items() <= result.attrs.items()
    assert repsim.plot.head_subsets(result).get_ylabel()


def test_a_model_with_itself():
    """All heads together are the input of the projection, even if modules are shared."""
    model, batches = vit(), images()
    result = head_subset_cka(
        model,
        model,
        batches,
        layer="blocks.0.attn",
        layers_y=["blocks.0.attn.norm"],
        subsets="growing",
        **quiet,
    )
    assert result.cka.values[-1, 0] == pytest.approx(1, abs=1e-6)


def test_windows_belong_to_their_image():
    """torchvision's Swin attends in windows: 64 pixels, 16×16 tokens, 7×7 windows."""
    torch.manual_seed(0)
    swin = torchvision.models.SwinTransformer(
        [4, 4], embed_dim=16, depths=[2], num_heads=[2], window_size=[4, 4], num_classes=3
    )
    batches = [torch.randn(n, 3, 32, 32) for n in (6, 7)]
    result = head_subset_cka(
        swin, swin, batches, layer="features.1.0.attn", layers_y="features.1.0.attn", **quiet
    )
    assert result.attrs["n_samples"] == 13
    assert ((result.cka > 0) & (result.cka < 1 + 1e-9)).all()


def test_models_come_back_as_they_were():
    model, other = vit(), cnn()
    with unchanged(model, other):
        head_subset_cka(model, other, images(), layer="blocks.0.attn", layers_y="*", **quiet)


def test_one_batch_has_no_standard_error():
    with pytest.warns(RepsimWarning, match="one batch"):
        result = head_subset_cka(
            vit(), cnn(), images((8,)), layer="blocks.0.attn", layers_y="*", **quiet
        )
    assert result.standard_error.isnull().all()


def test_short_batches_are_skipped_and_reported():
    with pytest.warns(RepsimWarning, match="left out"):
        result = head_subset_cka(
            vit(), cnn(), images((8, 9, 3)), layer="blocks.0.attn", layers_y="*", **quiet
        )
    assert (result.attrs["n_samples"], result.attrs["n_skipped_samples"]) == (17, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subsets": "shrinking"}, InputError, "'growing', 'sliding'"),
        ({"subsets": []}, InputError, "unknown subsets"),
        ({"width": 0}, InputError, "width must be a positive integer"),
        ({"width": 5}, InputError, "width: 5    heads: 4"),
        ({"layer": ["blocks.0.attn"]}, InputError, "name of one module"),
        ({"layer": "blocks.9.attn"}, LayerNotFoundError, "blocks.9.attn"),
        ({"layer": "blocks.0.mlp"}, LayerNotFoundError, "no attention was seen in"),
        ({"layer": "blocks.*.attn"}, InputError, "one attention"),
        ({"layers_y": "7"}, LayerNotFoundError, "7"),
        ({"grid": 5}, InputError, "grid does not fit"),
        ({"transform": "median"}, InputError, "transform"),
    ],
)
def test_errors(options, error, message):
    arguments = {"layer": "blocks.0.attn", "layers_y": "*", **quiet, **options}
    with pytest.raises(error, match=message):
        head_subset_cka(vit(), cnn(), images(), **arguments)


def test_nothing_in_the_layer():
    with pytest.raises(CaptureError):
        head_subset_cka(cnn(), cnn(), images(), layer="0", layers_y="*", **quiet)


def test_attention_to_another_sequence_has_no_order_of_heads():
    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 8, 8, stride=8)
            self.queries = nn.Parameter(torch.randn(5, 8))
            self.attention = nn.MultiheadAttention(8, num_heads=2, batch_first=True)

        def forward(self, x):
            tokens = self.patches(x).flatten(2).mT
            return self.attention(self.queries.expand(len(x), -1, -1), tokens, tokens)[0]

    with pytest.raises(CaptureError, match="'attention' has none.\n  it attends to another"):
        head_subset_cka(Pooling(), cnn(), images(), layer="attention", layers_y="*", **quiet)


def test_labels_stay_with_their_values_where_the_order_changes():
    """A model may run its layers in another order in a later batch."""

    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
            self.turns = 0

        def forward(self, x):
            self.turns += 1
            first, second = (self.a, self.b) if self.turns % 2 else (self.b, self.a)
            return first(x) + second(x)

    torch.manual_seed(3)
    either, model, batches = Either(), vit(), images()
    arguments = {"layer": "blocks.0.attn", **quiet}
    result = head_subset_cka(model, either, batches, layers_y=["a", "b"], **arguments)
    assert result.layer_y.values.tolist() == ["a", "b"]
    for name in "ab":
        alone = head_subset_cka(model, either, batches, layers_y=name, **arguments)
        np.testing.assert_allclose(result.cka.sel(layer_y=name), alone.cka[:, 0], atol=1e-9)


def test_errors_name_the_operation():
    with pytest.raises(CaptureError, match="head_subset_cka: transform must keep the samples"):
        head_subset_cka(
            vit(),
            cnn(),
            images(),
            layer="blocks.0.attn",
            layers_y="*",
            transform=torch.sum,
            **quiet,
        )


def test_padding_of_texts_does_not_count():
    """Padding changes nothing under "mean" and "last"; "flatten" warns."""
    from analysis.text_models import language_model, texts

    model = language_model("llama")

    def scores(fill, **options):
        batches = texts("right")
        for batch in batches:
            batch["input_ids"].masked_fill_(batch["attention_mask"] == 0, fill)
        given = {"layer": "layers.1.self_attn", "layers_y": "layers.?", "transform": "mean"}
        result = head_subset_cka(model, model, batches, **given, **options, **quiet)
        assert result.head_distance.units == result.mean_distance.units == "tokens"
        return result.cka.values

    for transform in ("mean", "last"):
        np.testing.assert_array_equal(
            scores(0, transform_x=transform), scores(7, transform_x=transform)
        )
    with pytest.warns(RepsimWarning, match="padding is compared as if it were data"):
        scores(0)


def test_one_token_of_windows_is_refused():
    swin = torchvision.models.swin_t(num_classes=5)
    with pytest.raises(InputError, match="transform_x of attention in windows must be"):
        head_subset_cka(
            swin, cnn(), images(), layer="features.1.0.attn", layers_y="0", transform_x="last",
            **quiet,
        )  # fmt: skip
