"""Every pair of named arrays: the function's own numbers, each array prepared once."""

import dataclasses
import warnings
from collections import Counter

import numpy as np
import pytest
import xarray as xr

import repsim
from cases import each
from reference.data import related
from repsim.kernels import RBF
from repsim.measures import MEASURES


def layers(n=16, seed=0, widths=(3, 4, 2)):
    """Related representations of different widths."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, max(widths)))
    out = {}
    for i, p in enumerate(widths):
        out[f"layer.{i}"] = common[:, :p] + 0.7 * rng.standard_normal((n, p)) + i
    return out


def counting(name):
    """The measure, and how often each array was prepared."""
    seen = Counter()
    measure = MEASURES[name]

    def prepare(operation, x, *, name, **options):
        seen[name] += 1
        return measure.prepare(operation, x, name=name, **options)

    return dataclasses.replace(measure, prepare=prepare), seen


@pytest.mark.parametrize("name", MEASURES)
def test_it_is_the_function_of_every_pair(name):
    xs, ys = layers(), layers(seed=1, widths=(4, 3))
    measure, seen = counting(name)
    between = repsim.pairwise(xs, ys, measure=measure)
    assert seen == {f"xs['{k}']": 1 for k in xs} | {f"ys['{k}']": 1 for k in ys}
    seen.clear()
    within = repsim.pairwise(xs, measure=measure)
    assert seen == {f"xs['{k}']": 1 for k in xs}
    for result, other in ((between, ys), (within, xs)):
        assert result.shape == (len(xs), len(other))
        assert result.dtype == np.float64
        for a, x in xs.items():
            for b, y in other.items():
                options = measure.options_of_many("test", {})
                expected = float(measure.function(x, y, **options))
                value = float(result.sel(layer_x=a, layer_y=b))
                assert value == pytest.approx(expected, rel=1e-12, abs=1e-12), (a, b)
    if measure.symmetric:
        np.testing.assert_array_equal(within.values, within.values.T)


def test_a_kernel_item_makes_each_form_once():
    calls = Counter()

    class Counted(RBF):
        def gram(self, x):
            calls[x.shape] += 1
            return RBF.gram(self, x)

    xs = layers(widths=(3, 4, 5))
    repsim.pairwise(xs, kernel=Counted())
    assert calls == {(16, 3): 1, (16, 4): 1, (16, 5): 1}


@each("estimator", ["biased", "unbiased"])
@each("measure", ["cka", "hsic"])
def test_narrow_and_wide_layers_mix(measure, estimator):
    """The form of a linear product depends on both widths, as in the function itself."""
    xs = layers(n=10, widths=(2, 60, 7, 300))
    result = repsim.pairwise(xs, measure=measure, estimator=estimator)
    for a, x in xs.items():
        for b, y in xs.items():
            expected = getattr(repsim, measure)(x, y, estimator=estimator)
            assert float(result.sel(layer_x=a, layer_y=b)) == pytest.approx(
                float(expected), rel=1e-13
            )


def test_the_range_is_described_where_it_has_ends():
    xs = layers()
    ends = {
        "nbs": (0.0, 1.0, 1.0),
        "procrustes": (0.0, None, 0.0),
        "shape_distance": (0.0, np.pi / 2, 0.0),
        "hsic": (None, None, None),
        "information_imbalance": (0.0, 2.0, None),
        "cka": (None, None, 1.0),  # the unbiased estimator is below 0 by chance
    }
    for name, expected in ends.items():
        attrs = repsim.pairwise(xs, measure=name).attrs
        assert tuple(map(attrs.get, ("least", "greatest", "value_if_equal"))) == expected, name
    for options, least, greatest in (
        ({"estimator": "biased"}, 0.0, 1.0),
        ({"estimator": "biased", "given": xs["layer.0"]}, -1.0, 1.0),
        ({"estimator": "biased", "features": "sampled"}, 0.0, None),
        ({"measure": "linear_regression_r2"}, 0.0, 1.0),
        ({"measure": "linear_regression_r2", "ridge": 1.0, "folds": 4}, None, 1.0),
    ):
        arrays = {"one": xs["layer.1"], "two": xs["layer.2"]}
        attrs = repsim.pairwise(arrays, **options).attrs
        assert (attrs.get("least"), attrs.get("greatest")) == (least, greatest), options


def test_labels_and_provenance():
    xs, ys = layers(), {"b": layers()["layer.1"], "a": layers()["layer.0"]}
    result = repsim.pairwise(xs, ys, estimator="unbiased", kernel=RBF(fraction=0.5))
    assert result.dims == ("layer_x", "layer_y")
    assert list(result.layer_x.values) == ["layer.0", "layer.1", "layer.2"]
    assert list(result.layer_y.values) == ["b", "a"]
    assert result.name == "cka"
    options = {"kernel", "estimator"}
    others = MEASURES["cka"].options("test", {}).keys() - options
    assert {k: v for k, v in result.attrs.items() if k not in others} == {
        "long_name": "cka",
        "units": "1",
        "measure": "cka",
        "kind": "similarity",
        "value_if_equal": 1.0,
        "kernel": "RBF(fraction=0.5, median='all', sigma=None)",
        "estimator": "unbiased",
        "n_samples": 16,
        "repsim_version": repsim.__version__,
    }
    angles = repsim.pairwise(xs, measure="shape_distance", alpha=0.5)
    assert angles.attrs["units"] == "rad"
    assert angles.attrs["kind"] == "dissimilarity"
    assert angles.attrs["alpha"] == 0.5


def test_a_preset_and_an_option_are_the_same():
    xs = layers()
    named = repsim.pairwise(xs, measure="normalised_procrustes")
    asked = repsim.pairwise(xs, measure="procrustes", norm="unit")
    np.testing.assert_array_equal(named.values, asked.values)
    plain = repsim.pairwise(xs, measure="procrustes")
    assert abs(plain - asked).max() > 0.1
    assert named.attrs["norm"] == "unit"


def test_attributes_can_be_written():
    result = repsim.pairwise(layers(), measure="svcca", directions=2)
    assert result.attrs["directions"] == 2
    assert result.attrs["variance"] == "None"
    assert all(isinstance(value, str | int | float) for value in result.attrs.values())


def test_every_framework(eager):
    xs = layers(widths=(3, 3))
    mine = {name: eager.array(x) for name, x in xs.items()}
    for measure in ("cka", "pwcca"):
        result = repsim.pairwise(mine, measure=measure)
        expected = repsim.pairwise(xs, measure=measure)
        assert isinstance(result.values, np.ndarray)
        np.testing.assert_allclose(result.values, expected.values, rtol=1e-9, atol=1e-12)


def test_precision_of_each_pair_is_that_of_the_function():
    xs = layers()
    xs["half"] = xs["layer.0"].astype(np.float16)
    xs["single"] = xs["layer.1"].astype(np.float32)
    measure, seen = counting("angular_cka")
    result = repsim.pairwise(xs, measure=measure)
    for a, x in xs.items():
        for b, y in xs.items():
            assert float(result.sel(layer_x=a, layer_y=b)) == pytest.approx(
                float(repsim.angular_cka(x, y, estimator="unbiased")), rel=1e-12
            ), (a, b)
    # In the dtype of the pair: once with the wide ones, once among themselves.
    assert seen["xs['single']"] == seen["xs['half']"] == 2
    assert seen["xs['layer.0']"] == 1


def test_cka_of_arrays_that_differ_by_a_factor_is_at_most_one():
    for seed in range(8):
        (x,) = layers(20, seed, widths=(3,)).values()
        (wide,) = layers(20, seed, widths=(30,)).values()  # compared from Grams
        arrays = {"x": x, "scaled": 3 * x, "wide": wide, "scaled wide": 0.3 * wide}
        for estimator in ("biased", "unbiased"):
            assert repsim.pairwise(arrays, estimator=estimator).max() <= 1


def test_a_sample_far_from_the_others_in_float32():
    """The terms of the unbiased estimator cancel, so features are taken in float64."""
    x, y = (z.astype(np.float32) for z in related(200, 12, 20))
    x[17] *= np.float32(1e4)
    expected = repsim.cka(x.astype(np.float64), y.astype(np.float64), estimator="unbiased")
    found = repsim.pairwise({"x": x}, {"y": y}, estimator="unbiased")
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_feature_maps_and_gradients_are_taken():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    xs = {"map": torch.randn(12, 2, 3, 3), "vector": torch.randn(12, 4, requires_grad=True)}
    result = repsim.pairwise(xs)
    assert float(result.sel(layer_x="map", layer_y="vector")) == pytest.approx(
        float(repsim.cka(xs["map"], xs["vector"].detach(), estimator="unbiased")), abs=1e-6
    )


def test_the_estimator_is_unbiased_wherever_several_pairs_are_compared():
    rng = np.random.default_rng(0)
    xs = {"narrow": rng.standard_normal((40, 4)), "wide": rng.standard_normal((40, 300))}
    expected = float(repsim.cka(xs["narrow"], xs["wide"], estimator="unbiased"))
    minibatch = repsim.MinibatchCKA()
    minibatch.update(xs)
    streaming, covariance = repsim.StreamingLinearCKA(), repsim.StreamingCovariance()
    streaming.update(xs)
    covariance.update(xs)
    for result in (
        repsim.pairwise(xs), repsim.cka_matrix(xs), minibatch.compute(), streaming.compute(),
        covariance.compute(), repsim.max_t(xs, permutations=9).cka,
    ):  # fmt: skip
        value = float(result.sel(layer_x="narrow", layer_y="wide"))
        assert value == pytest.approx(expected, abs=1e-12)
    for measure in ("hsic", "angular_cka", "distance_correlation"):
        assert repsim.pairwise(xs, measure=measure).attrs["estimator"] == "unbiased"


def test_an_undefined_array_is_named_once():
    xs = layers()
    xs["dead"] = np.full((16, 3), 0.1)
    for measure in ("cka", "nbs", "shape_distance", "cca", "angular_cka"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", repsim.ChanceWarning)
            result = repsim.pairwise(xs, measure=measure)
        (warning,) = caught
        assert str(warning.message).startswith(f"pairwise({measure!r}): xs['dead'] is constant")
        assert warning.category is repsim.DegenerateWarning
        assert warning.filename == __file__
        undefined = np.isnan(result.values)
        assert undefined[3].all()
        assert undefined[:, 3].all()
        assert not undefined[:3, :3].any()


def test_values_that_their_dtype_cannot_hold_are_nan_with_one_warning():
    xs = {"large": layers()["layer.0"].astype(np.float32) * np.float32(1e28)}
    xs["usual"] = layers()["layer.0"].astype(np.float32)
    with pytest.warns(repsim.DegenerateWarning) as caught:
        result = repsim.pairwise(xs, measure="hsic", estimator="biased")
    (warning,) = caught
    assert "pairwise('hsic'): 3 of 4 values are outside the range" in str(warning.message)
    usual = float(repsim.hsic(xs["usual"], xs["usual"]))
    np.testing.assert_allclose(result, [[np.nan] * 2, [np.nan, usual]], rtol=1e-6)


class TestRefused:
    def refuse(self, kind, *words, **arguments):
        arguments = {"xs": layers(), **arguments}
        with pytest.raises(kind) as caught:
            repsim.pairwise(arguments.pop("xs"), arguments.pop("ys", None), **arguments)
        for word in words:
            assert word in str(caught.value)

    def test_an_argument_that_is_not_a_mapping(self):
        refuse = self.refuse
        refuse(repsim.InputError, "pairwise: xs must be a mapping", "list", xs=[np.ones((4, 2))])
        refuse(repsim.InputError, "pairwise: xs must be a mapping", "ndarray", xs=np.ones((4, 2)))
        refuse(repsim.InputError, "pairwise: ys is empty", ys={})
        refuse(repsim.InputError, "names in ys must be strings", "3 of int", ys={3: 1})

    def test_arrays(self):
        refuse, xs = self.refuse, layers()
        short = {"b": xs["layer.0"][:15]}
        refuse(
            repsim.InputError,
            "all arrays must describe the same samples",
            "xs['layer.0']: (16, 3) → n=16",
            "ys['b']: (15, 3) → n=15",
            ys=short,
        )
        refuse(repsim.InputError, "xs['b']", "n=15", xs={**xs, **short})
        refuse(repsim.ArrayTypeError, "ys['b'] must be an array", ys={"b": [[1.0]]})
        refuse(repsim.InputError, "repsim.open_activations(path)", ys="run.zarr")
        refuse(repsim.InputError, "ys['b'] must be samples by features", ys={"b": np.ones(16)})
        bad = xs["layer.2"].copy()
        bad[5, 1] = np.nan
        refuse(repsim.NonFiniteError, "xs['bad'] must be finite", "row 5", xs={**xs, "bad": bad})
        torch = pytest.importorskip("torch")
        refuse(repsim.ArrayTypeError, "one framework", "ys['t']", ys={"t": torch.ones(16, 2)})

    def test_measures_and_options(self):
        refuse = self.refuse
        refuse(repsim.InputError, "unknown measure", "'cka'", "'nbs'", "'ckaa'", measure="ckaa")
        refuse(repsim.InputError, "unknown measure", measure=repsim.cka)
        words = "unknown options for measure 'cka'", "'kernel', 'estimator'", "'sigma'"
        refuse(repsim.InputError, *words, sigma=1.0)
        refuse(repsim.InputError, "it has no options", measure="nbs", kernel="rbf")
        refuse(repsim.InputError, "unknown kernel", kernel="gauss")
        few = {name: x[:3] for name, x in layers().items()}
        words = "the unbiased estimator needs at least 4 samples", "xs['layer.0']"
        refuse(repsim.InputError, *words, xs=few, estimator="unbiased")


NAMES = [f"image{i}.png" for i in range(16)]


class TestSamples:
    def test_equal_identifiers_are_accepted(self):
        xs, ys = layers(), layers(seed=1)
        expected = repsim.pairwise(xs, ys)
        numbers = np.arange(16)
        for left, right in (
            (NAMES, tuple(NAMES)),
            (np.asarray(NAMES), NAMES),
            (numbers, numbers.tolist()),
        ):
            out = repsim.pairwise(xs, ys, samples_x=left, samples_y=right)
            assert out.identical(expected)
        torch = pytest.importorskip("torch")
        out = repsim.pairwise(xs, ys, samples_x=torch.arange(16), samples_y=numbers)
        assert out.identical(expected)
        assert repsim.pairwise(xs, samples_x=NAMES).identical(repsim.pairwise(xs))

    def test_others_are_refused(self):
        xs, ys = layers(), layers(seed=1)
        swapped = [*NAMES[:3], NAMES[4], NAMES[3], *NAMES[5:]]
        with pytest.raises(
            repsim.InputError,
            match=r"2 of 16 identifiers differ, the first in row 3: 'image3.png' in samples_x, "
            r"'image4.png' in samples_y\n.*another order",
        ):
            repsim.pairwise(xs, ys, samples_x=NAMES, samples_y=swapped)
        other = [*NAMES[:15], "new.png"]
        with pytest.raises(repsim.InputError, match=r"1 of 16.*row 15.*\n.*that both sides have"):
            repsim.pairwise(xs, ys, samples_x=NAMES, samples_y=other)
        for samples in ({"samples_x": NAMES}, {"samples_y": NAMES}):
            with pytest.raises(repsim.InputError, match="has nothing to be matched with"):
                repsim.pairwise(xs, ys, **samples)
        with pytest.raises(repsim.InputError, match="and there are none"):
            repsim.pairwise(xs, samples_y=NAMES)
        with pytest.raises(repsim.InputError, match="got 15 identifiers for n=16"):
            repsim.pairwise(xs, samples_x=NAMES[1:])
        with pytest.raises(repsim.InputError, match="one-dimensional"):
            repsim.pairwise(xs, samples_x=np.ones((16, 2)))
        for bad in ("image", 7, iter(NAMES)):
            with pytest.raises(repsim.InputError, match="one identifier for each sample"):
                repsim.pairwise(xs, samples_x=bad)


def test_the_arrays_are_left_as_they_were():
    xs = layers()
    copies = {name: x.copy() for name, x in xs.items()}
    for name in MEASURES:
        repsim.pairwise(xs, measure=name)
    for name, x in xs.items():
        np.testing.assert_array_equal(x, copies[name])


def test_one_array_alone():
    x, _ = related(12, 3, 4)
    assert float(repsim.pairwise({"only": x}).item()) == pytest.approx(1)


def test_stored_activations_name_their_models():
    x, y = (
        xr.Dataset({"a": (("sample", "a[1]"), values)}, attrs={"model": name})
        for name, values in zip(("ViT", "CNN"), related(12, 3, 4), strict=True)
    )
    for function in (repsim.pairwise, repsim.cka_matrix):
        for given, names in (((x, y), ["ViT", "CNN"]), ((x,), ["ViT", "ViT"])):
            attrs = function(*given).attrs
            assert [attrs["model_x"], attrs["model_y"]] == names
