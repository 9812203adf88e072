"""One error rate for a whole map of layers."""

import numpy as np
import pytest

import repsim
from reference.data import related
from repsim import DegenerateWarning, InputError, max_t, permutation_test

DIMS = ("layer_x", "layer_y")


def layers(n=16, seed=0):
    rng = np.random.default_rng(seed)
    cause = rng.standard_normal((n, 3))
    xs = {
        "conv": cause + 0.3 * rng.standard_normal((n, 3)),
        "fc": rng.standard_normal((n, 40)),
    }
    ys = {
        "embed": cause @ rng.standard_normal((3, 20)) + 0.3 * rng.standard_normal((n, 20)),
        "head": rng.standard_normal((n, 2)),
        "norm": np.tanh(cause),
    }
    return xs, ys


def loops(xs, ys, orders, estimator):
    """Each pair alone, in the orders of the permutations."""

    def matrix(order):
        return np.array(
            [
                [float(repsim.cka(x, y[order], estimator=estimator)) for y in ys.values()]
                for x in xs.values()
            ]
        )

    n = len(next(iter(xs.values())))
    return matrix(np.arange(n)), np.array([matrix(order) for order in orders])


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("itself", [False, True])
def test_equals_the_plain_loop(estimator, itself):
    xs, ys = layers()
    ys = xs if itself else ys
    found = max_t(xs, None if itself else ys, permutations=30, seed=3, estimator=estimator)
    rng = np.random.default_rng(3)
    observed, null = loops(xs, ys, [rng.permutation(16) for _ in range(30)], estimator)
    moments = [
        [repsim.inference.null_moments(x, y, estimator=estimator) for y in ys.values()]
        for x in xs.values()
    ]
    mean = np.array([[float(m.mean) for m in row] for row in moments])
    sd = np.sqrt([[float(m.variance) for m in row] for row in moments])
    z, null_z = (observed - mean) / sd, (null - mean) / sd
    np.testing.assert_allclose(found.cka, observed, atol=1e-10)
    np.testing.assert_allclose(found.z, z, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.max_z, null_z.max(axis=(1, 2)), rtol=1e-8)
    greater = null_z >= z - 1e-9
    np.testing.assert_array_equal(found.p_value, (greater.sum(0) + 1) / 31)
    greatest = null_z.max(axis=(1, 2))[:, None, None] >= z - 1e-9
    np.testing.assert_array_equal(found.p_adjusted, (greatest.sum(0) + 1) / 31)
    assert found.cka.dims == DIMS
    assert found.layer_x.values.tolist() == list(xs)
    assert found.layer_y.values.tolist() == list(ys)


def test_one_pair_is_the_permutation_test():
    xs, ys = layers()
    one = max_t({"a": xs["fc"]}, {"b": ys["head"]}, permutations=50, seed=1)
    test = permutation_test(xs["fc"], ys["head"], permutations=50, seed=1)
    assert one.p_value.item() == one.p_adjusted.item() == test.p_value
    assert one.z.item() == pytest.approx(test.z, rel=1e-10)


def test_values_that_float32_makes_unequal_are_equal():
    """Grams of float32 have its rounding, so the same values of two orders differ by it."""
    for n, seed, estimator in ((5, 17, "biased"), (8, 7, "unbiased")):
        rng = np.random.default_rng(seed)
        x, y = np.eye(3)[rng.integers(0, 3, n)], 1.7 * np.eye(2)[rng.integers(0, 2, n)]
        options = {"permutations": 99, "estimator": estimator}
        p_values = []
        for dtype in (np.float64, np.float32):
            a, b = x.astype(dtype), y.astype(dtype)
            p_values.append(max_t({"x": a}, {"y": b}, **options).p_adjusted.item())
            p_values.append(permutation_test(a, b, **options).p_value)
        assert len(set(p_values)) == 1


def test_values_that_differ_by_more_than_their_rounding_are_ordered():
    """The rounding of 1 in float32 is more than that of the CKA of unrelated data."""
    x, y = np.random.default_rng(22).standard_normal((2, 150, 6)).astype("float32")
    for measure in ("cka", "hsic"):
        options = {"measure": measure, "permutations": 299, "seed": 1}
        wide = permutation_test(x.astype(float), y.astype(float), **options)
        assert max_t({"x": x}, {"y": y}, **options).p_value.item() == wide.p_value
        assert permutation_test(x, y, **options).p_value == wide.p_value


@pytest.mark.parametrize("groups", [None, np.repeat(np.arange(8), 2)])
@pytest.mark.parametrize("seed", range(5))
def test_adjusted_is_never_smaller(groups, seed):
    xs, ys = layers(seed=seed)
    found = max_t(xs, ys, permutations=40, seed=seed, groups=groups)
    assert (found.p_adjusted >= found.p_value).all()
    # A greater z never has the greater p-value.
    order = np.argsort(found.z.values.ravel())
    assert (np.diff(found.p_adjusted.values.ravel()[order]) <= 0).all()
    assert (found.max_z.values >= -10).all()


def test_finds_all_and_nothing_else():
    found = max_t(*layers(24), permutations=199)
    assert (found.p_adjusted.sel(layer_x="conv", layer_y=["embed", "norm"]) <= 0.01).all()
    assert (found.p_adjusted.sel(layer_x="fc") > 0.05).all()


def test_familywise_level():
    single = whole = 0
    rng = np.random.default_rng(0)
    for seed in range(100):
        xs, ys = ({str(i): rng.standard_normal((12, 4)) for i in range(4)} for _ in range(2))
        found = max_t(xs, ys, permutations=19, seed=seed)
        whole += bool((found.p_adjusted <= 0.1).any())
        single += bool((found.p_value <= 0.1).any())
    assert whole <= 23  # Binomial(100, .1) exceeds 23 once in 20 000
    assert single >= 50  # sixteen tests at .1 each


def test_groups():
    xs, ys = layers()
    labels = np.repeat(np.arange(8), 2)
    found = max_t(xs, ys, permutations=25, seed=2, groups=labels)
    for a, b in (("conv", "head"), ("fc", "embed")):
        test = permutation_test(xs[a], ys[b], permutations=25, seed=2, groups=labels)
        assert found.p_value.sel(layer_x=a, layer_y=b).item() == test.p_value
        both = [test.value, *test.null]
        expected = (test.value - np.mean(both)) / np.std(both)
        assert found.z.sel(layer_x=a, layer_y=b).item() == pytest.approx(expected, rel=1e-9)
    assert found.attrs["n_groups"] == 8
    with pytest.raises(InputError, match="max_t: all groups must have the same number"):
        max_t(xs, ys, groups=[0] * 10 + [1] * 6)


def test_a_constant_layer_takes_no_part():
    xs, ys = layers()
    with pytest.warns(DegenerateWarning, match=r"max_t: xs\['flat'\] is constant"):
        found = max_t({**xs, "flat": np.ones((16, 3))}, ys, permutations=20)
    plain = max_t(xs, ys, permutations=20)
    for name in ("cka", "z", "p_value", "p_adjusted"):
        assert np.isnan(found[name].sel(layer_x="flat")).all()
        np.testing.assert_allclose(found[name].sel(layer_x=list(xs)), plain[name], rtol=1e-9)
    np.testing.assert_allclose(found.max_z, plain.max_z, rtol=1e-9)


def test_every_framework(eager):
    xs, ys = layers()
    expected = max_t(xs, ys, permutations=10)
    arrays = [{k: eager.array(v.astype("float32")) for k, v in side.items()} for side in (xs, ys)]
    found = max_t(*arrays, permutations=10)
    np.testing.assert_allclose(found.z, expected.z, atol=2e-4)
    np.testing.assert_array_equal(found.p_adjusted, expected.p_adjusted)


def test_attributes_and_saving(tmp_path):
    found = max_t(*layers(), permutations=5, kernel="rbf", seed=np.random.default_rng(0))
    assert found.attrs["estimator"] == "unbiased"
    assert found.attrs["n_samples"] == 16
    assert found.attrs["n_permutations"] == 5
    assert found.attrs["n_groups"] == 0
    assert "RBF" in found.attrs["kernel"]
    for variable in found.data_vars.values():
        assert variable.attrs["units"] == "1"
        assert variable.attrs["long_name"]
        assert variable.dtype == np.float64


def test_refuses():
    xs, _ = layers()
    for bad in ([1, 2], {}, np.ones((3, 3))):
        with pytest.raises(InputError, match="max_t: xs must map names to arrays"):
            max_t(bad)
    with pytest.raises(InputError, match="max_t: ys must map names"):
        max_t(xs, {})
    with pytest.raises(InputError, match=r"same samples.\n  xs\['conv'\]: .*ys\['b'\]: \(15, 2\)"):
        max_t(xs, {"b": np.ones((15, 2))})
    with pytest.raises(repsim.NonFiniteError, match=r"ys\['b'\] must be finite"):
        max_t(xs, {"b": np.full((16, 2), np.inf)})
    with pytest.raises(InputError, match="the permutation test needs at least 4 samples"):
        max_t({"a": related(3, 2, 2)[0]})
    with pytest.raises(repsim.ArrayTypeError, match=r"ys\['b'\] must be an array"):
        max_t(xs, {"b": [[1.0]] * 16})


@pytest.mark.parametrize("measure", ["mutual_knn", "procrustes", "angular_cka", "rsa"])
def test_any_measure_equals_the_plain_loop(measure):
    xs, ys = layers()
    found = max_t(xs, ys, measure=measure, permutations=19, seed=3)
    rng = np.random.default_rng(3)
    orders = [np.arange(16), *(rng.permutation(16) for _ in range(19))]
    maps = np.array(
        [
            repsim.pairwise(xs, {k: y[order] for k, y in ys.items()}, measure=measure)
            for order in orders
        ]
    )
    similar = found[measure].attrs["kind"] == "similarity"
    assert found.chance.attrs["kind"] == found[measure].attrs["kind"]
    counted = [found.attrs[f"n_{name}"] for name in ("samples", "permutations", "groups")]
    assert counted == [16, 19, 0]
    z = (maps - maps.mean(axis=0)) / maps.std(axis=0) * (1 if similar else -1)
    np.testing.assert_allclose(found[measure], maps[0], rtol=1e-12)
    np.testing.assert_allclose(found.chance, maps[1:].mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.z, z[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.max_z, z[1:].max(axis=(1, 2)), rtol=1e-6)
    p_value = (z >= z[0] - 1e-9).mean(axis=0)
    p_adjusted = (z.max(axis=(1, 2))[:, None, None] >= z[0] - 1e-9).mean(axis=0)
    np.testing.assert_allclose(found.p_value, p_value)
    np.testing.assert_allclose(found.p_adjusted, p_adjusted)


def test_groups_and_options_of_a_measure():
    xs, ys = layers()
    groups = np.repeat(np.arange(8), 2)
    options = {"measure": "mutual_knn", "k": 3, "permutations": 19, "seed": 1, "groups": groups}
    found = max_t(xs, ys, **options)
    one = permutation_test(xs["conv"], ys["norm"], **options)
    here = found.sel(layer_x="conv", layer_y="norm")
    assert here.p_value.item() == one.p_value
    assert here.mutual_knn.attrs["k"] == 3
    assert found.attrs["n_groups"] == 8
    with pytest.raises(InputError, match="unknown options for measure 'nbs'"):
        max_t(xs, ys, measure="nbs", kernel="rbf")
    with pytest.raises(InputError, match="k=15 needs at least"):
        max_t(xs, ys, measure="mutual_knn", k=15)
    with pytest.raises(InputError, match="unknown features"):
        max_t(xs, ys, features="some")
    sampled = max_t({"embed": ys["embed"]}, features="sampled", permutations=9)
    assert sampled.cka.attrs["features"] == "sampled"
    expected = repsim.pairwise({"embed": ys["embed"]}, features="sampled")
    np.testing.assert_allclose(sampled.cka, expected, rtol=1e-12)


@pytest.mark.parametrize("power", [130, -145])
def test_values_whose_squares_are_out_of_range(power):
    """HSIC of features of 1e39 and 1e-43: a power of two changes no digit of z."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 24, 3))
    y = x + noise

    def found(factor):
        a, b = x * factor, y * factor
        options = {"measure": "hsic", "permutations": 20}
        many = repsim.max_t({"a": a}, {"b": b}, **options)
        one = repsim.permutation_test(a, b, groups=np.arange(24), **options)
        half = repsim.inference.subsample(a, b, measure="hsic", draws=10)
        return [many.z.item(), one.z, many.chance.item(), one.null_mean, half.standard_error]

    plain, scaled = found(1.0), found(2.0**power)
    assert scaled[:2] == plain[:2]
    assert np.ldexp(scaled[2:], -4 * power).tolist() == plain[2:]


def test_hsic_that_is_zero_in_every_order_is_no_evidence():
    """One sample apart from equal ones is constant for the unbiased estimator."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((24, 3))
    y = x + rng.standard_normal((24, 3))
    apart = np.zeros((24, 1))
    apart[3] = 1.0
    found = repsim.max_t({"apart": apart, "x": x}, {"y": y}, measure="hsic", permutations=39)
    alone = repsim.max_t({"x": x}, {"y": y}, measure="hsic", permutations=39)
    assert found.p_value.values.tolist() == found.p_adjusted.values.tolist() == [[1.0], [1 / 40]]
    assert np.isnan(found.z.sel(layer_x="apart").item())
    np.testing.assert_allclose(found.max_z, alone.max_z)


@pytest.mark.parametrize(
    ("measure", "groups"),
    [("procrustes", None), ("cka", np.repeat(range(6), 4)), ("rsa", np.repeat(range(6), 4))],
)
def test_a_value_that_no_order_changes_takes_no_part(measure, groups):
    # its deviation is rounding, and a z of rounding hid the other pairs
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((2, 24, 3))
    y = x + 0.5 * noise
    same = np.ones((24, 2)) / 3 if groups is None else np.tile(x[:4], (6, 1))
    still = same if groups is None else np.tile(y[:4], (6, 1))
    options = {"measure": measure, "groups": groups, "permutations": 39}
    alone = repsim.max_t({"x": x}, {"y": y}, **options)
    found = repsim.max_t({"x": x, "same": same}, {"y": y, "still": still}, **options)
    fixed = found.sel(layer_x="same", layer_y="still")
    assert np.isnan(fixed.z)
    assert (fixed.p_value, fixed.p_adjusted) == (1, 1)
    if groups is None:  # a constant with anything else has one distance in every order too
        assert np.isnan(found.z).sum() == 3
        np.testing.assert_allclose(found.max_z, alone.max_z)
    test = repsim.permutation_test(same, still, **options)
    assert np.isnan(test.z)
    assert test.p_value == 1
