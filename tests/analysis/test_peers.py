"""Each test is a defect that other packages have when they compare models."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from analysis.plain import Shuffled, activations, images, inputs, net, reference, state
from packages import torchvision
from repsim import MinibatchCKA, compare

quiet = {"progress": False}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=10)


class Branches(nn.Module):
    """A model that returns its two inputs, which are the representations."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Identity(), nn.Identity()

    def forward(self, x, y):
        return self.a(x), self.b(y)


def of_pairs(pairs, dtype=torch.float32, **options):
    """CKA of two representations through compare."""
    data = [{"x": x.to(dtype), "y": y.to(dtype)} for x, y in pairs]
    result = compare(Branches(), data=data, layers="a", layers_y="b", **quiet, **options)
    return result.cka.item()


def correlated(n, p, batches=4, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def noise():
        return torch.randn(n, p, generator=generator, dtype=torch.float64)

    out = []
    for _ in range(batches):
        common = noise()
        out.append((common + noise(), common + noise()))
    return out


def exact(pairs):
    acc = MinibatchCKA()
    for x, y in pairs:
        acc.update({"x": x.numpy()}, {"y": y.numpy()})
    return acc.compute().item()


def test_raw_grams_cancel_in_float32():
    """Elsewhere: true .584 → .0, −1.75 and complex numbers at mean/σ = 30."""
    for mean in (30.0, 1e4):
        pairs = [((x + mean).float(), (y + mean).float()) for x, y in correlated(16, 24)]
        truth = exact([(x.double(), y.double()) for x, y in pairs])
        assert 0.2 < truth < 0.9
        assert of_pairs(pairs) == pytest.approx(truth, abs=2e-5)


def test_one_feature_at_300_of_768():
    """Elsewhere: .449 → 1.0."""
    pairs = correlated(16, 768)
    truth = exact(pairs)
    offset = torch.zeros(768, dtype=torch.float64)
    offset[5] = 300
    assert of_pairs([(x + offset, y + offset) for x, y in pairs]) == pytest.approx(truth, abs=1e-4)
    assert truth < 0.9


def test_a_short_last_batch_weighs_as_much_as_a_full_one():
    """Elsewhere: RMSE .128 against .004."""
    errors, uniform = [], []
    for seed in range(20):
        pairs = correlated(32, 4, 3, seed)
        pairs.append(tuple(v[:4] for v in correlated(32, 4, 1, seed + 100)[0]))
        truth = exact(correlated(32, 4, 40, seed + 200))
        errors.append(of_pairs(pairs) - truth)
        sums = np.zeros(3)
        for x, y in pairs:
            for i, (a, b) in enumerate(((x, y), (x, x), (y, y))):
                sums[i] += float(repsim.hsic(a, b, estimator="unbiased"))
        uniform.append(sums[0] / np.sqrt(sums[1] * sums[2]) - truth)
    assert np.std(errors) < 0.8 * np.std(uniform)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_last_batch_of_3_raises_after_all_the_work(n):
    x, data = net(), inputs()
    expected = compare(x, data=data, **quiet).cka
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        result = compare(x, data=[*data, data[0][:n]], **quiet).cka
    np.testing.assert_array_equal(result.values, expected.values)


def test_an_in_place_relu_overwrites_the_batch_norm(resnet):
    """Elsewhere: twins score .861."""
    twins = compare(resnet, copy.deepcopy(resnet), data=images(), **quiet).cka
    np.testing.assert_allclose(np.diagonal(twins.values), 1, atol=1e-6)
    plain = copy.deepcopy(resnet)
    for module in plain.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    apart = compare(plain, data=images(), **quiet).cka
    np.testing.assert_allclose(twins.values, apart.values, atol=1e-9)


def test_rows_in_execution_order_labels_in_registration_order():
    """Every value has the labels of its layers, in any order of registration."""

    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.last, self.middle, self.first = nn.Linear(7, 3), nn.Linear(8, 7), nn.Linear(6, 8)

        def forward(self, x):
            return self.last(self.middle(self.first(x)).relu())

    x, data = Reversed(), inputs()
    cka = compare(x, data=data, **quiet).cka
    assert cka.layer_x.values.tolist() == ["first", "middle", "last"]
    acts = [activations(x, lambda m, b=b: m(b), 8) for b in data]
    for a in ("first", "middle", "last"):
        for b in ("first", "middle", "last"):
            value = exact([(torch.tensor(t[a]), torch.tensor(t[b])) for t in acts])
            assert cka.sel(layer_x=a, layer_y=b).item() == pytest.approx(value, abs=1e-6), (a, b)


def test_only_the_last_batch_counts():
    """Elsewhere: the first 48 of 64 samples replaced, the same bits."""
    x, rows = net(), torch.cat(inputs(8))
    changed = rows.clone()
    changed[:48] = torch.cat(inputs(6, seed=9))
    a, b = (compare(x, data=r.split(16), **quiet).cka.values for r in (rows, changed))
    assert np.abs(a - b).max() > 0.01


@pytest.mark.parametrize("scale", [1e5, 1e8, 0.03, 1e-8])
def test_products_overflow_or_drown_in_an_epsilon(scale):
    """Elsewhere: features ×1e5, self-CKA 0; ε = 1e-4, self-CKA .02 at scale .03."""
    pairs = correlated(16, 24)
    truth = exact(pairs)
    assert of_pairs([(scale * x, scale * y) for x, y in pairs]) == pytest.approx(truth, abs=1e-5)
    assert of_pairs([(scale * x, scale * x) for x, _ in pairs]) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_negatives_are_clamped():
    """Elsewhere: independent data average .020, should be .0055, or 0."""
    generator = torch.Generator().manual_seed(0)

    def noise():
        return torch.randn(8, 30, generator=generator)

    values = [of_pairs([(noise(), noise()) for _ in range(2)]) for _ in range(120)]
    assert min(values) < -0.1
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_nan_or_one(dtype):
    """Elsewhere: float16 NaN, bfloat16 with an offset 1.0000."""
    pairs = [((x * 40 + 200).to(dtype), (y * 40 + 200).to(dtype)) for x, y in correlated(16, 64)]
    truth = exact([(x.double(), y.double()) for x, y in pairs])
    assert truth < 0.9
    assert of_pairs(pairs, dtype) == pytest.approx(truth, abs=1e-5)


def test_modules_that_never_run():
    """Elsewhere: KeyError for any MultiheadAttention."""

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
            self.head = nn.Linear(6, 3)
            self.auxiliary = nn.Linear(6, 3)
            self.blocks = nn.ModuleList([nn.Linear(3, 3)])

        def forward(self, x):
            return self.blocks[0](self.head(self.attention(x, x, x)[0]))

    data = [torch.randn(8, 5, 6) for _ in range(2)]
    cka = compare(Attention(), data=data, **quiet).cka
    assert cka.layer_x.values.tolist() == ["attention", "head", "blocks.0"]
    assert np.isfinite(cka.values).all()


def test_a_mapping_loses_all_keys_but_one():
    """Elsewhere: the attention mask is dropped."""

    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embed, self.head = nn.Linear(6, 4), nn.Linear(4, 3)

        def forward(self, hidden, mask=None):
            hidden = self.embed(hidden)
            return self.head(hidden if mask is None else hidden * mask[..., None])

    x = Masked()
    data = [
        {"hidden": torch.randn(8, 5, 6), "mask": (torch.rand(8, 5) > 0.5).float()} for _ in range(3)
    ]
    cka = compare(x, data=data, **quiet).cka.values
    call = {"call_x": lambda m, b: m(**b), "size": lambda b: len(b["hidden"])}
    np.testing.assert_allclose(cka, reference(x, x, data, **call)[2], atol=1e-6)
    without = [{"hidden": b["hidden"]} for b in data]
    assert np.abs(cka - reference(x, x, without, **call)[2]).max() > 0.01


def test_two_iterations_pair_different_samples():
    """Elsewhere: zip(loader, loader) under shuffling."""
    x = net()
    loader = Shuffled(torch.cat(inputs(8)), 8)
    cka = compare(x, copy.deepcopy(x), data=loader, **quiet).cka
    assert loader.iterations == 1
    np.testing.assert_allclose(np.diagonal(cka.values), 1, atol=1e-6)


def test_hooks_stay_and_modes_change():
    x, y = net(), net(seed=1)
    x.train()
    x[1].eval()
    y.eval()
    y[1].train()
    before = state(x), state(y)
    compare(x, y, data=inputs(), **quiet)
    assert (state(x), state(y)) == before
    with pytest.raises(RuntimeError):
        compare(x, y, data=[torch.zeros(8, 5)], **quiet)
    assert (state(x), state(y)) == before


def test_tokens_are_compared_as_samples():
    """A sequence-first layer has its samples on axis 1: an error says so."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0)
    data = [torch.randn(5, 8, 6) for _ in range(2)]
    with pytest.raises(repsim.CaptureError, match="batch_dim=1"):
        compare(layer, data=data, layers="linear2", **quiet)
    result = compare(layer, data=data, layers="linear2", batch_dim=1, **quiet)
    assert result.attrs["n_samples"] == 16


def test_a_misspelled_layer_surfaces_as_nan():
    """Elsewhere: "HSIC … NANs"."""
    model = torchvision.models.resnet18(num_classes=2)
    with pytest.raises(repsim.LayerNotFoundError, match="'layer4.1.con2'(.|\n)*'layer4.1.conv2'"):
        compare(model, data=(), layers="layer4.1.con2", **quiet)


def test_rbf_of_an_absolute_bandwidth_is_one_for_independent_data():
    """Elsewhere: σ = 1 and wide features, 1.0. Here the bandwidth follows the data."""
    generator = torch.Generator().manual_seed(0)

    def noise(scale):
        return scale * torch.randn(16, 300, generator=generator)

    pairs = [(noise(1), noise(50)) for _ in range(6)]
    assert abs(of_pairs(pairs, kernel="rbf")) < 0.2
    turn = torch.linalg.qr(torch.randn(300, 300, generator=generator))[0]
    for scale in (1, 1000):
        same = [(x, scale * x @ turn) for x, _ in pairs]
        assert of_pairs(same, kernel="rbf") == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("wrong", ["names", "samples"])
def test_the_error_message_itself_raises(wrong):
    """Elsewhere the formatting of the message raises. Here the message has every number."""
    if wrong == "names":
        with pytest.raises(repsim.LayerNotFoundError) as caught:
            compare(net(), data=inputs(), layers=["{0}", "%s"], **quiet)
        assert "{0}" in str(caught.value)
    else:
        with pytest.raises(repsim.InputError) as caught:
            compare(net(), net(), data=inputs(), prepare_y=lambda b: b[:6], **quiet)
        assert "n=8" in str(caught.value)
        assert "n=6" in str(caught.value)


def test_a_result_states_its_direction_and_its_axes():
    """The result answers a common question of users."""
    result = compare(net(), net(seed=1), data=inputs(), layers="0", layers_y=["2", "4"], **quiet)
    assert result.cka.dims == ("layer_x", "layer_y")
    assert result.cka.shape == (1, 2)
    assert "1 = same" in " ".join(map(str, result.cka.attrs.values()))


def test_memory_of_large_feature_maps(monkeypatch):
    """Elsewhere activations are kept. Here a layer costs n² for any number of features."""
    kept = []
    original = MinibatchCKA.update_grams

    def update(self, xs, ys=None):
        own = sum(g.nbytes for g in xs.values())
        blocks = {g.untyped_storage().data_ptr(): g.untyped_storage().nbytes() for g in xs.values()}
        kept.append((own, blocks))
        return original(self, xs, ys)

    monkeypatch.setattr(MinibatchCKA, "update_grams", update)
    x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    compare(x, data=images(), **quiet)
    (first, blocks), second = kept
    assert first == 2 * 8 * 8 * 4
    assert len(blocks) == 1  # side by side
    assert max(blocks.values()) <= 1 << 22
    assert second == (first, blocks)  # and in the same memory in each batch
