"""Linear HSIC of two arrays in blocks: the value of whole Grams, without their memory."""

from __future__ import annotations

import platform
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related, rounding
from repsim.arrays import array_namespace
from repsim.estimators import (
    ESTIMATORS,
    BlockSizes,
    alignment,
    block_products,
    blocks_of_features,
)

FEATURES = pytest.mark.parametrize("features", [True, False], ids=["features", "grams"])
BOTH = pytest.mark.parametrize("estimator", ESTIMATORS)
SMALL = BlockSizes(rows=7, panel=5, group=11)
"""A test has many such blocks, the last ones ragged."""


@pytest.fixture(params=["numpy", "torch"])
def framework(request):
    if request.param == "numpy":
        return np.asarray
    return pytest.importorskip("torch").tensor


def products(x, y, estimator, features, sizes=SMALL, **options):
    options = {"self_products": True, **options}
    return block_products(
        array_namespace(x), x, y, ESTIMATORS[estimator], features=features, sizes=sizes, **options
    )


def cka(x, y, estimator, features, sizes=SMALL):
    found, _ = products(x, y, estimator, features, sizes)
    return alignment(array_namespace(found.xy), found)


def hsic(x, y, estimator, features, sizes=SMALL):
    found, scale = products(x, y, estimator, features, sizes, self_products=False)
    return found.xy * scale / ESTIMATORS[estimator].divisor(len(x))


@BOTH
@FEATURES
@pytest.mark.parametrize("shape", [(5, 3, 4), (7, 5, 5), (40, 9, 23), (38, 60, 41)])
def test_any_number_of_blocks(framework, shape, features, estimator):
    x, y = (z + 3 for z in related(*shape))
    k, l = (grams.linear(grams.centred(z)) for z in (x, y))  # noqa: E741
    arrays = framework(x), framework(y)
    for sizes in (SMALL, BlockSizes()):
        out = float(cka(*arrays, estimator, features, sizes))
        assert out == pytest.approx(reference.cka(k, l, estimator), rel=1e-10)
        out = float(hsic(*arrays, estimator, features, sizes))
        assert out == pytest.approx(reference.HSIC[estimator](k, l), rel=1e-10)
    out = float(repsim.cka(*arrays, estimator=estimator))
    assert out == pytest.approx(reference.cka(k, l, estimator), rel=1e-10)


@FEATURES
@given(
    n=st.integers(4, 40),
    p=st.integers(1, 30),
    q=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-20, 20),
    mean=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_the_value_of_whole_grams(features, n, p, q, seed, exponent, mean):
    x, y = related(n, p, q, seed)
    x = (x + mean) * 10.0**exponent
    for estimator in ESTIMATORS:
        centred = [grams.linear(grams.centred(z)) for z in (x / 10.0**exponent, y)]
        expected = reference.HSIC[estimator](*centred)
        unit = np.sqrt(reference.HSIC["biased"](centred[0], centred[0]))
        unit *= np.sqrt(reference.HSIC["biased"](centred[1], centred[1]))
        out = float(hsic(x, y, estimator, features)) / 100.0**exponent
        assert out == pytest.approx(expected, abs=1e-9 * unit)


@FEATURES
@BOTH
@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1e12, 1e25])
def test_squares_that_float32_does_not_hold(framework, features, estimator, factor):
    x, y = (z.astype(np.float32) for z in related(40, 12, 20))
    expected = reference.cka(
        *(grams.linear(grams.centred(z.astype(float))) for z in (x, y)), estimator
    )
    out = float(cka(framework(x * np.float32(factor)), framework(y), estimator, features))
    assert out == pytest.approx(expected, abs=rounding(2**-23, 40))


@FEATURES
@pytest.mark.parametrize("outlier", [1e2, 1e4])
def test_a_sample_far_from_the_others_in_float32(framework, features, outlier):
    """The terms of the unbiased estimator cancel: products of features are made in float64."""
    x, y = (z.astype(np.float32) for z in related(200, 12, 20))
    x[17] *= np.float32(outlier)
    expected = reference.cka(
        *(grams.linear(grams.centred(z.astype(float))) for z in (x, y)), "unbiased"
    )
    out = float(cka(framework(x), framework(y), "unbiased", features, BlockSizes()))
    assert out == pytest.approx(expected, abs=2e-5)


@FEATURES
@BOTH
def test_features_at_any_distance_from_zero_in_float32(framework, features, estimator):
    """Near zero one reading finds the mean; far from zero the first row is subtracted before it."""
    x, y = related(300, 12, 20)
    spread = x - x.mean(0)
    spread /= np.sqrt((spread**2).mean())
    y = y.astype(np.float32)
    for mean in (0, 0.5, 3.9, 4.1, 30, 1e3, 1e5):
        for columns in (slice(None), slice(3, 4)):
            moved = spread.copy()
            moved[:, columns] += mean
            moved = moved.astype(np.float32)
            expected = reference.cka(
                *(grams.linear(grams.centred(z.astype(float))) for z in (moved, y)), estimator
            )
            out = float(cka(framework(moved), framework(y), estimator, features, BlockSizes()))
            assert out == pytest.approx(expected, abs=2e-6), (mean, columns)


def multiplied(function, *arrays, **options):
    """The dtypes and the shapes of all matrix products of a function of tensors."""
    torch = pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode

    dtypes, shapes = set(), set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            out = operation(*args, **(kwargs or {}))
            if ".mm." in str(operation):
                dtypes.add(str(out.dtype).removeprefix("torch."))
                shapes.add(tuple(out.shape))
            return out

    # NumPy computes what torch does not record, and is not watched.
    tensors = [torch.tensor(each, requires_grad=True) for each in arrays]
    with Watch():
        function(*tensors, **options)
    return dtypes, shapes


def test_tensors_in_main_memory_have_the_values_of_numpy():
    torch = pytest.importorskip("torch")
    for shape in [(300, 12, 20), (40, 100, 90), (1100, 9, 600)]:
        for dtype, scale in ((np.float32, 1.0), (np.float64, 2.0**-300)):
            x, y = (scale * z.astype(dtype) for z in related(*shape))
            for estimator in ("biased", "unbiased"):
                a, b = map(torch.from_numpy, (x, y))
                value = repsim.cka(a, b, estimator=estimator)
                assert value.dtype == a.dtype
                assert value.shape == ()
                assert value.item() == repsim.cka(x, y, estimator=estimator)
                assert repsim.hsic(a, b, estimator=estimator).item() == repsim.hsic(
                    x, y, estimator=estimator
                )


def test_products_are_float32_where_nothing_cancels_and_float64_where_it_does():
    x, y = (z.astype(np.float32) for z in related(200, 12, 20))
    assert multiplied(repsim.cka, x, y, estimator="unbiased")[0] == {"float32"}
    x[17] *= 1e4
    # Nothing cancels in the biased estimator.
    assert multiplied(repsim.cka, x, y)[0] == {"float32"}
    assert multiplied(repsim.cka, x, y, estimator="unbiased")[0] == {"float32", "float64"}


@FEATURES
@BOTH
@pytest.mark.parametrize("value", [0.1, 7.7, 1e4, 1.3e-30, 0.0])
def test_a_constant_is_nothing_in_either_form(framework, features, estimator, value):
    x = framework(np.full((40, 6), value, np.float32))
    y = framework(related(40, 3, 4)[1].astype(np.float32))
    for arrays, names in (((x, y), "x"), ((y, x), "y"), ((x, x), "xy")):
        found, _ = products(*arrays, estimator, features)
        nothing = [name for name, own in zip("xy", found[1:3], strict=True) if float(own) == 0]
        assert nothing == list(names)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert np.isnan(float(repsim.cka(*arrays, estimator=estimator)))
        assert [str(w.message).split()[1] for w in caught] == list(names)


@FEATURES
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_distinct_sample_is_nothing_to_the_unbiased_estimator(framework, features, dtype):
    x = np.full((40, 6), 0.1, dtype)
    x[11] = related(40, 6, 2)[0][11].astype(dtype)
    y = related(40, 3, 4)[1].astype(dtype)
    arrays = framework(x), framework(y)
    assert float(products(*arrays, "unbiased", features)[0].xx) == 0
    assert 0 < float(cka(*arrays, "biased", features)) < 1
    with pytest.warns(repsim.DegenerateWarning, match=r"cka: x is constant"):
        assert np.isnan(float(repsim.cka(*arrays, estimator="unbiased")))


@FEATURES
@BOTH
@pytest.mark.parametrize("function", [cka, hsic])
def test_gradients_go_through_blocks(function, features, estimator):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z, requires_grad=True) for z in related(16, 7, 6, 2))
    assert torch.autograd.gradcheck(lambda a, b: function(a, b, estimator, features), (x, y))


@FEATURES
def test_inputs_are_not_written_to(framework, features):
    x, y = related(20, 7, 6)
    a, b = framework(x.copy()), framework(y.copy())
    for estimator in ESTIMATORS:
        cka(a, b, estimator, features)
        repsim.cka(a, b, estimator=estimator)
    np.testing.assert_array_equal(np.asarray(a), x)
    np.testing.assert_array_equal(np.asarray(b), y)


def test_the_form_follows_the_shape():
    for shape in [(100, 5, 5), (100, 120, 20), (100, 400, 20), (50, 400, 300)]:
        n = shape[0]
        for function, self_products in ((repsim.cka, True), (repsim.hsic, False)):
            _, shapes = multiplied(function, *related(*shape))
            features = blocks_of_features(*shape, self_products=self_products)
            assert ((n, n) in shapes) != features


def test_the_crossover():
    # p = q: with self-products 2.2 p² against n p, without 1.1 p² against the same.
    assert blocks_of_features(10_000, 4_500, 4_500, self_products=True)
    assert not blocks_of_features(10_000, 4_600, 4_600, self_products=True)
    assert blocks_of_features(10_000, 9_000, 9_000, self_products=False)
    assert not blocks_of_features(10_000, 9_100, 9_100, self_products=False)


@BOTH
@FEATURES
def test_memory_is_a_few_blocks(features, estimator):
    """Neither an n×n matrix nor a copy of the features."""
    rng = np.random.default_rng(0)
    n, p = 4096, 256
    x, y = (rng.standard_normal((n, p), dtype=np.float32) for _ in range(2))
    sizes = BlockSizes(rows=128)
    cka(x[:64], y[:64], estimator, features, sizes)
    tracemalloc.start()
    try:
        cka(x, y, estimator, features, sizes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n * p * 4 < n * n * 4 / 10


def test_tensors_stay_on_their_device_whatever_the_default_is():
    """Numbers that were computed for tensors in main memory went to the default device."""
    torch = pytest.importorskip("torch")
    x, y = map(torch.tensor, related(20, 4, 6))
    for function in (repsim.cka, repsim.hsic):
        expected = function(x, y)
        with torch.device("meta"):
            out = function(x, y)
        assert out.device.type == "cpu"
        assert float(out) == float(expected)


PAGES = """
import resource, numpy as np, repsim
x, y = np.random.default_rng(0).standard_normal((2, 1000, 256), dtype=np.float32)
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    repsim.cka(x, y, estimator="unbiased")
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[2:]))
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="another C library keeps other memory"
)
def test_a_further_call_asks_the_system_for_no_memory():
    """Clearing new pages took longer than all passes over the features."""
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100  # of the 700 that hold the centred features and their products
