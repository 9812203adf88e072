"""alignment: the best layers of every two models, chance for that choice, and paired samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

import repsim
from repsim import plot
from repsim.report import load_results, save_result, write_report


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def arrays(n=30, seed=0):
    """Three models with layers of other widths; "a" and "b" share something."""
    rng = np.random.default_rng(seed)
    shared, other = rng.standard_normal((2, n, 5))
    return {
        "a": {"early": rng.standard_normal((n, 3)), "late": shared @ rng.standard_normal((5, 7))},
        "b": {"one": shared + 0.3 * other, "two": np.tanh(other), "three": shared**2},
        "c": {"only": rng.standard_normal((n, 2, 4))},
    }


def aligned(models, **options):
    return repsim.alignment(models, progress=False, **options)


@pytest.mark.parametrize("measure", ["mutual_knn", "pwcca", "procrustes", "hsic", "cka"])
def test_the_score_is_the_best_of_all_pairs_of_layers(measure):
    models = arrays()
    result = aligned(models, measure=measure, permutations=0)
    assert set(result.data_vars) == {
        "score", "layer_x", "layer_y", "layer_map", "layers_x", "layers_y",
    }  # fmt: skip
    similar = result.score.attrs["kind"] == "similarity"
    assert similar == (measure != "procrustes")
    for a, xs in models.items():
        for b, ys in models.items():
            whole = repsim.pairwise(xs, ys, measure=measure)
            here = result.sel(model_x=a, model_y=b)
            best = whole.max() if similar else whole.min()
            assert here.score.item() == pytest.approx(best.item(), rel=1e-12, abs=1e-12)
            at = whole.sel(layer_x=here.layer_x.item(), layer_y=here.layer_y.item())
            assert at.item() == pytest.approx(best.item(), rel=1e-12, abs=1e-12)
            found = repsim.alignment_map(result, a, b)
            np.testing.assert_allclose(found[measure], whole, rtol=1e-12, atol=1e-12)
            assert found.layer_x.values.tolist() == list(xs)
            assert found.attrs["model_y"] == b


def test_options_reach_the_measure():
    models = arrays()
    result = aligned(models, k=3, metric="euclidean", permutations=0)
    expected = repsim.pairwise(models["a"], models["b"], measure="mutual_knn_euclidean", k=3)
    assert result.score.sel(model_x="a", model_y="b").item() == expected.max().item()
    assert (result.score.attrs["k"], result.attrs["measure"]) == (3, "mutual_knn")


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["mutual_knn", "procrustes", "cka", "pwcca"])
def test_chance_is_the_best_of_all_pairs_in_each_permuted_map(measure):
    models, m = arrays(), 19
    result = aligned(models, measure=measure, permutations=m, seed=5, alpha=0.1)
    sign = -1.0 if measure == "procrustes" else 1.0
    for key in ("score", "chance", "threshold", "layer_map"):
        kind = "similarity" if sign > 0 else "dissimilarity"
        assert result[key].attrs["kind"] == kind
    rng = np.random.default_rng(5)
    orders = [rng.permutation(30) for _ in range(m)]
    for a, b in (("a", "b"), ("a", "c"), ("b", "b")):
        xs, ys = models[a], models[b]

        def best(order, xs=xs, ys=ys):
            moved = {name: y[order] for name, y in ys.items()}
            return float((sign * repsim.pairwise(xs, moved, measure=measure)).max())

        value, null = best(np.arange(30)), np.array([best(order) for order in orders])
        here = result.sel(model_x=a, model_y=b)
        assert here.p_value.item() == (1 + (null >= value - 1e-12).sum()) / (m + 1), (a, b)
        assert here.chance.item() == pytest.approx(sign * null.mean(), rel=1e-9)
        threshold = np.sort([value, *null])[17]  # ⌈0.9 · 20⌉ = 18
        assert here.threshold.item() == pytest.approx(sign * threshold, rel=1e-9)
        if sign > 0:
            calibrated = max(0.0, (value - threshold) / (1 - threshold))
            assert here.calibrated.item() == pytest.approx(calibrated, rel=1e-9, abs=1e-12)
        else:
            assert np.isnan(here.calibrated.item())


def independent(seed, layers, n=16):
    """Six models of unrelated layers, whose 15 pairs count as runs.

    In 100 calls, the number of p-values ≤ .05 varied as that of independent ones (.74, not .71).
    """
    rng = np.random.default_rng(seed)
    return {
        model: {str(i): rng.standard_normal((n, 3)) for i in range(layers)} for model in "abcdef"
    }


@pytest.mark.slow
def test_independent_models_are_above_chance_as_rarely_as_alpha_says():
    """The best of 16 pairs, tested alone, has p ≤ .05 far more often than in 5 % of such data."""
    runs, alone, valid = 120, [], 0
    for seed in range(runs // 15):
        models = independent(seed, layers=4)
        result = aligned(models, measure="cka", permutations=19, seed=seed)
        for a, b in itertools.combinations(models, 2):
            here = result.sel(model_x=a, model_y=b)
            valid += here.p_value.item() <= 0.05
            if seed % 4 == 0:
                x, y = models[a][here.layer_x.item()], models[b][here.layer_y.item()]
                alone.append(repsim.permutation_test(x, y, permutations=19, seed=seed).p_value)
    spread = 3 * np.sqrt(0.05 * 0.95 / runs)
    assert valid / runs <= 0.05 + spread
    assert np.mean(np.array(alone) <= 0.05) > 0.2


@pytest.mark.slow
def test_neighbours_of_independent_models_are_calibrated():
    """Ties make the test stricter than alpha, never looser; the p-values cover (0, 1]."""
    runs, p = 300, []
    for seed in range(runs // 15):
        models = independent(seed, layers=3, n=24)
        result = aligned(models, k=5, permutations=19, seed=seed)
        p += [
            result.p_value.sel(model_x=a, model_y=b).item()
            for a, b in itertools.combinations(models, 2)
        ]
    for alpha in (0.05, 0.1, 0.25, 0.5):
        rate = np.mean(np.array(p) <= alpha + 1e-12)
        assert rate <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / runs), alpha
    assert np.mean(np.array(p) <= 0.5) > 0.3


# -- where features come from --------------------------------------------------------------------


def net(width=5):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 4))


def test_models_stores_paths_and_arrays_give_the_same_result(tmp_path):
    models, data = {"a": net(), "b": net(7)}, [torch.randn(10, 6) for _ in range(3)]
    stores = {
        name: repsim.extract(model, data, out=tmp_path / name, progress=False)
        for name, model in models.items()
    }
    options = {"k": 4, "permutations": 19}
    expected = aligned(stores, **options)
    for given in (
        {name: tmp_path / name for name in models},
        {name: {k: v.values for k, v in store.items()} for name, store in stores.items()},
        {name: (model, data) for name, model in models.items()},
        {"a": (models["a"], data, {"layers": "*"}), "b": stores["b"]},
    ):
        assert aligned(given, **options).identical(expected)
    assert aligned(models, data=data, **options).identical(expected)
    some = aligned(models, data=data, layers={"a": ["0", "2"]}, **options)
    assert some.layers_x.sel(model_x="a").values.tolist() == ["0", "2", ""]
    globs = aligned(stores, layers={"a": "[02]", "b": "*"}, **options)
    assert globs.identical(some)


def test_models_that_share_their_data_run_in_one_pass():
    def once():
        for _ in range(3):
            yield {"text": torch.randn(10, 6), "image": torch.randn(10, 6)}

    halves = {name: {"prepare": lambda batch, name=name: batch[name]} for name in ("text", "image")}
    data = once()
    result = aligned(
        {name: (net(), data, options) for name, options in halves.items()}, permutations=0, k=3
    )
    assert result.attrs["n_samples"] == 30


def test_loaders_that_shuffle_are_refused_and_matched_by_ids():
    samples = TensorDataset(torch.randn(30, 6), torch.arange(30))

    def loader(shuffle):
        return DataLoader(samples, batch_size=10, shuffle=shuffle)

    a, b = net(), net()
    with pytest.raises(repsim.InputError, match=r"the loader of models\['b'\] shuffles"):
        aligned({"a": (a, loader(False)), "b": (b, loader(True))})
    for sampler in (RandomSampler(samples), SubsetRandomSampler(range(30))):
        of_batches = DataLoader(samples, batch_sampler=BatchSampler(sampler, 10, drop_last=False))
        with pytest.raises(repsim.InputError, match=r"the loader of models\['b'\] shuffles"):
            aligned({"a": (a, loader(False)), "b": (b, of_batches)})
    ids = {"sample_ids": lambda batch: batch[1]}
    options = {"permutations": 0, "k": 3}
    expected = aligned({"a": (a, loader(False)), "b": (b, loader(False))}, **options)
    shuffled = {name: (model, loader(True), ids) for name, model in (("a", a), ("b", b))}
    np.testing.assert_allclose(aligned(shuffled, **options).score, expected.score, atol=1e-6)
    one = loader(True)
    together = aligned({"a": (a, one), "b": (b, one)}, **options)
    np.testing.assert_allclose(together.score, expected.score, atol=1e-6)


def test_samples_are_matched_by_id():
    models = {k: arrays()[k] for k in "ab"}
    rows = {"a": np.arange(2, 30), "b": np.random.default_rng(1).permutation(28)}
    labelled = {
        name: {
            layer: xr.DataArray(x[rows[name]], dims=("image", "unit"), coords={"image": rows[name]})
            for layer, x in layers.items()
        }
        for name, layers in models.items()
    }
    with pytest.warns(repsim.RepsimWarning, match="26 of up to 28 samples are in all models"):
        result = aligned(labelled, k=3, permutations=9, alpha=0.2)
    both = {name: {k: x[2:28] for k, x in layers.items()} for name, layers in models.items()}
    assert result.equals(aligned(both, k=3, permutations=9, alpha=0.2))


def test_samples_that_cannot_be_matched_are_refused():
    def labelled(ids, n=15):
        x = np.random.default_rng(0).standard_normal((n, 3))
        return {"l": xr.DataArray(x, dims=("image", "unit"), coords={"image": ids})}

    def noted(order):
        x = np.random.default_rng(0).standard_normal((15, 3))[order]
        return {"l": xr.DataArray(x, dims=("image", "unit"), coords={"stim": ("image", order)})}

    plain = {"l": np.ones((15, 3))}
    turned = np.arange(15)[::-1]
    two_orders = {**labelled(range(15)), "m": labelled(turned)["l"]}
    for models, says in (
        ({"a": two_orders, "b": plain}, r"15 labels of 'image' differ.*models\['a'\]\['m'\]"),
        ({"a": noted(np.arange(15)), "b": noted(turned)}, "'stim' of row 0 is 0 in models"),
        ({"a": plain, "b": {"l": np.ones((14, 3))}}, "samples: a 15, b 14"),
        ({"a": labelled(range(15)), "b": labelled(range(15, 30))}, "no sample in common"),
        ({"a": labelled(range(15)), "b": labelled([0, *range(14)])}, "two samples of models"),
        (
            {"a": labelled(range(15)), "b": labelled(range(1, 16)), "c": plain},
            "only if all models have their ids",
        ),
    ):
        with pytest.raises(repsim.InputError, match=says):
            aligned(models)


def test_clipping_and_norms_are_those_of_the_paper():
    models = arrays()
    models["a"]["late"][3, 2] = 50.0  # an outlier

    def clipped(x):
        flat = x.reshape(len(x), -1)
        limit = np.sort(np.abs(flat).ravel())[int(0.95 * flat.size)]
        flat = np.clip(flat, -limit, limit)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    by_hand = {name: {k: clipped(x) for k, x in layers.items()} for name, layers in models.items()}
    for measure in ("mutual_knn", "cka"):
        result = aligned(models, measure=measure, clip=0.95, normalise=True, permutations=0)
        expected = aligned(by_hand, measure=measure, permutations=0)
        np.testing.assert_allclose(result.score, expected.score, rtol=1e-12)
    assert (result.attrs["clip"], result.attrs["normalise"]) == (0.95, "True")
    assert not result.equals(aligned(models, measure="cka", permutations=0))


def test_a_constant_layer_is_left_out_of_the_choice():
    models = arrays()
    models["b"]["two"] = np.ones((30, 4))
    with pytest.warns(repsim.DegenerateWarning) as caught:
        result = aligned(models, measure="nbs", permutations=19)
    assert len(caught) == 1  # and not again for each permutation
    assert "layer 'two' of 'b'" in str(caught[0].message)
    assert result.layer_y.sel(model_x="a", model_y="b").item() == "one"
    assert result.p_value.notnull().all()
    models["c"]["only"] = np.ones((30, 4))
    with pytest.warns(repsim.DegenerateWarning):
        result = aligned(models, measure="nbs", permutations=19)
    here = result.sel(model_x="a", model_y="c")
    assert here.layer_x.item() == ""
    assert np.isnan([here.score.item(), here.p_value.item()]).all()


def test_pairs_that_have_a_value_in_some_orders_only():
    """The best of a map is that of the pairs it has, in the data and in every order alike.

    Independent data had p ≤ .1 in 19 % of runs, because pairs without a value in the data did not
    count in the orders either.
    """

    def compare(x, y):
        known = np.sin(1e4 * x[:5, 0] @ y[:5, 0]) > 0
        return np.asarray(np.corrcoef(x[:, 0], y[:, 0])[0, 1] if known else np.nan)

    measure = repsim.measures.Measure(
        name="at_times", family="test", function=compare, range=(-1.0, 1.0), similarity=True,
        metric=False, symmetric=True, invariances=frozenset(), minimum_samples=5, cost="O(n)",
        reference="none", prepare=lambda operation, x, *, name: x, compare=compare,
    )  # fmt: skip
    x, y = np.random.default_rng(0).standard_normal((2, 4, 20, 1))
    models = {name: {str(i): a for i, a in enumerate(z)} for name, z in (("a", x), ("b", y))}
    result = aligned(models, measure=measure, permutations=39, seed=3)
    here = result.sel(model_x="a", model_y="b")
    assert 0 < int(here.layer_map.isnull().sum()) < 16
    rng = np.random.default_rng(3)
    orders = [rng.permutation(20) for _ in range(39)]
    best, *null = [
        np.nanmax([[compare(a, b[order]) for b in y] for a in x])
        for order in (np.arange(20), *orders)
    ]
    assert here.score.item() == pytest.approx(best, rel=1e-12)
    expected = (1 + (np.array(null) >= best).sum()) / 40
    assert here.p_value.item() == expected
    assert here.chance.item() == pytest.approx(np.mean(null), rel=1e-12)


ONE = {"l": np.ones((15, 3))}


@pytest.mark.parametrize(
    ("models", "options", "says"),
    [
        ({"a": ONE}, {}, "two or more models"),
        ([ONE, ONE], {}, "two or more models"),
        ({"a": ONE, 3: ONE}, {}, "names of models must be strings"),
        ({"a": ONE, "b": 3}, {}, r"models\['b'\]: 3"),
        ({"a": ONE, "b": net()}, {}, r"models\['b'\] has no data"),
        ({"a": ONE, "b": (net(), [], {"layer": "0"})}, {}, "unknown options"),
        ({"a": ONE, "b": {}}, {}, r"models\['b'\] is empty"),
        ({"a": ONE, "b": {1: ONE["l"]}}, {}, "names of layers must be strings"),
        ({"a": ONE, "b": ONE}, {"metric": "nope"}, "unknown metric"),
        ({"a": ONE, "b": ONE}, {"transform": "mean"}, "transform is for models"),
        ({"a": ONE, "b": ONE}, {"layers": {"c": "*"}}, "names models that are not there"),
        ({"a": ONE, "b": ONE}, {"layers": "x"}, "no layer 'x'"),
        ({"a": ONE, "b": ONE}, {"clip": 0}, "clip must be"),
        ({"a": ONE, "b": ONE}, {"permutations": 9}, "have no quantile for alpha=0.05"),
        ({"a": ONE, "b": ONE}, {"kk": 9}, "unknown options for measure 'mutual_knn'"),
        ({"a": ONE, "b": ONE}, {"k": 14}, "needs at least"),
        ({"a": ONE, "b": ONE}, {"measure": "cka", "given": ONE["l"]}, "partial alignment"),
        ({"a": ONE, "b": {"l": np.ones(15)}}, {}, "must be samples by features"),
    ],
)
def test_bad_arguments_are_named(models, options, says):
    error = repsim.LayerNotFoundError if "no layer" in says else repsim.InputError
    with pytest.raises(error, match=says):
        aligned(models, **options)


def test_lists_in_place_of_arrays_are_refused():
    with pytest.raises(repsim.ArrayTypeError, match="layer 'l' of 'b' must be an array"):
        aligned({"a": ONE, "b": {"l": [[1.0, 2.0]] * 15}})


def test_features_beyond_the_memory_are_refused_with_the_way_out():
    data = [torch.randn(10, 6) for _ in range(9)]
    with pytest.raises(repsim.InputError, match="repsim.extract, and pass what it returns"):
        aligned({"a": (net(), data), "b": (net(), data)}, memory=5000)


def test_stored_tokens_are_permuted_with_their_inputs(tmp_path):
    texts = [torch.randn(6, 4, 6) for _ in range(2)]
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    stores = {
        name: repsim.extract(
            model, texts, layers, out=tmp_path / name, samples="tokens", progress=False
        )
        for name, layers in (("a", "0"), ("b", "1"))
    }
    options = {"measure": "nbs", "permutations": 19, "seed": 2}
    plain = {
        name: {k: x.values for k, x in store.data_vars.items()} for name, store in stores.items()
    }
    groups = np.repeat(np.arange(12), 4)
    result = aligned(stores, **options)
    assert result.chance.equals(aligned(plain, groups=groups, **options).chance)
    assert not result.chance.equals(aligned(plain, **options).chance)
    as_dicts = {name: dict(store.data_vars) for name, store in stores.items()}
    assert result.chance.equals(aligned(as_dicts, **options).chance)
    others = {"layers": "1", "max_samples": 7, "samples": "tokens", "progress": False}
    drawn = {
        f"s{seed}": repsim.extract(model, texts, out=tmp_path / f"s{seed}", seed=seed, **others)
        for seed in (0, 1)
    }
    with pytest.raises(repsim.InputError, match=r"(?s)'sequence' of row .* by=\('sequence', "):
        aligned(drawn)
    both = repsim.align(*drawn.values(), by=("sequence", "position"))
    assert aligned(dict(zip("ab", both, strict=True)), k=2, permutations=0).score.values[0, 1] == 1
    held = {"measure": "predictivity", "model": "ridge", "ridge": 1.0, "permutations": 0}
    result = aligned(stores, **held)
    assert result.score.equals(aligned(plain, groups=groups, **held).score)
    assert not result.score.equals(aligned(plain, **held).score)


# -- the result ----------------------------------------------------------------------------------


def test_pictures_pages_and_files_take_the_result(tmp_path):
    for measure in ("mutual_knn", "procrustes"):
        result = aligned(arrays(), measure=measure, permutations=19)
        ax = plot.heatmap(result, above_chance=result.p_value <= 0.05)
        assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
        plot.dendrogram(result)
        plot.heatmap(repsim.alignment_map(result, "a", "b"))
        save_result(tmp_path, measure, result)
        assert load_results(tmp_path)[measure].identical(result)
        page = write_report({measure: result}, tmp_path / "page.html").read_text()
        assert "Alignment of models" in page
        assert "two models that are most alike" in page
        assert "not above chance (p &gt; 0.05)" in page or "not above chance (p > 0.05)" in page


def test_a_map_of_models_that_are_not_there_is_refused():
    result = aligned(arrays(), permutations=0)
    with pytest.raises(repsim.InputError, match="no model 'd'"):
        repsim.alignment_map(result, "a", "d")
    with pytest.raises(repsim.InputError, match=r"what repsim.alignment returned"):
        repsim.alignment_map(result.score, "a", "b")
