"""Centring maps, the two forms of the linear estimator, and unbiasedness itself."""

import dataclasses
from itertools import combinations

import array_api_compat.numpy as xp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related
from repsim.arrays import array_namespace
from repsim.estimators import (
    ESTIMATORS,
    Products,
    alignment,
    double_centre,
    feature_products,
    features_are_cheaper,
    gram_products,
    inner,
    off_diagonal,
    resolve_estimator,
    u_centre,
    within_one,
)
from repsim.kernels import Linear

BOTH = list(ESTIMATORS.values())


def symmetric(n, seed=0):
    k = np.random.default_rng(seed).standard_normal((n, n))
    return k + k.T


@pytest.mark.parametrize("n", [2, 3, 8])
def test_double_centre_is_hkh(n):
    k = symmetric(n)
    h = np.eye(n) - 1 / n
    out = double_centre(xp, k)
    np.testing.assert_allclose(out, h @ k @ h, atol=1e-13)
    np.testing.assert_allclose(double_centre(xp, out), out, atol=1e-13)


@pytest.mark.parametrize("n", [3, 4, 8])
def test_u_centre_by_its_definition(n):
    k = symmetric(n)
    out = u_centre(xp, k)
    np.testing.assert_allclose(out, reference.u_centred(k), atol=1e-12)
    np.testing.assert_allclose(out.sum(0), np.zeros(n), atol=1e-12)
    assert (np.diag(out) == 0).all()
    if n > 3:
        np.testing.assert_allclose(u_centre(xp, out), out, atol=1e-12)


def test_centring_acts_on_stacks(eager):
    stack = np.stack([symmetric(5, seed) for seed in range(6)]).reshape(2, 3, 5, 5)
    space = array_namespace(eager.array(stack))
    for centre in (off_diagonal, double_centre, u_centre):
        out = eager.numpy(centre(space, eager.array(stack)))
        for i in range(2):
            for j in range(3):
                np.testing.assert_allclose(out[i, j], centre(xp, stack[i, j]), atol=1e-12)


def test_off_diagonal_returns_a_copy():
    k = symmetric(4)
    before = k.copy()
    out = off_diagonal(xp, k)
    np.testing.assert_array_equal(k, before)
    np.testing.assert_array_equal(out, k - np.diag(np.diag(k)))


@pytest.mark.parametrize("estimator", BOTH, ids=lambda e: e.name)
@given(
    n=st.integers(4, 40),
    p=st.integers(1, 60),
    q=st.integers(1, 60),
    seed=st.integers(0, 2**32 - 1),
    exponent=st.integers(-20, 20),
)
def test_feature_form_is_gram_form(estimator, n, p, q, seed, exponent):
    x, y = related(n, p, q, seed)
    x = x * 10.0**exponent + 3 * 10.0**exponent
    features, scale = feature_products(xp, x, y, estimator)
    from_grams, gram_scale = gram_products(xp, Linear().gram(x), Linear().gram(y), estimator)
    # Each term is at most the biased one, which is therefore the unit of the rounding.
    unit = float(np.sqrt(repsim.hsic(x, x)) * np.sqrt(repsim.hsic(y, y))) * (n - 1) ** 2
    np.testing.assert_allclose(
        float(features.xy) * float(scale),
        float(from_grams.xy) * float(gram_scale),
        rtol=1e-10,
        atol=1e-11 * unit,
    )
    if n >= 6:
        np.testing.assert_allclose(
            float(alignment(xp, features)), float(alignment(xp, from_grams)), atol=1e-8
        )


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("self_products", [True, False])
def test_both_sides_of_the_crossover(estimator, self_products, monkeypatch):
    """Items that serve many pairs take the cheaper form, and the value is the same."""
    function = "cka" if self_products else "hsic"
    n, made = 30, []
    gram = repsim.kernels.Linear.gram

    def noted(self, x):
        made.append(x.shape)
        return gram(self, x)

    monkeypatch.setattr(repsim.kernels.Linear, "gram", noted)
    for p in (2, 5, 19, 20, 21, 25, 31, 60, 61, 200):
        x, y = related(n, p, p, seed=p)
        k, l = grams.linear(x), grams.linear(y)  # noqa: E741
        expected = (
            reference.cka(k, l, estimator) if self_products else reference.HSIC[estimator](k, l)
        )
        value = repsim.pairwise({"x": x}, {"y": y}, measure=function, estimator=estimator).item()
        assert value == pytest.approx(expected, rel=1e-9), p
        cheaper = features_are_cheaper(n, p, p, self_products=self_products)
        assert made == ([] if cheaper else [(n, p)] * 2)
        made.clear()
    assert features_are_cheaper(n, 5, 5, self_products=self_products)
    assert not features_are_cheaper(n, 200, 200, self_products=self_products)


def test_the_crossover_counts_multiplications():
    # p = q: 3p² against 2np with self-products, p² against 2np without.
    assert features_are_cheaper(30, 19, 19, self_products=True)
    assert not features_are_cheaper(30, 20, 20, self_products=True)
    assert features_are_cheaper(30, 59, 59, self_products=False)
    assert not features_are_cheaper(30, 60, 60, self_products=False)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("m", [4, 5, 7])
def test_unbiased_hsic_is_unbiased(kernel, m):
    """Its mean over all subsets of a data set is its value on the data set."""
    n = 8
    x, y = related(n, 2, 3, seed=1)
    chosen = repsim.kernels.KERNELS[kernel]().fit(x)
    other = repsim.kernels.KERNELS[kernel]().fit(y)

    def unbiased(rows):
        products, scale = gram_products(
            xp, chosen.gram(x)[np.ix_(rows, rows)], other.gram(y)[np.ix_(rows, rows)], BOTH[1]
        )
        return float(products.xy) * float(scale) / BOTH[1].divisor(len(rows))

    subsets = [list(rows) for rows in combinations(range(n), m)]
    assert np.mean([unbiased(rows) for rows in subsets]) == pytest.approx(
        unbiased(list(range(n))), rel=1e-11
    )


def test_inner_sums_in_double():
    # 2^24 is where float32 stops counting by ones.
    a = np.ones((4097, 4097), np.float32)[:, :4096]
    assert float(inner(xp, a, a)) == 4097 * 4096
    assert inner(xp, a, a).dtype == np.float64
    # Not only ones: sums of BLAS in float32 are exact for each 2^16 of them.
    b = (np.arange(2**20) % 97).reshape(1024, 1024)
    assert float(inner(xp, b.astype(np.float32), b.astype(np.float32))) == (b * b).sum()


@pytest.mark.parametrize("scale", [1e-200, 1e-20, 1.0, 1e20, 1e200])
def test_alignment_neither_overflows_nor_shrinks(scale):
    products = Products(*(np.asarray(v * scale) for v in (-3.0, 4.0, 9.0)))
    assert float(alignment(xp, products)) == pytest.approx(-0.5, rel=1e-14)


def test_only_rounding_beyond_one_is_taken_off():
    values = np.array([1 + 1e-15, -1 - 1e-15, 1.0005, -1.0005, 0.5, 1.002, -1.002, np.nan])
    out = within_one(xp, values)
    np.testing.assert_array_equal(out, [1, -1, 1, -1, 0.5, 1.002, -1.002, np.nan])


def test_alignment_is_not_clamped():
    assert float(alignment(xp, Products(*map(np.asarray, (2.0, 1.0, 1.0))))) == 2.0


@pytest.mark.parametrize("values", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)])
def test_alignment_of_nothing_is_nan(values):
    assert np.isnan(alignment(xp, Products(*map(np.asarray, values))))


def test_estimators_are_values():
    assert resolve_estimator("cka", "biased") is ESTIMATORS["biased"]
    assert [e.min_samples for e in BOTH] == [2, 4]
    assert [e.divisor(10) for e in BOTH] == [81, 70]
    with pytest.raises(dataclasses.FrozenInstanceError):
        BOTH[0].name = "other"
