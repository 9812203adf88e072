"""Known numbers: the oracle of X (10, 3) and Y (10, 4), and Kornblith's published demo."""

import math
from itertools import permutations

import numpy as np
import pytest

import repsim
from cases import each
from reference import hsic as reference
from reference import kernels as grams
from reference.data import kornblith_demo, oracle, related
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial

PUBLISHED = 1e-12  # thirteen digits are given


def test_linear_hsic():
    x, y = oracle()
    biased = float(repsim.hsic(x, y))
    assert biased * 81 == pytest.approx(165.56273126145, rel=PUBLISHED)
    assert biased == pytest.approx(2.0439843365611, rel=PUBLISHED)
    assert float(repsim.hsic(x, y, estimator="unbiased")) == pytest.approx(
        1.309118067819, rel=PUBLISHED
    )


def test_linear_self_hsic():
    x, y = oracle()
    assert float(repsim.hsic(x, x, estimator="unbiased")) == pytest.approx(
        1.9349721514689, rel=PUBLISHED
    )
    assert float(repsim.hsic(y, y, estimator="unbiased")) == pytest.approx(
        1.8553405484983, rel=PUBLISHED
    )


@each(
    ("kernel", "estimator", "value"),
    [
        ("linear", "biased", 0.71838257196497),
        ("linear", "unbiased", 0.69092298280263),
        (Linear(), "unbiased", 0.69092298280263),
        (RBF(fraction=0.5), "biased", 0.8123678014257),
        (RBF(fraction=0.5), "unbiased", 0.4537645888331),
        (RBF(fraction=0.5, median="off_diagonal"), "biased", 0.8006103665428),
        (RBF(fraction=0.5, median="off_diagonal"), "unbiased", 0.492648198384),
        ("rbf", "biased", 0.7620190788704),
        ("rbf", "unbiased", 0.6410656889899),
        (RBF(), "biased", 0.7620190788704),
        (RBF(median="off_diagonal"), "biased", 0.7590187898512),
        (RBF(median="off_diagonal"), "unbiased", 0.6580495874567),
        (RBF(sigma=1.0), "biased", 0.7956533010027),
        ("laplacian", "biased", 0.87767535572235),
        (Laplacian(), "biased", 0.87767535572235),
        (Polynomial(gamma=1.0), "biased", 0.43116169820758),
        ("polynomial", "biased", 0.60592608543307),
        (Polynomial(degree=2, gamma=None, coef0=1.0), "biased", 0.60592608543307),
        ("cosine", "biased", 0.68740556623488),
        (Cosine(), "unbiased", 0.5647127621469),  # CKNNA at k = n-1
    ],
)
def test_cka_of_the_oracle(kernel, estimator, value):
    x, y = oracle()
    out = repsim.cka(x, y, kernel=kernel, estimator=estimator)
    assert float(out) == pytest.approx(value, rel=PUBLISHED)


def test_defaults_are_linear_and_biased():
    x, y = oracle()
    assert float(repsim.cka(x, y)) == pytest.approx(0.71838257196497, rel=PUBLISHED)
    assert float(repsim.cka_from_gram(x @ x.T, y @ y.T)) == pytest.approx(
        0.71838257196497, rel=PUBLISHED
    )


def test_kornblith_demo():
    x, y = kornblith_demo()
    assert float(repsim.cka(x, y)) == pytest.approx(0.557613256612, abs=PUBLISHED)
    unbiased = repsim.cka(x, y, estimator="unbiased")
    assert float(unbiased) == pytest.approx(0.513456489506, abs=PUBLISHED)
    half = repsim.cka(x, y, kernel=RBF(fraction=0.5))
    assert float(half) == pytest.approx(0.654831182261, abs=PUBLISHED)


def test_values_derived_from_cka():
    x, y = oracle()
    assert math.acos(repsim.cka(x, y)) == pytest.approx(0.7693218739242, rel=PUBLISHED)
    z = float(repsim.cka(x, y, estimator="unbiased")) * math.sqrt(10 * 7 / 2)
    assert z == pytest.approx(4.0875554902375, rel=PUBLISHED)


@each("estimator", ["biased", "unbiased"])
@each("name", list(grams.KERNELS))
@each("shape", [(4, 2, 3), (9, 40, 30), (30, 3, 5), (20, 1, 1)])
def test_against_the_loops(name, estimator, shape):
    x, y = related(*shape)
    k, l = grams.KERNELS[name](x), grams.KERNELS[name](y)  # noqa: E741
    out = repsim.cka(x, y, kernel=name, estimator=estimator)
    assert float(out) == pytest.approx(reference.cka(k, l, estimator), rel=1e-10, abs=1e-12)
    from_gram = repsim.cka_from_gram(k, l, estimator=estimator)
    assert float(from_gram) == pytest.approx(reference.cka(k, l, estimator), rel=1e-10, abs=1e-12)
    dependence = repsim.hsic(x, y, kernel=name, estimator=estimator)
    expected = reference.HSIC[estimator](k, l)
    scale = math.sqrt(abs(reference.biased_matrices(k, k) * reference.biased_matrices(l, l)))
    assert float(dependence) == pytest.approx(expected, rel=1e-11, abs=1e-12 * scale)


def test_unbiased_hsic_by_its_definition():
    x, y = related(6, 3, 2)
    for name, gram in grams.KERNELS.items():
        value = float(repsim.hsic(x, y, kernel=name, estimator="unbiased"))
        assert value == pytest.approx(reference.unbiased_tuples(gram(x), gram(y)), abs=1e-12)


def test_unbiased_cka_under_all_permutations():
    # Mean exactly 0, variance exactly 2/(n(n-3)), for any data.
    n = 6
    x, y = related(n, 3, 2, seed=5)
    values = [
        float(repsim.cka(x, y[list(order)], estimator="unbiased"))
        for order in permutations(range(n))
    ]
    assert np.mean(values) == pytest.approx(0, abs=1e-12)
    assert np.var(values) == pytest.approx(2 / (n * (n - 3)), rel=1e-10)


def test_biased_cka_under_all_permutations():
    # Its floor: sqrt(ER_x ER_y)/(n-1), ER = tr(Kc)^2/|Kc|^2.
    n = 6
    x, y = related(n, 3, 2, seed=5)
    values = [float(repsim.cka(x, y[list(order)])) for order in permutations(range(n))]

    def effective_rank(z):
        k = grams.linear(grams.centred(z))
        return np.trace(k) ** 2 / (k**2).sum()

    floor = math.sqrt(effective_rank(x) * effective_rank(y)) / (n - 1)
    assert np.mean(values) == pytest.approx(floor, rel=1e-10)


def test_trailing_axes_are_features():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 2, 3, 4)), rng.standard_normal((7, 5))
    flat = repsim.cka(x.reshape(7, 24), y, estimator="unbiased")
    assert float(repsim.cka(x, y, estimator="unbiased")) == float(flat)
    assert float(repsim.hsic(x, y)) == float(repsim.hsic(x.reshape(7, 24), y))
    assert float(repsim.cka(y, x, estimator="unbiased")) == pytest.approx(float(flat), rel=1e-12)


def test_a_users_kernel_with_a_parameter_called_sigma():
    """Another kernel may use None differently from RBF, so it gets the unscaled features."""

    class Offset:
        sigma = None

        def gram(self, x):
            return (x @ x.T + 1) ** 2

        def fit(self, x):
            return self

    x, y = (5 * z for z in oracle())
    k, l = (x @ x.T + 1) ** 2, (y @ y.T + 1) ** 2  # noqa: E741
    for estimator in ("biased", "unbiased"):
        out = repsim.cka(x, y, kernel=Offset(), estimator=estimator)
        assert float(out) == pytest.approx(reference.cka(k, l, estimator), rel=1e-11)
        dependence = repsim.hsic(x, y, kernel=Offset(), estimator=estimator)
        assert float(dependence) == pytest.approx(reference.HSIC[estimator](k, l), rel=1e-9)


def test_a_users_kernel():
    class Quartic:
        def gram(self, x):
            return (x @ x.T) ** 4

        def fit(self, x):
            return self

    x, y = oracle()
    out = repsim.cka(x, y, kernel=Quartic(), estimator="unbiased")
    expected = reference.cka((x @ x.T) ** 4, (y @ y.T) ** 4, "unbiased")
    assert float(out) == pytest.approx(expected, rel=1e-11)
