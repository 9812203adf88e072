"""Linear HSIC of two arrays in blocks: the value of whole Grams, without their memory."""

from __future__ import annotations

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
from repsim.estimators import _blocks, _centred, blocks_of_features

ESTIMATORS = ("biased", "unbiased")
FORMS = ("_from_features", "_from_grams")


@pytest.fixture(params=["numpy", "torch"])
def framework(request):
    if request.param == "numpy":
        return np.asarray
    return pytest.importorskip("torch").tensor


@pytest.fixture
def many_blocks(monkeypatch):
    """Blocks so small that a test has many, the last ones ragged."""
    for module, name, size in (
        (_centred, "ROWS", 7),
        (_blocks, "PANEL", 5),
        (_blocks, "GROUP", 11),
    ):
        monkeypatch.setattr(module, name, size)


def take(monkeypatch, form):
    monkeypatch.setattr(_blocks, "blocks_of_features", lambda *a, **k: form == "_from_features")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, 3, 4), (7, 5, 5), (40, 9, 23), (38, 60, 41)])
def test_any_number_of_blocks(framework, shape, form, estimator, many_blocks, monkeypatch):
    take(monkeypatch, form)
    x, y = (z + 3 for z in related(*shape))
    k, l = (grams.linear(grams.centred(z)) for z in (x, y))  # noqa: E741
    arrays = framework(x), framework(y)
    out = float(repsim.cka(*arrays, estimator=estimator))
    assert out == pytest.approx(reference.cka(k, l, estimator), rel=1e-10)
    out = float(repsim.hsic(*arrays, estimator=estimator))
    assert out == pytest.approx(reference.HSIC[estimator](k, l), rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
@given(
    n=st.integers(4, 40),
    p=st.integers(1, 30),
    q=st.integers(1, 30),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-20, 20),
    mean=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_the_value_of_whole_grams(form, n, p, q, seed, exponent, mean):
    x, y = related(n, p, q, seed)
    x = (x + mean) * 10.0**exponent
    with pytest.MonkeyPatch.context() as patch:
        take(patch, form)
        patch.setattr(_centred, "ROWS", 9)
        patch.setattr(_blocks, "PANEL", 8)
        for estimator in ESTIMATORS:
            centred = [grams.linear(grams.centred(z)) for z in (x / 10.0**exponent, y)]
            expected = reference.HSIC[estimator](*centred)
            unit = np.sqrt(reference.HSIC["biased"](centred[0], centred[0]))
            unit *= np.sqrt(reference.HSIC["biased"](centred[1], centred[1]))
            out = float(repsim.hsic(x, y, estimator=estimator)) / 100.0**exponent
            assert out == pytest.approx(expected, abs=1e-9 * unit)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("factor", [1e-25, 1e-12, 1e12, 1e25])
def test_squares_that_float32_does_not_hold(
    framework, form, estimator, factor, many_blocks, monkeypatch
):
    take(monkeypatch, form)
    x, y = (z.astype(np.float32) for z in related(40, 12, 20))
    expected = reference.cka(
        *(grams.linear(grams.centred(z.astype(float))) for z in (x, y)), estimator
    )
    out = float(repsim.cka(framework(x * np.float32(factor)), framework(y), estimator=estimator))
    assert out == pytest.approx(expected, abs=rounding(2**-23, 40))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("outlier", [1e2, 1e4])
def test_a_sample_far_from_the_others_in_float32(framework, form, outlier, monkeypatch):
    """The terms of the unbiased estimator cancel: products of features are made in float64."""
    take(monkeypatch, form)
    x, y = (z.astype(np.float32) for z in related(200, 12, 20))
    x[17] *= np.float32(outlier)
    expected = reference.cka(
        *(grams.linear(grams.centred(z.astype(float))) for z in (x, y)), "unbiased"
    )
    out = float(repsim.cka(framework(x), framework(y), estimator="unbiased"))
    assert out == pytest.approx(expected, abs=2e-5)


def test_products_are_float32_where_nothing_cancels_and_float64_where_it_does(monkeypatch):
    dtypes = []
    original = _blocks._crossed

    def spy(sides, self_products):
        dtypes.append(np.dtype(sides[0].dtype).name)
        return original(sides, self_products)

    monkeypatch.setattr(_blocks, "_crossed", spy)
    x, y = (z.astype(np.float32) for z in related(200, 12, 20))
    repsim.cka(x, y, estimator="unbiased")
    assert dtypes == ["float32"]
    dtypes.clear()
    x[17] *= 1e4
    repsim.cka(x, y)  # nothing cancels in the biased estimator
    assert dtypes == ["float32"]
    dtypes.clear()
    repsim.cka(x, y, estimator="unbiased")
    assert dtypes == ["float32", "float64"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("value", [0.1, 7.7, 1e4, 0.0])
def test_a_constant_is_nothing_in_either_form(
    framework, form, estimator, value, many_blocks, monkeypatch
):
    take(monkeypatch, form)
    x = framework(np.full((40, 6), value, np.float32))
    y = framework(related(40, 3, 4)[1].astype(np.float32))
    for arrays, names in (((x, y), "x"), ((y, x), "y"), ((x, x), "xy")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert np.isnan(float(repsim.cka(*arrays, estimator=estimator)))
        assert [str(w.message).split()[1] for w in caught] == list(names)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_distinct_sample_is_nothing_to_the_unbiased_estimator(
    framework, form, dtype, many_blocks, monkeypatch
):
    take(monkeypatch, form)
    x = np.full((40, 6), 0.1, dtype)
    x[11] = related(40, 6, 2)[0][11].astype(dtype)
    y = related(40, 3, 4)[1].astype(dtype)
    with pytest.warns(repsim.DegenerateWarning, match=r"cka: x is constant"):
        assert np.isnan(float(repsim.cka(framework(x), framework(y), estimator="unbiased")))
    assert 0 < float(repsim.cka(framework(x), framework(y))) < 1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("function", [repsim.cka, repsim.hsic], ids=["cka", "hsic"])
def test_gradients_go_through_blocks(function, form, estimator, many_blocks, monkeypatch):
    torch = pytest.importorskip("torch")
    take(monkeypatch, form)
    x, y = (torch.tensor(z, requires_grad=True) for z in related(16, 7, 6, 2))
    assert torch.autograd.gradcheck(lambda a, b: function(a, b, estimator=estimator), (x, y))


@pytest.mark.parametrize("form", FORMS)
def test_inputs_are_not_written_to(framework, form, many_blocks, monkeypatch):
    take(monkeypatch, form)
    x, y = related(20, 7, 6)
    a, b = framework(x.copy()), framework(y.copy())
    for estimator in ESTIMATORS:
        repsim.cka(a, b, estimator=estimator)
    np.testing.assert_array_equal(np.asarray(a), x)
    np.testing.assert_array_equal(np.asarray(b), y)


def test_the_form_follows_the_shape(monkeypatch):
    taken = []
    for form in FORMS:
        original = getattr(_blocks, form)

        def spy(*args, form=form, original=original):
            taken.append(form)
            return original(*args)

        monkeypatch.setattr(_blocks, form, spy)
    for shape in [(100, 5, 5), (100, 120, 20), (100, 400, 20), (50, 400, 300)]:
        for function, self_products in ((repsim.cka, True), (repsim.hsic, False)):
            function(*related(*shape))
            features = blocks_of_features(*shape, self_products=self_products)
            assert taken == ["_from_features" if features else "_from_grams"]
            taken.clear()


def test_the_crossover():
    # p = q: with self-products 2.2 p² against n p, without 1.1 p² against the same.
    assert blocks_of_features(10_000, 4_500, 4_500, self_products=True)
    assert not blocks_of_features(10_000, 4_600, 4_600, self_products=True)
    assert blocks_of_features(10_000, 9_000, 9_000, self_products=False)
    assert not blocks_of_features(10_000, 9_100, 9_100, self_products=False)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("form", FORMS)
def test_memory_is_a_few_blocks(form, estimator, monkeypatch):
    """Neither an n×n matrix nor a copy of the features."""
    take(monkeypatch, form)
    monkeypatch.setattr(_centred, "ROWS", 128)
    rng = np.random.default_rng(0)
    n, p = 4096, 256
    x, y = (rng.standard_normal((n, p), dtype=np.float32) for _ in range(2))
    repsim.cka(x[:64], y[:64], estimator=estimator)
    tracemalloc.start()
    try:
        repsim.cka(x, y, estimator=estimator)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < n * p * 4 < n * n * 4 / 10
