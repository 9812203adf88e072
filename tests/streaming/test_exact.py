"""cka_matrix: the same numbers as from whole Grams, from any kind of array, in bounded memory."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import exact, kernels
from reference.data import related
from repsim import cka_matrix
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial
from streaming.batches import data, named

KERNELS = {
    "linear": kernels.centred,
    "rbf": kernels.rbf,
    "laplacian": kernels.laplacian,
    "polynomial": kernels.polynomial,
    "cosine": kernels.cosine,
}
KERNELS["linear"] = lambda x: kernels.linear(kernels.centred(x))
ESTIMATORS = ("biased", "unbiased")


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("two", [False, True])
def test_whole_grams(kernel, estimator, two):
    xs, ys = data(33)
    ys = ys if two else None
    expected = exact.cka_matrix(xs, ys, KERNELS[kernel], estimator)
    for size in (None, 1, 8, 32):
        got = cka_matrix(xs, ys, kernel=kernel, estimator=estimator, block_size=size)
        np.testing.assert_allclose(got.values, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("p", [4, 900])
def test_both_forms_of_the_linear_kernel(estimator, p):
    rng = np.random.default_rng(0)
    xs = {"a": rng.standard_normal((60, p)), "b": rng.standard_normal((60, 2, p // 2)) + 4}
    got = cka_matrix(xs, estimator=estimator)
    assert got.attrs["form"] == ("features" if p == 4 else "grams")
    expected = exact.cka_matrix(xs, kernel=KERNELS["linear"], estimator=estimator)
    np.testing.assert_allclose(got.values, expected, atol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("width", [7, 9, 16, 30])
def test_tiles_of_any_width(estimator, two, width):
    """Half of the memory is for a tile, at 24 bytes an entry: layers are cut, or share a tile."""
    rng = np.random.default_rng(0)
    xs, ys = (
        {str(p): rng.standard_normal((80, p)) + 1 for p in ps} for ps in ((12, 5, 20), (3, 17))
    )
    ys = ys if two else None
    expected = cka_matrix(xs, ys, estimator=estimator).values
    got = cka_matrix(xs, ys, estimator=estimator, memory=48 * width**2)
    assert got.attrs["form"] == "features"
    np.testing.assert_allclose(got.values, expected, atol=1e-12)


@given(
    size=st.integers(1, 40),
    kernel=st.sampled_from([RBF(0.4, "off_diagonal"), Polynomial(3, 0.1, 0.5), Laplacian(2.0)]),
    estimator=st.sampled_from(ESTIMATORS),
)
def test_blocks_do_not_matter(size, kernel, estimator):
    xs, ys = data(37, seed=3)
    got = cka_matrix(xs, ys, kernel=kernel, estimator=estimator, block_size=size)
    for x in xs:
        for y in ys:
            one = repsim.cka(xs[x], ys[y], kernel=kernel, estimator=estimator)
            assert abs(got.sel(layer_x=x, layer_y=y).item() - float(one)) < 1e-11


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian", "cosine", "polynomial"])
@pytest.mark.parametrize("p", [6, 150])
def test_float32(kernel, estimator, p):
    rng = np.random.default_rng(1)
    xs = {"a": rng.standard_normal((120, p)), "b": rng.standard_normal((120, p))}
    xs["b"][:, :3] += 2 * xs["a"][:, :3]
    if kernel != "polynomial":  # far from zero, it has few digits of float32
        xs["a"] += 300
        xs["b"][:, 0] += 3000
    narrow = {name: x.astype(np.float32) for name, x in xs.items()}
    wide = {name: x.astype(np.float64) for name, x in narrow.items()}
    got = cka_matrix(narrow, kernel=kernel, estimator=estimator, block_size=50)
    expected = cka_matrix(wide, kernel=kernel, estimator=estimator)
    assert got.attrs["dtype"] == "float32"
    assert expected.attrs["dtype"] == "float64"
    np.testing.assert_allclose(got.values, expected.values, atol=2e-6)
    again = cka_matrix(narrow, kernel=kernel, estimator=estimator, dtype="float64")
    np.testing.assert_allclose(again.values, expected.values, atol=1e-12)


def test_cosines_of_one_direction_are_constant():
    """Their unit vectors differ by rounding alone, so the centred Gram is rounding."""
    rng = np.random.default_rng(0)
    for n, p, dtype in ((7, 1, "float32"), (120, 9, "float32"), (120, 300, "float64")):
        ray = (np.exp(rng.standard_normal((n, 1))) * rng.standard_normal(p)).astype(dtype)
        varied = rng.standard_normal((n, 4)).astype(dtype)
        for estimator in ESTIMATORS:
            with pytest.warns(repsim.DegenerateWarning, match=r"xs\['ray'\]"):
                layers = {"ray": ray}, {"varied": varied}
                assert np.isnan(cka_matrix(*layers, kernel="cosine", estimator=estimator))


def test_float32_with_samples_far_from_all_others():
    rng = np.random.default_rng(2)
    xs = {"a": rng.standard_normal((500, 60)), "b": rng.standard_normal((500, 60))}
    for name in xs:
        xs[name][7] *= 3e3
    xs = {name: x.astype(np.float32) for name, x in xs.items()}
    got = cka_matrix(xs)
    assert got.attrs["form"] == "features"
    expected = cka_matrix({name: x.astype(np.float64) for name, x in xs.items()})
    np.testing.assert_allclose(got.values, expected.values, atol=1e-6)


def test_scales_do_not_matter():
    xs, _ = data(40)
    expected = cka_matrix(xs).values
    for factor in (1e-150, 1e150):
        scaled = {name: factor * x for name, x in xs.items()}
        np.testing.assert_allclose(cka_matrix(scaled).values, expected, atol=1e-12)
    tiny = cka_matrix({n: 1e-18 * x.astype(np.float32) for n, x in xs.items()})
    np.testing.assert_allclose(tiny.values, expected, atol=1e-6)


@pytest.mark.parametrize("kernel", ["rbf", "laplacian"])
@pytest.mark.parametrize(("dtype", "factor", "atol"), [("f4", 1e-25, 1e-6), ("f8", 1e-200, 1e-12)])
def test_a_bandwidth_whose_square_is_zero(kernel, dtype, factor, atol):
    xs = {name: x.astype(dtype) for name, x in data(40)[0].items()}
    scaled = {name: (factor * x).astype(dtype) for name, x in xs.items()}
    expected = cka_matrix(xs, kernel=kernel).values
    np.testing.assert_allclose(cka_matrix(scaled, kernel=kernel).values, expected, atol=atol)


def test_a_gram_that_is_all_diagonal_but_for_1e_33():
    xs = {"a": 20 * data(40)[0]["norm"], "b": 20 * data(40, seed=1)[0]["norm"]}
    got = cka_matrix(xs, kernel=RBF(sigma=4.0), block_size=9)
    one = float(repsim.cka(*xs.values(), kernel=RBF(sigma=4.0), estimator="unbiased"))
    np.testing.assert_allclose(got.values[0, 1], one, atol=1e-10)


# Where arrays come from


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_arrays_of_every_kind_together(tmp_path, kernel):
    zarr = pytest.importorskip("zarr")
    rng = np.random.default_rng(0)
    xs = {
        name: rng.standard_normal((50, 2, 3)).astype(np.float32)
        for name in ("numpy", "map", "zarr", "torch")
    }
    expected = cka_matrix(xs, kernel=kernel).values
    on_disk = np.lib.format.open_memmap(
        tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(50, 2, 3)
    )
    on_disk[:] = xs["map"]
    on_disk.flush()
    stored = zarr.create_array(
        str(tmp_path / "x.zarr"), shape=(50, 2, 3), chunks=(7, 2, 3), dtype="float32"
    )
    stored[:] = xs["zarr"]
    mixed = {
        "numpy": xs["numpy"],
        "map": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "zarr": zarr.open_array(str(tmp_path / "x.zarr"), mode="r"),
        "torch": torch.tensor(xs["torch"], requires_grad=True),
    }
    np.testing.assert_array_equal(cka_matrix(mixed, kernel=kernel).values, expected)


def test_h5py(tmp_path):
    h5py = pytest.importorskip("h5py")
    xs, _ = data(30)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, x in xs.items():
            file[name] = x
        got = cka_matrix({name: file[name] for name in xs})
    np.testing.assert_array_equal(got.values, cka_matrix(xs).values)


def test_half_precision_and_integers():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((40, 5)))
    for dtype in (torch.bfloat16, torch.float16):
        got = cka_matrix({"a": x.to(dtype), "b": x[:, :2].to(dtype)})
        wide = cka_matrix({"a": x.to(dtype).double(), "b": x[:, :2].to(dtype).double()})
        assert got.attrs["dtype"] == "float32"
        np.testing.assert_allclose(got.values, wide.values, atol=1e-6)
    counts = rng.integers(0, 9, (40, 5))
    got = cka_matrix({"a": counts, "b": counts[:, :2] > 4})
    wide = cka_matrix({"a": counts * 1.0, "b": (counts[:, :2] > 4) * 1.0})
    np.testing.assert_array_equal(got.values, wide.values)


class OnlyRows:
    """Supports only slices of rows, and records their largest size."""

    def __init__(self, x):
        self.x, self.shape, self.dtype, self.most = x, x.shape, x.dtype, 0

    def __getitem__(self, key):
        assert isinstance(key, slice)
        assert key.step is None
        out = self.x[key].copy()
        self.most = max(self.most, len(out))
        return out


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_memory_limits_the_rows_that_are_read(kernel):
    rng = np.random.default_rng(0)
    x = OnlyRows(rng.standard_normal((400, 50)).astype(np.float32))
    y = OnlyRows(rng.standard_normal((400, 500)).astype(np.float32))
    got = cka_matrix({"x": x, "y": y}, kernel=kernel, memory=1 << 19)
    assert y.most * 500 * 24 <= 1 << 19
    expected = cka_matrix({"x": x.x, "y": y.x}, kernel=kernel)
    if kernel == "linear":  # a bandwidth from fewer rows is another one
        np.testing.assert_allclose(got.values, expected.values, atol=1e-6)
    else:
        assert got.attrs["bandwidth_rows"] < 400
        np.testing.assert_allclose(got.values, expected.values, atol=0.02)
    with pytest.raises(repsim.InputError, match=r"memory is too small(.|\n)*Give more memory"):
        cka_matrix({"x": x, "y": y}, kernel=kernel, memory=1000)


@pytest.mark.slow
def test_a_bandwidth_from_a_pilot():
    x, y = related(2100, 3, 2)
    got = cka_matrix({"x": x}, {"y": y}, kernel="rbf")
    assert got.attrs["bandwidth_rows"] == 2048
    rows = np.sort(np.random.default_rng(0).choice(2100, 2048, replace=False))
    grams = [RBF().fit(z[rows]).gram(z) for z in (x, y)]
    expected = float(repsim.cka_from_gram(*grams, estimator="unbiased"))
    assert got.item() == pytest.approx(expected, abs=1e-12)
    of_all_rows = float(repsim.cka(x, y, kernel="rbf", estimator="unbiased"))
    assert abs(of_all_rows - expected) > 1e-7


# Results and refusals


def test_labels():
    xs, ys = data(30)
    got = cka_matrix(xs, ys, estimator="biased", kernel=Cosine())
    assert got.dims == ("layer_x", "layer_y")
    assert list(got.layer_x.values) == list(xs)
    assert list(got.layer_y.values) == list(ys)
    assert got.attrs["n_samples"] == 30
    assert got.attrs["estimator"] == "biased"
    assert got.attrs["kernel"] == "Cosine()"
    assert list(cka_matrix(xs).layer_y.values) == list(xs)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_layer_is_nan_with_its_name(kernel, estimator, dtype):
    xs = data(30, dtype=dtype)[0]
    xs["norm"] = np.full((30, 5), 0.1, dtype)
    with pytest.warns(repsim.DegenerateWarning, match=r"NaN\): xs\['norm'\]\."):
        got = cka_matrix(xs, kernel=kernel, estimator=estimator, block_size=7)
    assert np.isnan(got.sel(layer_x="norm")).all()
    assert np.isnan(got.sel(layer_y="norm")).all()
    assert np.isfinite(got.sel(layer_x=["conv", "fc"], layer_y=["conv", "fc"])).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_named_with_their_rows(bad):
    xs, _ = data(30)
    xs["norm"][[4, 17], 2] = bad
    with pytest.raises(repsim.NonFiniteError, match=r"xs\['norm'\](.|\n)*rows 4, 17 \(of 30"):
        cka_matrix(xs, dtype="float64")
    xs["norm"] = data(30)[0]["norm"]
    xs["norm"][:, 1] = bad
    with pytest.raises(
        repsim.NonFiniteError, match=r"1 of the features, in all rows 0(.|\n)*layer\."
    ):
        cka_matrix(xs, dtype="float64")


def test_a_zero_row_has_no_cosine():
    xs, _ = data(30)
    expected = cka_matrix(xs, kernel="cosine", block_size=10)
    xs["norm"][4] = 0
    for estimator in ("unbiased", "biased"):
        with pytest.warns(repsim.DegenerateWarning, match=r"row of zeros.*: xs\['norm'\]\.$"):
            out = cka_matrix(xs, kernel="cosine", block_size=10, estimator=estimator)
        at = list(xs).index("norm")
        assert (np.isnan(out) == (np.eye(len(xs))[at] + np.eye(len(xs))[:, [at]] > 0)).all()
        if estimator == "unbiased":
            np.testing.assert_array_equal(out.fillna(expected), expected)


class Mine:
    def gram(self, x):
        return x @ x.T

    def fit(self, x):
        return self


def test_refusals():
    xs, ys = data(30)
    short = {"patch": ys["patch"][:29]}
    refused = [
        (repsim.InputError, "same samples(.|\n)*n=30(.|\n)*n=29", (xs, short), {}),
        (repsim.InputError, "at least 4 samples", ({"a": xs["fc"][:3]},), {}),
        (repsim.InputError, "must map layer names", (xs["fc"],), {}),
        (repsim.InputError, r"repsim.open_activations\(path\)", ("run.zarr",), {}),
        (repsim.InputError, "an empty mapping", ({},), {}),
        (repsim.InputError, r"xs\['a'\] must be samples by features", ({"a": np.ones(5)},), {}),
        (repsim.ArrayTypeError, r"xs\['a'\] must be an array", ({"a": [[1.0]]},), {}),
        (repsim.ArrayTypeError, "complex128", ({"a": xs["fc"] * 1j},), {}),
        (repsim.InputError, "one of repsim.kernels", (xs,), {"kernel": Mine()}),
        (repsim.InputError, "unknown estimator", (xs,), {"estimator": "best"}),
        (repsim.InputError, "memory must be a positive integer", (xs,), {"memory": 0}),
        (repsim.InputError, "block_size must be", (xs,), {"block_size": 2.5}),
        (repsim.InputError, "unknown dtype", (xs,), {"dtype": "float16"}),
    ]
    for error, match, arguments, options in refused:
        with pytest.raises(error, match=match):
            cka_matrix(*arguments, **options)


def test_inputs_are_left_alone():
    xs, ys = data(30)
    before = named(np.copy, xs)
    for kernel in KERNELS:
        cka_matrix(xs, ys, kernel=kernel)
    for name, x in xs.items():
        np.testing.assert_array_equal(x, before[name])


def test_progress(capsys):
    xs, _ = data(30)
    cka_matrix(xs, kernel=Linear(), progress=True)
    assert "cka_matrix" in capsys.readouterr().err
    cka_matrix(xs)
    assert not capsys.readouterr().err
