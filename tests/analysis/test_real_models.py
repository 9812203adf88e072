"""``compare`` on models that people use, all layers, against hooks that clone and float64 sums."""

import copy

import numpy as np
import pytest
import torch

import repsim
from analysis.plain import (
    Counted,
    activations,
    agrees,
    images,
    of_loops,
    reference,
    unchanged,
    without_versions,
)
from packages import timm, torchvision, transformers
from repsim import compare


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


@pytest.fixture(scope="module")
def other_resnet():
    torch.manual_seed(1)
    return torchvision.models.resnet18(num_classes=10)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return timm.create_model(
        "vit_tiny_patch16_224", img_size=32, patch_size=8, depth=4, num_classes=10
    )


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    return transformers.BertModel(config, add_pooling_layer=True)


@pytest.fixture(scope="module")
def texts():
    generator = torch.Generator().manual_seed(3)
    batches = []
    for n in (8, 6):
        lengths = torch.randint(3, 9, (n, 1), generator=generator)
        batches.append(
            {
                "input_ids": torch.randint(0, 50, (n, 8), generator=generator),
                "attention_mask": (torch.arange(8) < lengths).long(),
            }
        )
    return batches


def test_the_reference_is_the_papers_loops(resnet):
    data = images()
    _, _, values = reference(resnet, resnet, data)
    acts = [activations(resnet, lambda m, b=b: m(b), 8) for b in data]
    names = list(acts[0])
    for x, y in (("conv1", "bn1"), ("layer2.0.relu:1", "fc"), ("layer4", "layer1.0")):
        loop = of_loops([a[x] for a in acts], [a[y] for a in acts])
        assert values[names.index(x), names.index(y)] == pytest.approx(loop, abs=1e-12)


def test_two_resnets(resnet, other_resnet):
    data = images()
    with unchanged(resnet, other_resnet):
        result = compare(resnet, other_resnet, data=data, progress=False)
    agrees(result, *reference(resnet, other_resnet, data))
    assert result.sizes["layer_x"] == 75
    assert result.layer_x.values.tolist()[:4] == ["conv1", "bn1", "relu", "maxpool"]


def test_a_resnet_with_itself(resnet):
    data = images()
    result = compare(resnet, data=data, progress=False)
    agrees(result, *reference(resnet, resnet, data))
    np.testing.assert_allclose(np.diagonal(result.cka.values), 1, rtol=1e-9)


def test_a_vit_and_a_resnet(vit, resnet):
    data = images()
    with unchanged(vit, resnet):
        result = compare(vit, resnet, data=data, progress=False)
    agrees(result, *reference(vit, resnet, data))
    assert "blocks.3.mlp.fc2" in result.layer_x.values
    assert "layer4.1.bn2" in result.layer_y.values


@pytest.fixture
def by_keywords(bert, texts):
    """Labels and values of the plain hooks, without what has no batch (position embeddings)."""
    labels, _, values = reference(
        bert, bert, texts, lambda m, b: m(**b), size=lambda b: len(b["input_ids"])
    )
    return labels, values


def test_a_language_model_with_its_attention_mask(bert, texts, by_keywords):
    counted = Counted(bert)
    with unchanged(bert), pytest.warns(repsim.DegenerateWarning, match="token_type_embeddings"):
        result = compare(counted, data=texts, layers="inner.*", mask=None, progress=False)
    assert counted.forwards == len(texts)
    labels, values = by_keywords
    labels = [f"inner.{name}" for name in labels]
    assert len(labels) > 25
    agrees(result, labels, labels, values)
    constant = np.isnan(np.diagonal(result.cka.values))
    assert [name for name, nan in zip(labels, constant, strict=True) if nan] == [
        "inner.embeddings.token_type_embeddings"
    ]


def test_without_the_mask_the_values_are_others(bert, texts, by_keywords):
    """The test above would notice a dropped mask."""
    ignored = [{"input_ids": b["input_ids"]} for b in texts]
    with pytest.warns(repsim.DegenerateWarning, match="token_type_embeddings"):
        result = compare(bert, data=ignored, progress=False)
    labels, values = by_keywords
    assert result.layer_x.values.tolist() == labels
    change = np.nan_to_num(np.abs(result.cka.values - values))
    embeddings = [i for i, name in enumerate(labels) if name.startswith("embeddings")]
    assert change[np.ix_(embeddings, embeddings)].max() < 1e-6
    assert change[labels.index("pooler")].max() > 1e-3


@pytest.mark.parametrize("model", ["resnet", "vit"])
def test_twins_are_one(model, request):
    """In-place activations and shared tensors; elsewhere the value is .861."""
    model = request.getfixturevalue(model)
    result = compare(model, copy.deepcopy(model), data=images(), progress=False)
    np.testing.assert_allclose(np.diagonal(result.cka.values), 1, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.cka.values, result.cka.values.T, atol=1e-9)


def test_outputs_that_an_in_place_relu_overwrites_are_kept(resnet):
    data = images()
    result = compare(resnet, data=data, layers=["bn1", "relu"], progress=False)
    assert result.cka.sel(layer_x="bn1", layer_y="relu").item() < 0.999
    _, _, values = reference(resnet, resnet, data)
    np.testing.assert_allclose(result.cka.values, values[1:3, 1:3], atol=1e-6)


def test_the_row_of_the_layer_that_changed_moves(resnet):
    """Labels follow the values: layers that ran before the changed one keep theirs."""
    data, changed = images(), copy.deepcopy(resnet)
    before = compare(resnet, data=data, progress=False).cka
    torch.nn.init.normal_(changed.layer3[0].downsample[0].weight)
    after = compare(changed, resnet, data=data, progress=False).cka
    moved = np.abs(after.values - before.values).max(1) > 1e-5
    names = after.layer_x.values.tolist()
    first = names.index("layer3.0.downsample.0")
    # It is registered after conv1, bn1, relu, conv2, bn2 of its block, and runs after them too.
    assert names[first - 1] == "layer3.0.bn2"
    assert not moved[:first].any()
    assert moved[first:].all()


def test_shared_grams_change_no_value(resnet, vit):
    options = {"data": images(), "progress": False}
    for kernel in ("linear", "rbf"):
        shared = compare(resnet, vit, kernel=kernel, **options)
        own = compare(resnet, vit, kernel=kernel, forward=without_versions, **options)
        np.testing.assert_allclose(shared.cka.values, own.cka.values, rtol=1e-12)
        assert shared.layer_x.equals(own.layer_x)


def test_bfloat16(vit):
    """Half precision all the way through the model; the Gram is float32."""
    half = copy.deepcopy(vit).bfloat16()
    data = [b.bfloat16() for b in images()]
    agrees(compare(half, data=data, progress=False), *reference(half, half, data), atol=1e-5)


def test_autocast(vit):
    data = images()

    def forward(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return model(batch)

    result = compare(vit, data=data, forward=forward, progress=False)
    agrees(result, *reference(vit, vit, data, forward), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        around = compare(vit, data=data, progress=False)
    np.testing.assert_allclose(around.cka.values, result.cka.values, atol=1e-9)


def test_autocast_changes_values(vit):
    """The test above would notice if the forward ran in float32."""
    data = images()
    _, _, half = reference(
        vit, vit, data, lambda m, b: torch.autocast("cpu", torch.bfloat16).__call__(m)(b)
    )
    _, _, full = reference(vit, vit, data)
    assert np.abs(half - full).max() > 1e-4
