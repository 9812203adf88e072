"""compare with measures other than CKA: values, options, memory, stores, errors and chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import repsim
from repsim.measures import MEASURES

OTHERS = [name for name in MEASURES if name != "cka"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def net(width=5):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 4))


def batches(n=8, count=3):
    return [torch.randn(n, 6) for _ in range(count)]


def extracted(model, data, folder, **options):
    """The features of a model, as extract stores them."""
    stored = repsim.extract(model, data, out=folder, progress=False, **options)
    return {name: array.values for name, array in stored.data_vars.items()}


def mapped(*models, data, **options):
    return repsim.compare(*models, data=data, progress=False, **options)


def test_every_measure_is_that_of_pairwise_on_the_extracted_features(tmp_path):
    model, other, data = net(), net(7), batches()
    xs = extracted(model, data, tmp_path / "x.zarr")
    ys = extracted(other, data, tmp_path / "y.zarr")
    for name in OTHERS:
        for right, models in ((ys, (model, other)), (None, (model,))):
            expected = repsim.pairwise(xs, right, measure=name)
            result = mapped(*models, data=data, measure=name)
            assert result[name].equals(expected), name
            assert result[name].attrs == {
                key: value
                for key, value in expected.attrs.items()
                if key not in ("n_samples", "repsim_version")
            }
            assert (result.attrs["measure"], result.attrs["n_samples"]) == (name, 24)
            assert result.attrs["model_x"] == "Sequential"


def test_options_select_transforms_and_masks_reach_the_features(tmp_path):
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3))
    data = [torch.randn(10, 3, 8, 8) for _ in range(2)]
    for transform in (None, "mean"):
        xs = extracted(conv, data, tmp_path / f"{transform}.zarr", transform=transform)
        expected = repsim.pairwise(xs, measure="rsa", comparison="pearson")
        options = {"measure": "rsa", "comparison": "pearson", "transform": transform}
        assert mapped(conv, data=data, **options).rsa.equals(expected), transform
    own = mapped(conv, data=data, layers="0", layers_y="2", measure="hsic", kernel="rbf")
    assert own.hsic.attrs["kernel"] == "rbf"
    assert own.hsic.shape == (1, 1)


def test_one_pass_over_the_data_serves_both_models():
    def once():
        yield from batches()

    result = mapped(net(), net(), data=once(), measure="nbs")
    assert result.attrs["n_batches"] == 3


def test_samples_with_a_known_id_are_kept_once():
    data = [(x, torch.arange(8) + 8 * i) for i, x in enumerate(batches())]
    model, ids = net(), lambda batch: batch[1]
    twice = mapped(model, data=[*data, data[0]], measure="cca", sample_ids=ids)
    assert (twice.attrs["n_samples"], twice.attrs["n_duplicates"]) == (24, 8)
    assert twice.cca.equals(mapped(model, data=data, measure="cca").cca)


def test_tokens_are_samples_and_all_of_their_pairs_count():
    model, texts = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), [torch.randn(4, 5, 6)] * 2
    result = mapped(model, data=texts, samples="tokens", measure="mutual_knn", k=3)
    assert (result.attrs["n_samples"], result.attrs["pairs"]) == (40, "all")
    with torch.no_grad():
        rows = model[0](torch.cat(texts)).flatten(0, 1)
    expected = repsim.mutual_knn(rows, rows.tanh(), k=3)
    assert result.mutual_knn.sel(layer_x="0", layer_y="1").item() == pytest.approx(float(expected))
    with pytest.raises(repsim.InputError, match="only CKA can leave out the pairs"):
        mapped(model, data=texts, samples="tokens", pairs="between", measure="nbs")


def test_the_tokens_of_an_input_are_held_out_together():
    model, texts = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), [torch.randn(6, 3, 6)] * 2
    texts = [texts[0], texts[1] + torch.randn(6, 1, 6)]  # 12 inputs of 3 tokens, in 5 folds
    options = {"measure": "predictivity", "model": "ridge", "ridge": 1.0}
    result = mapped(
        model, data=texts, samples="tokens", permutations=9, errors="subsample", draws=5, **options
    )
    with torch.no_grad():
        rows = model[0](torch.cat(texts)).flatten(0, 1)
    pair, inputs = (rows, rows.tanh()), np.repeat(np.arange(12), 3)
    found = result.sel(layer_x="0", layer_y="1")
    grouped = repsim.predictivity(*pair, model="ridge", ridge=1.0, groups=inputs)
    alone = repsim.predictivity(*pair, model="ridge", ridge=1.0)
    assert found.predictivity.item() == pytest.approx(float(grouped))
    assert found.predictivity.item() != pytest.approx(float(alone), abs=1e-4)
    half = repsim.inference.subsample(*pair, draws=5, groups=inputs, **options)
    assert found.standard_error.item() == pytest.approx(half.standard_error, rel=1e-4)
    test = repsim.permutation_test(*pair, permutations=9, groups=inputs, **options)
    assert found.p_value.item() == pytest.approx(test.p_value)


# -- options -------------------------------------------------------------------------------------

REFUSED = {
    "unknown measure": {"measure": "cca2"},
    "unknown options for measure 'mutual_knn'": {"measure": "mutual_knn", "kernel": "rbf"},
    "unknown options for measure 'cka'": {"k": 10},
    "no argument 'layers_x'.*\n.*\n.*Did you mean 'layers": {"layers_x": "0"},
    "no argument 'device'.*\n.*\n.*on the device that holds it": {"device": "cpu"},
    "no argument 'transfrom'.*\n.*\n.*'transform'": {"measure": "rsa", "transfrom": "mean"},
    "unknown options for measure 'rsa'(.*\n){3}.*Did you mean 'comparison'": {
        **{"measure": "rsa", "comparision": "pearson"},
    },
    "no transform 'avg'.*\n.*\n.*Did you mean 'mean'": {"transform": "avg"},
    "CKA of a stream of batches is unbiased": {"estimator": "biased"},
    "precision is an option of measure='cka'": {"measure": "hsic", "precision": "tf32"},
    "passes is an option of measure='cka'": {"measure": "nbs", "passes": 2},
    "z_scores is an option of measure='cka'": {"measure": "nbs", "z_scores": True},
    "group is an option of measure='cka'": {"measure": "nbs", "group": "world"},
    "errors is an option of the other": {"errors": "subsample"},
    "permutations is an option of the other": {"permutations": 9},
    "activations and no RDM": {"measure": "rsa", "rdm": "precomputed"},
    "memory is an option of the other": {"memory": 10**6},
    "draws is an option of the other": {"draws": 9},
    "unknown errors": {"measure": "nbs", "errors": "jackknife"},
    "permutations must be an integer of at least 0": {"measure": "nbs", "permutations": -1},
    "memory must be a positive integer": {"measure": "nbs", "memory": 0},
    "k=40 needs at least 42 samples": {"measure": "mutual_knn", "k": 40},
    "needs at least 22 samples in every half": {
        **{"measure": "mutual_knn", "k": 20, "errors": "subsample"},
    },
}


@pytest.mark.parametrize("says", REFUSED)
def test_an_option_that_the_measure_lacks_is_refused(says):
    if "group" in REFUSED[says]:
        torch.distributed.init_process_group(
            "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
        )
    try:
        with pytest.raises(repsim.InputError, match=says):
            mapped(net(), data=batches(), **REFUSED[says])
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def test_cka_takes_its_own_estimator_by_name():
    model, data = net(), batches()
    named = mapped(model, data=data, estimator="unbiased", measure="cka")
    assert named.identical(mapped(model, data=data))


def test_values_that_no_data_allow_are_refused_before_the_model_runs():
    model, ran = net(), []
    model.register_forward_hook(lambda *_: ran.append(1))
    for options, says in (
        ({"measure": "mutual_knn", "k": "3"}, "k must be a positive integer"),
        ({"measure": "mutual_knn", "metric": "nope"}, "compare: unknown metric"),
        ({"measure": "rsa", "comparison": "nope"}, "compare: unknown comparison"),
        ({"measure": "procrustes", "norm": "nope"}, "compare: unknown norm"),
        ({"measure": "hsic", "kernel": "nope"}, "compare: unknown kernel"),
        ({"measure": "hsic", "estimator": "nope"}, "compare: unknown estimator"),
    ):
        with pytest.raises(repsim.InputError, match=says):
            mapped(model, data=batches(), **options)
    assert not ran


# -- memory and stores ---------------------------------------------------------------------------


def test_features_that_do_not_fit_are_an_error_at_once_that_says_how_many_bytes():
    model, ran = net(), []
    model.register_forward_hook(lambda *_: ran.append(1))
    data = batches(count=50)
    size = 50 * 8 * (5 + 5 + 4) * 4
    with pytest.raises(repsim.InputError) as caught:
        mapped(model, data=data, measure="nbs", memory=size // 2)
    assert f"50 batches need about {size:,} bytes, 56 a sample in 3 layers" in str(caught.value)
    assert all(name in str(caught.value) for name in ("transform=", "layers=", "checkpoint="))
    assert len(ran) < 5  # the first batch, after forwards of two and of three samples
    assert mapped(model, data=data, measure="nbs", memory=size).attrs["n_samples"] == 400
    with pytest.raises(repsim.InputError, match=r"after 26 batches they take 11,648 bytes"):
        mapped(model, data=(x for x in data), measure="nbs", memory=size // 2)


def test_a_store_gives_the_same_map_and_serves_other_measures(tmp_path):
    model, other, data = net(), net(), batches()
    ran = []
    model.register_forward_hook(lambda *_: ran.append(1))
    path = tmp_path / "features.zarr"
    for name in ("procrustes", "mutual_knn_euclidean", "hsic"):
        ran.clear()
        stored = mapped(model, other, data=data, measure=name, checkpoint=path)
        assert bool(ran) == (name == "procrustes"), name
        assert stored.equals(mapped(model, other, data=data, measure=name)), name
    layers = list(repsim.open_activations(path).data_vars)
    assert layers == [f"{side}/{name}" for side in "xy" for name in "012"]
    with pytest.raises(repsim.StateError, match="of another model or other options"):
        mapped(model, net(), data=data, measure="nbs", checkpoint=path)
    with pytest.raises(repsim.StateError, match="the data are not those"):
        mapped(model, other, data=batches(), measure="nbs", checkpoint=path)


def test_an_interrupted_run_goes_on_from_its_store(tmp_path):
    model, data, ran = net(), batches(count=4), []
    model.register_forward_hook(lambda _model, _args, out: ran.append(len(out)))
    path = tmp_path / "features.zarr"

    def broken():
        yield from data[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        mapped(model, data=broken(), measure="nbs", checkpoint=path)
    assert "the same call goes on from there" in caught.value.__notes__[0]
    ran.clear()
    result = mapped(model, data=data, measure="nbs", checkpoint=path)
    assert ran.count(8) == 2
    assert result.equals(mapped(model, data=data, measure="nbs"))


def test_layers_of_a_store_are_read_one_at_a_time(tmp_path, monkeypatch):
    """A measure whose items are small holds one layer's features at most."""
    import dataclasses
    import weakref

    alive, most = [], []

    def prepare(operation, x, *, name):
        alive.append(weakref.ref(x))
        most.append(sum(ref() is not None for ref in alive))
        return float(abs(x).mean())

    small = dataclasses.replace(
        MEASURES["nbs"], name="small", prepare=prepare, compare=lambda x, y: np.asarray(x - y)
    )
    model, data = net(), batches()
    mapped(model, data=data, measure=small, checkpoint=tmp_path / "features.zarr")
    assert most == [1, 1, 1]


def test_features_that_are_not_finite_name_the_layer_and_the_batch(tmp_path):
    data = batches()
    data[1][3] = np.nan
    with pytest.raises(repsim.NonFiniteError, match=r"batch 1 .*\n?.*'0'"):
        mapped(net(), data=data, layers=["0", "2"], measure="nbs")


# -- errors and chance ---------------------------------------------------------------------------


def test_the_standard_error_is_that_of_random_halves(tmp_path):
    model, other, data = net(), net(7), batches(n=12)
    xs, ys = (extracted(m, data, tmp_path / f"{i}") for i, m in enumerate((model, other)))
    for name, options in {
        "mutual_knn": {"k": 3},
        "procrustes": {},
        "pwcca": {},
        "hsic": {"kernel": "rbf"},
    }.items():
        asked = {"errors": "subsample", "draws": 9, "seed": 3}
        result = mapped(model, other, data=data, measure=name, **asked, **options)
        for a, b in (("0", "2"), ("2", "1")):
            expected = repsim.inference.subsample(
                xs[a], ys[b], measure=name, draws=9, seed=3, **options
            )
            got = result.standard_error.sel(layer_x=a, layer_y=b).item()
            assert got == pytest.approx(expected.standard_error, rel=1e-6), name
        assert result.standard_error.attrs["long_name"].startswith("standard error of ")
        assert result.attrs["draws"] == 9


def test_chance_is_that_of_the_permutation_test_for_each_pair(tmp_path):
    model, other, data = net(), net(7), batches(n=12)
    xs, ys = (extracted(m, data, tmp_path / f"{i}") for i, m in enumerate((model, other)))
    for name, options in {
        "mutual_knn": {"k": 3},
        "procrustes": {},
        "hsic": {},
        "angular_cka": {"kernel": "rbf"},
    }.items():
        result = mapped(model, other, data=data, measure=name, permutations=19, seed=3, **options)
        for a, b in (("0", "2"), ("2", "1")):
            test = repsim.permutation_test(
                xs[a], ys[b], measure=name, permutations=19, seed=3, **options
            )
            here = result.sel(layer_x=a, layer_y=b)
            assert here.p_value.item() == test.p_value, name
            assert here.chance.item() == pytest.approx(test.null.mean(), rel=1e-5, abs=1e-7), name
        assert (result.p_adjusted >= result.p_value).all(), name
        assert result.attrs["n_permutations"] == 19


def test_z_is_positive_for_what_is_more_alike_than_by_chance_also_in_a_dissimilarity():
    model, data = net(), batches(n=12)
    for name in ("nbs", "procrustes"):
        result = mapped(model, data=data, measure=name, permutations=19)
        assert (np.diagonal(result.z) > 1).all(), name
        assert (np.diagonal(result.p_adjusted) == 0.05).all(), name


def test_a_constant_layer_is_nan_and_the_others_are_not():
    model = net()
    nn.init.zeros_(model[2].weight)
    for name in ("mutual_knn_euclidean", "nbs"):
        with pytest.warns(repsim.DegenerateWarning, match="layer '2' of x"):
            result = mapped(
                model, data=batches(), measure=name, permutations=9, errors="subsample", draws=3
            )
        for key, values in result.items():
            undefined = np.isnan(values.values)
            assert undefined[2].all(), key
            assert undefined[:, 2].all(), key
            assert not undefined[:2, :2].any(), key


def test_tokens_are_permuted_with_their_inputs():
    model, texts = nn.Sequential(nn.Linear(6, 5), nn.Tanh()), [torch.randn(4, 5, 6) for _ in "abc"]
    options = {"samples": "tokens", "measure": "nbs", "permutations": 9, "seed": 1}
    result = mapped(model, data=texts, **options)
    with torch.no_grad():
        rows = model[0](torch.cat(texts)).flatten(0, 1)
    groups = np.repeat(np.arange(12), 5)
    test = repsim.permutation_test(
        rows, rows.tanh(), measure="nbs", permutations=9, seed=1, groups=groups
    )
    here = result.sel(layer_x="0", layer_y="1")
    assert here.chance.item() == pytest.approx(test.null.mean(), rel=1e-5)


def test_inputs_of_other_lengths_cannot_be_permuted_and_this_is_said_in_the_first_batch():
    model, ran = nn.Sequential(nn.Embedding(9, 5), nn.Tanh()), []
    model.register_forward_hook(lambda *_: ran.append(1))
    ids, mask = torch.randint(9, (4, 5)), torch.arange(5) < torch.tensor([[5], [4], [5], [3]])
    texts = [{"input": ids, "attention_mask": mask}] * 9
    options = {"samples": "tokens", "measure": "nbs", "forward": lambda m, b: m(b["input"])}
    with pytest.raises(repsim.InputError, match="from 3 to 5 tokens") as caught:
        mapped(model, data=texts, permutations=9, **options)
    assert "Leave out permutations, or reduce" in str(caught.value)
    assert 'transform="mean"' in str(caught.value)
    assert len(ran) < 6
    with pytest.raises(repsim.InputError, match="Leave out max_samples or permutations"):
        mapped(model, data=texts, permutations=9, max_samples=9, **options)
    result = mapped(model, data=texts, errors="subsample", draws=5, **options)
    assert np.isfinite(result.standard_error).all()


def test_files_and_pages_keep_the_map(tmp_path):
    from repsim.report import load_results, save_result, write_report

    model, other = net(), net(7)
    for name in ("mutual_knn", "procrustes", "hsic"):
        options = {"permutations": 19, "errors": "subsample", "draws": 5}
        result = mapped(model, other, data=batches(n=12), measure=name, **options)
        assert next(iter(result.data_vars)) == name
        save_result(tmp_path, name, result)
        assert load_results(tmp_path)[name].identical(result)
        page = write_report({name: result}, tmp_path / "page.html").read_text("utf-8")
        assert "pairs above chance, p ≤ 0.05 adjusted for all pairs" in page
        assert ("Smaller is more alike" in page) == (name == "procrustes")
    match = repsim.layer_match(mapped(model, data=batches(), measure="procrustes"))
    assert match["match"].values.tolist() == ["0", "1", "2"]  # the smallest, not the largest
