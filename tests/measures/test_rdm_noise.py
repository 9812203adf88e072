"""RDMs in units of noise and from repeated measurements: Mahalanobis and crossnobis."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

import repsim
from cases import each
from measures.checks import refuses, right_gradient
from reference import rdm as reference
from reference.data import oracle, related


def covariance(p, seed=3):
    a = np.random.default_rng(seed).standard_normal((p, 2 * p))
    return a @ a.T / (2 * p)


def repeated(n=8, r=3, p=5, noise=0.5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1, p)) + noise * rng.standard_normal((n, r, p))


def test_the_published_crossnobis_distances():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 3))
    rng.standard_normal((10, 4))  # the noise of the oracle's y
    np.testing.assert_array_equal(x, oracle()[0])
    both = np.stack([x, x + 0.5 * rng.standard_normal((10, 3))], axis=1)
    out = repsim.rdm(both, "crossnobis", repeats=2)
    np.testing.assert_allclose(out[0, 1:4], [0.11412634, 1.5722493, 0.59695145], atol=5e-8)
    assert out[np.triu_indices(10, 1)].sum() == pytest.approx(69.94549020, abs=5e-9)


@each("diagonal", [False, True])
@each("dtype", ["float32", "float64"])
def test_values(backend, diagonal, dtype):
    if backend.compiled and dtype == "float32":
        pytest.skip("compiling each takes a second; eager jax covers the dtypes")
    x = repeated().astype(dtype)
    noise = covariance(5).astype(dtype)
    given = np.diagonal(noise).copy() if diagonal else noise
    precision = np.linalg.inv(np.diag(given) if diagonal else noise).astype(np.float64)
    rtol = {"float32": 2e-4, "float64": 1e-9}[dtype]

    def run(kind, x, **options):
        out = backend.call(lambda a, b: repsim.rdm(a, kind, noise=b, **options), x, given)
        assert backend.owns(out)
        assert backend.dtype(out) == dtype
        found = backend.numpy(out)
        np.testing.assert_array_equal(np.diagonal(found), 0)
        np.testing.assert_array_equal(found, found.T)
        return found

    flat = x[:, 0]
    far = squareform(pdist(flat.astype(np.float64), "mahalanobis", VI=precision))
    np.testing.assert_allclose(run("mahalanobis", flat), far, rtol=rtol)
    np.testing.assert_allclose(run("sqmahalanobis", flat), far**2, rtol=rtol)
    expected = reference.crossnobis(x.astype(np.float64), precision)
    found = run("crossnobis", x, repeats=3)
    np.testing.assert_allclose(found, expected, atol=rtol * np.abs(expected).max())


def test_without_a_covariance_the_noise_is_white(eager):
    x = repeated()
    out = eager.numpy(eager.call(repsim.rdm, x, kind="crossnobis", repeats=3))
    np.testing.assert_allclose(out, reference.crossnobis(x, np.eye(5)), atol=1e-12)


def test_crossnobis_is_unbiased_where_averaging_is_not():
    x = repeated(n=100, r=4, p=40, noise=2.0)
    truth = repsim.rdm(np.random.default_rng(0).standard_normal((100, 1, 40))[:, 0], "sqeuclidean")
    off = ~np.eye(100, dtype=bool)
    unbiased = repsim.rdm(x, "crossnobis", repeats=4) - truth / 40
    averaged = (repsim.rdm(x.mean(axis=1), "sqeuclidean") - truth) / 40
    assert abs(unbiased[off].mean()) < 0.05
    assert averaged[off].mean() == pytest.approx(2, abs=0.1)  # 2σ²/r
    assert (repsim.rdm(x - x.mean(axis=1, keepdims=True), "crossnobis", repeats=4) < 0).any()


@each("scale", [1e-150, 1e150])
def test_units_cancel(scale):
    x, noise = repeated(), covariance(5)
    for kind, options in (("mahalanobis", {}), ("crossnobis", {"repeats": 3})):
        plain = repsim.rdm(x if options else x[:, 0], kind, noise=noise, **options)
        scaled = scale * (x if options else x[:, 0])
        with np.errstate(under="ignore"):
            out = repsim.rdm(scaled, kind, noise=noise * scale * scale, **options)
        np.testing.assert_allclose(out, plain, rtol=1e-9, atol=1e-12)


def test_a_large_mean_in_float32():
    x = (repeated() + 1e4).astype(np.float32)
    out = repsim.rdm(x, "crossnobis", repeats=3)
    expected = reference.crossnobis(x.astype(np.float64), np.eye(5))
    np.testing.assert_allclose(out, expected, atol=1e-6 * np.abs(expected).max())


def test_squares_outside_the_range_are_nan_with_a_warning():
    x = related(6, 4, 4)[0]
    for scale in (1e200, 1e-200):
        with pytest.warns(repsim.DegenerateWarning, match="outside the range of float64"):
            out = repsim.rdm(scale * x, "sqeuclidean")
        assert np.isnan(out).sum() == 30
        np.testing.assert_array_equal(np.diagonal(out), 0)
        assert np.isfinite(repsim.rdm(scale * x)).all()


def test_gradients():
    x, y = related(6, 6, 6, 2)
    noise = covariance(6)
    torch = pytest.importorskip("torch")

    def through(a, b):
        first = repsim.rdm(a, "mahalanobis", noise=torch.tensor(noise))
        second = repsim.rdm(b.reshape(6, 2, 3), "crossnobis", repeats=2)
        return repsim.rsa_from_rdm(first, second, comparison="pearson")

    right_gradient(through, x, y)


def test_errors():
    x, noise = repeated(), covariance(5)
    flat = x[:, 0]
    for kind in ("mahalanobis", "sqmahalanobis"):
        with refuses(repsim.InputError, f"rdm: '{kind}' needs the covariance", "noise="):
            repsim.rdm(flat, kind)
    with refuses(repsim.InputError, "'euclidean' takes no noise", "'mahalanobis'"):
        repsim.rdm(flat, noise=noise)
    with refuses(repsim.InputError, "covariance of the 5 features", "(5, 5)", "(4, 4)"):
        repsim.rdm(flat, "mahalanobis", noise=noise[:4, :4])
    with refuses(repsim.InputError, "noise must be symmetric"):
        repsim.rdm(flat, "mahalanobis", noise=np.triu(noise))
    for singular in (np.ones((5, 5)), np.zeros((5, 5)), -noise, np.array([1.0, 1, 0, 1, 1])):
        with refuses(repsim.InputError, "noise must be positive definite", "Shrink"):
            repsim.rdm(flat, "mahalanobis", noise=singular)
    with refuses(repsim.InputError, "noise must be finite"):
        repsim.rdm(flat, "mahalanobis", noise=noise * np.nan)
    with refuses(repsim.ArrayTypeError, "rdm: noise must be an array"):
        repsim.rdm(flat, "mahalanobis", noise=noise.tolist())
    with refuses(repsim.InputError, "rdm: 'crossnobis' needs repeated"):
        repsim.rdm(x, "crossnobis")
    with refuses(repsim.InputError, "rdm: x must hold 3 repeats", "axis=1"):
        repsim.rdm(flat, "crossnobis", repeats=3)
    with refuses(repsim.InputError, "only 'crossnobis' takes repeats", "Average"):
        repsim.rdm(x, "sqeuclidean", repeats=3)


def test_labels_travel_with_the_rdm():
    import xarray

    x = xarray.DataArray(repeated(), dims=("image", "run", "voxel"), coords={"image": range(8)})
    noise = xarray.DataArray(covariance(5), dims=("voxel", "voxel_2"))
    out = repsim.rdm(x, "crossnobis", repeats=3, noise=noise)
    assert out.dims == ("image", "image_2")
    np.testing.assert_array_equal(
        out, repsim.rdm(x.values, "crossnobis", repeats=3, noise=noise.values)
    )
