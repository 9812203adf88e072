"""Offsets, scales and dtypes for which sums in other packages cancel, overflow or vanish."""

import warnings

import numpy as np
import pytest

import repsim
from reference import kernels
from repsim import MinibatchCKA
from repsim.kernels import RBF, Laplacian, Polynomial
from streaming.batches import accumulate, data, loops, split


def halves(n, p, seed, scale=1.0, mean=0.0, dtype="float32"):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, p))
    x = common + rng.standard_normal((n, p))
    y = common + rng.standard_normal((n, p))
    x, y = ((scale * (v + mean)).astype(dtype) for v in (x, y))
    sizes = [n // 2, n - n // 2]
    return split({"x": x}, sizes), split({"y": y}, sizes)


@pytest.mark.parametrize("mean", [30.0, 1e4])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian"])
def test_a_mean_of_many_standard_deviations(eager, mean, kernel):
    xs, ys = halves(16, 12, 0, mean=mean)
    xs64, ys64 = ([{k: v.astype("f8") for k, v in b.items()} for b in side] for side in (xs, ys))
    expected = accumulate(xs64, ys64, kernel).compute().item()
    if kernel == "linear":
        loop = loops(xs64, ys64, lambda x: kernels.linear(kernels.centred(x))).item()
        assert expected == pytest.approx(loop, rel=1e-9)
    result = accumulate(xs, ys, kernel, eager.array).compute().item()
    assert result == pytest.approx(expected, rel=2e-5)


def test_one_feature_at_300_among_768(eager):
    """As in real vision transformers and language models: .449 became 1.0 elsewhere."""
    xs, ys = halves(16, 768, 1)
    expected = loops(xs, ys).item()
    for side in (xs, ys):
        for batch in side:
            for v in batch.values():
                v[:, 7] += 300
    result = accumulate(xs, ys, "linear", eager.array).compute().item()
    assert result == pytest.approx(loops(xs, ys).item(), rel=1e-5)
    assert result == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [("float32", 1e8), ("float32", 1e-8), ("float64", 1e15), ("float64", 1e-15)],
)
@pytest.mark.parametrize("two", [True, False], ids=["two models", "one model"])
def test_scales(eager, dtype, scale, two):
    xs, ys = halves(16, 12, 2, dtype="float64")
    both = [{**x, **y} for x, y in zip(xs, ys, strict=True)]
    plain = (xs, ys) if two else (both, both)
    scaled = [[{k: (scale * v).astype(dtype) for k, v in b.items()} for b in s] for s in plain]
    acc = accumulate(scaled[0], scaled[1] if two else None, "linear", eager.array)
    rtol = 2e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(acc.compute().values, loops(*plain), rtol=rtol)


@pytest.mark.parametrize("scale", [1e12, 1e-12])
@pytest.mark.parametrize("two", [True, False], ids=["two models", "one model"])
def test_squares_of_gram_entries_are_formed_in_double_precision(scale, two):
    """The Gram is in range; its square is not, and neither mode may form it in float32."""
    xs, ys = halves(20, 30, 2, scale=scale)
    both = [{**x, **y} for x, y in zip(xs, ys, strict=True)]
    plain = (xs, ys) if two else (both, both)
    acc = accumulate(plain[0], plain[1] if two else None)
    np.testing.assert_allclose(acc.compute().values, loops(*plain), rtol=2e-5)


def test_many_features_in_float32():
    xs, ys = halves(12, 20_000, 3, mean=5.0)
    assert accumulate(xs, ys).compute().item() == pytest.approx(loops(xs, ys).item(), rel=1e-5)


def test_twins_in_float32_are_one():
    xs, _ = halves(24, 50, 4, mean=3.0)
    twice = accumulate(xs, xs).compute().item()
    once = accumulate(xs).compute().item()
    assert once == pytest.approx(1, abs=1e-15)
    assert twice == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "int8", "int64", "uint8", "bool"])
def test_dtypes(eager, dtype):
    if eager.name == "strict" and dtype == "float16":
        pytest.skip("the standard has no float16")
    xs, ys = (split(side, [8, 8]) for side in data(16))
    xs, ys = (
        [{k: (np.abs(np.rint(3 * v)) % 5).astype(dtype) for k, v in b.items()} for b in side]
        for side in (xs, ys)
    )
    acc = accumulate(xs, ys, "linear", eager.array)
    rtol = 1e-5 if dtype == "float16" else 1e-10
    np.testing.assert_allclose(acc.compute().values, loops(xs, ys), rtol=rtol, atol=1e-6)


def test_bfloat16_with_an_offset():
    """Elsewhere 1.0000."""
    torch = pytest.importorskip("torch")
    x, y = (
        torch.tensor(np.concatenate([b[k] for b in side])).bfloat16() + 3
        for side, k in zip(halves(40, 16, 5), "xy", strict=True)
    )
    acc = MinibatchCKA()
    for rows in (slice(0, 20), slice(20, 40)):
        acc.update({"x": x[rows]}, {"y": y[rows]})
    xs, ys = ([v[:20].double().numpy(), v[20:].double().numpy()] for v in (x, y))
    expected = loops([{"x": v} for v in xs], [{"y": v} for v in ys]).item()
    assert acc.compute().item() == pytest.approx(expected, rel=1e-5)
    assert expected < 0.9


def test_float16_whose_squares_overflow():
    xs, ys = halves(20, 8, 6, scale=3000.0, dtype="float16")
    assert accumulate(xs, ys).compute().item() == pytest.approx(loops(xs, ys).item(), rel=1e-5)


def test_dtypes_may_differ_between_layers(eager):
    xs, ys = (split(side, [8, 8]) for side in data(16, dtype="float32"))
    for batch in xs:
        batch["norm"] = batch["norm"].astype("float64")
        batch["fc"] = np.rint(5 * batch["fc"]).astype("int32")
    acc = accumulate(xs, ys, "linear", eager.array)
    np.testing.assert_allclose(acc.compute().values, loops(xs, ys), rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "int64"])
def test_grams_of_any_dtype(eager, dtype):
    if eager.name == "strict" and dtype == "float16":
        pytest.skip("the standard has no float16")
    rng = np.random.default_rng(0)
    x, y = (rng.integers(-9, 9, (8, 6)) for _ in range(2))
    k, l = ((v @ v.T).astype(dtype) for v in (x, y))  # noqa: E741
    acc = MinibatchCKA()
    acc.update_grams({"x": eager.array(k)}, {"y": eager.array(l)})
    expected = loops([{"x": x}], [{"y": y}]).item()
    assert acc.compute().item() == pytest.approx(expected, rel=1e-4)


# Constants


@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian", "polynomial", "cosine"])
@pytest.mark.parametrize("p", [1, 3, 1000, 50_000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_layer_is_nan_and_named(kernel, p, dtype):
    rng = np.random.default_rng(p)
    row = rng.standard_normal((1, p))
    acc = MinibatchCKA(kernel=kernel)
    for n in (7, 12):
        varied = rng.standard_normal((n, 3))
        acc.update(
            {
                "flat": np.full((n, p), 0.1, dtype),
                "varied": varied.astype(dtype),
                "row": np.repeat(row, n, axis=0).astype(dtype),
            },
            {"other": (varied + rng.standard_normal((n, 3))).astype(dtype)},
        )
    with pytest.warns(repsim.DegenerateWarning) as caught:
        result = acc.compute()
    assert len(caught) == 1
    assert "'flat', 'row'" in str(caught[0].message)
    assert "varied" not in str(caught[0].message)
    assert np.isnan(result.sel(layer_x=["flat", "row"])).all()
    assert 0 < result.sel(layer_x="varied").item() < 1


@pytest.mark.parametrize("kernel", ["linear", "rbf", "polynomial", "cosine"])
def test_a_constant_layer_in_every_framework(eager, kernel):
    for dtype in ("float32", "float64"):
        xs = {"flat": np.full((8, 5), 0.1, dtype), "varied": data(8, dtype=dtype)[0]["conv"]}
        acc = accumulate([xs, xs], None, kernel, eager.array)
        with pytest.warns(repsim.DegenerateWarning, match="'flat'"):
            result = acc.compute()
        np.testing.assert_array_equal(np.isnan(result.values), [[True, True], [True, False]])
        assert result.values[1, 1] == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_gram_that_is_constant_but_for_rounding(dtype):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, 8))
    flat = (0.7 * (1 + np.finfo(dtype).eps * (noise + noise.T) / 4)).astype(dtype)
    assert (flat != flat[0, 1]).any()
    x = data(8, dtype=dtype)[0]["conv"]
    acc = MinibatchCKA()
    acc.update_grams({"flat": flat, "x": x @ x.T})
    with pytest.warns(repsim.DegenerateWarning, match="'flat'"):
        assert np.isnan(acc.compute().sel(layer_x="flat")).all()


def test_features_whose_squares_vanish_are_nan_and_named():
    (x,), (y,) = (split(side, [24]) for side in data(24))
    for dtype, least in (("float32", -62), ("float64", -254)):
        layers = [{name: each.astype(dtype) for name, each in side.items()} for side in (x, y)]
        right = accumulate([layers[0]], [layers[1]]).compute()
        for power in range(least - 18, least + 2, 2):  # digit by digit, until all are there
            small = {name: each * np.asarray(2.0**power, dtype) for name, each in layers[0].items()}
            acc = accumulate([small], [layers[1]])
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                values = acc.compute().values
            usable = ~np.isnan(values)
            np.testing.assert_allclose(values[usable], right.values[usable], rtol=2e-5)
            assert usable.all() == (not caught)
            assert all("where squares vanish" in str(each.message) for each in caught)
        assert usable.all()


def test_both_sides_are_named():
    xs = {"flat": np.ones((6, 2)), "x": data(6)[0]["conv"]}
    with pytest.warns(repsim.DegenerateWarning) as caught:
        accumulate([xs], [{"still": np.ones((6, 4)), "y": xs["x"]}]).compute()
    assert [("x 'flat'" in str(w.message), "y 'still'" in str(w.message)) for w in caught] == [
        (True, False),
        (False, True),
    ]


def test_constant_within_each_batch_is_constant():
    acc = accumulate([{"x": np.full((6, 3), float(b)), "y": data(6, b)[0]["fc"]} for b in range(3)])
    with pytest.warns(repsim.DegenerateWarning, match="'x'"):
        assert np.isnan(acc.compute().sel(layer_x="x")).all()


def test_constant_in_one_batch_only_is_not_constant():
    xs, ys = (split(side, [6, 7, 8]) for side in data(21))
    xs[1]["conv"] = np.full((7, 3), 0.1)
    np.testing.assert_allclose(accumulate(xs, ys).compute().values, loops(xs, ys), rtol=1e-10)


def test_standard_error_of_a_constant_layer_is_nan():
    xs = [{"flat": np.ones((6, 2)), "x": data(6, b)[0]["conv"]} for b in range(4)]
    error = accumulate(xs).standard_error().values
    np.testing.assert_array_equal(np.isnan(error), [[True, True], [True, False]])


def test_tiny_and_huge_layers_side_by_side(eager):
    xs, ys = (split(side, [8, 8]) for side in data(16, dtype="float32"))
    scaled = [{"conv": b["conv"] * 1e6, "norm": b["norm"] * 1e-6, "fc": b["fc"] + 100} for b in xs]
    acc = accumulate(scaled, ys, "linear", eager.array)
    np.testing.assert_allclose(acc.compute().values, loops(xs, ys), rtol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [None, 7])
def test_a_gram_of_nearly_equal_entries_is_that_of_cka_or_undefined(dtype, size):
    x, noise = np.random.default_rng(0).standard_normal((2, 40, 3)).astype(dtype)
    layers = {"x": x, "y": x + noise}
    for kernel in (RBF(sigma=1e9), Polynomial(gamma=1e-20), RBF(fraction=1e9)):
        with pytest.warns(repsim.DegenerateWarning, match=r"xs\['x'\], xs\['y'\]"):
            assert np.isnan(repsim.cka_matrix(layers, kernel=kernel, block_size=size)).all()
    if dtype == "float64":
        for kernel in (RBF(sigma=1e6), Polynomial(gamma=1e-12), Laplacian(sigma=1e11)):
            got = repsim.cka_matrix(layers, kernel=kernel, block_size=size).values[0, 1]
            expected = repsim.cka(*layers.values(), kernel=kernel, estimator="unbiased")
            assert got == pytest.approx(float(expected), abs=1e-3), kernel


def test_values_out_of_the_range_of_the_dtype_are_refused():
    x, y = np.random.default_rng(0).standard_normal((2, 12, 3))
    for far in (x * 1e40, x * 1e-60, x + 1e40, x * 1e-300):
        with pytest.raises(repsim.InputError, match=r"xs\['far'\] must lie in the range"):
            repsim.cka_matrix({"far": far, "y": y}, dtype="float32")
    for scale in (1e37, 1e-37):
        near = repsim.cka_matrix({"x": x * scale, "y": y}, dtype="float32")
        np.testing.assert_allclose(near, repsim.cka_matrix({"x": x, "y": y}), atol=1e-5)
