"""The invariance table: which changes must not move a similarity, and which must."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import repsim
from cases import each
from reference.data import oracle
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial

ESTIMATORS = ("biased", "unbiased")

# For each kernel: which changes of one side leave CKA as it is.
INVARIANT = {
    Linear(): "orthogonal scale permutation translation duplication",
    RBF(): "orthogonal scale permutation translation duplication",
    RBF(
        fraction=0.5, median="off_diagonal"
    ): "orthogonal scale permutation translation duplication",
    Laplacian(): "orthogonal scale permutation translation duplication",
    Cosine(): "orthogonal scale permutation duplication",
    Polynomial(coef0=0.0): "orthogonal scale permutation duplication",
    Polynomial(degree=3, coef0=0.0): "orthogonal scale permutation duplication",
    RBF(sigma=1.0): "orthogonal permutation translation",
    Laplacian(sigma=1.0): "orthogonal permutation translation",
}
# ESTIMATORS gives the row of a polynomial with c=0 and the default γ = 1/p.

CHANGES = ("orthogonal", "scale", "permutation", "translation", "invertible", "duplication")


def orthogonal(x, rng):
    q, _ = np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))
    return x @ q


def scale(x, rng):
    return x * 2 ** rng.uniform(-8, 8)


def permutation(x, rng):
    return x[:, rng.permutation(x.shape[1])]


def translation(x, rng):
    return x + 5 * rng.standard_normal(x.shape[1])


def duplication(x, rng):
    return np.concatenate([x, x], axis=1)


def invertible(x, rng):
    q, _ = np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))
    return x @ (q * np.linspace(0.2, 4, x.shape[1]))


CHANGE = {name: globals()[name] for name in CHANGES}


@st.composite
def pairs(draw, min_samples=6):
    """Two related representations of n samples, and a generator for other random numbers."""
    n = draw(st.integers(min_samples, 24))
    # From two features on: the cosine of one feature is a sign, and often the same everywhere.
    p, q = draw(st.integers(2, 30)), draw(st.integers(2, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    strength = draw(st.sampled_from([0.0, 0.5, 2.0]))
    shared = rng.standard_normal((n, 30)) * strength
    x = rng.standard_normal((n, p)) + shared[:, :p]
    return x, rng.standard_normal((n, q)) + shared[:, :q], rng


def value(x, y, **options):
    return float(repsim.cka(x, y, **options))


@each("estimator", ESTIMATORS)
@each("kernel", INVARIANT)
@given(pair=pairs())
def test_cka_does_not_see(kernel, estimator, pair):
    x, y, rng = pair
    before = value(x, y, kernel=kernel, estimator=estimator)
    for change in INVARIANT[kernel].split():
        after = value(CHANGE[change](x, rng), y, kernel=kernel, estimator=estimator)
        assert after == pytest.approx(before, rel=1e-8, abs=1e-8), change
        other = value(x, CHANGE[change](y, rng), kernel=kernel, estimator=estimator)
        assert other == pytest.approx(before, rel=1e-8, abs=1e-8), change


@each("estimator", ESTIMATORS)
@each("kernel", INVARIANT)
def test_cka_sees(kernel, estimator):
    x, y = oracle()
    before = value(x, y, kernel=kernel, estimator=estimator)
    for change in set(CHANGES) - set(INVARIANT[kernel].split()):
        changed = CHANGE[change](x, np.random.default_rng(3))
        assert abs(value(changed, y, kernel=kernel, estimator=estimator) - before) > 1e-3, change


def test_linear_cka_sees_an_invertible_map():
    # Kornblith et al. 2019, section 2.1: a measure that does not, cannot tell p >= n apart.
    x, y = oracle()
    stretched = x @ np.diag([10.0, 1.0, 1.0])
    assert value(x, x) == pytest.approx(1)
    assert value(x, stretched) < 0.95
    assert abs(value(stretched, y) - value(x, y)) > 0.05


KERNELS = [*INVARIANT, Polynomial()]


@each("estimator", ESTIMATORS)
@each("kernel", KERNELS)
@given(pair=pairs(min_samples=4))
def test_symmetry_range_and_common_permutation(kernel, estimator, pair):
    x, y, rng = pair
    out = value(x, y, kernel=kernel, estimator=estimator)
    assume(np.isfinite(out))
    assert (0 if estimator == "biased" else -1) - 1e-12 <= out <= 1 + 1e-12
    assert value(y, x, kernel=kernel, estimator=estimator) == pytest.approx(out, abs=1e-9)
    assert value(x, x, kernel=kernel, estimator=estimator) == pytest.approx(1, abs=1e-12)
    order = rng.permutation(len(x))
    shuffled = value(x[order], y[order], kernel=kernel, estimator=estimator)
    assert shuffled == pytest.approx(out, abs=1e-8)


def test_cka_depends_on_the_pairing_of_samples():
    x, y = oracle()
    for estimator in ESTIMATORS:
        assert value(x, y, estimator=estimator) - value(x, y[::-1], estimator=estimator) > 0.1


@each("estimator", ESTIMATORS)
@given(pair=pairs())
def test_hsic_of_linear_maps_and_units(estimator, pair):
    x, y, rng = pair
    before = float(repsim.hsic(x, y, estimator=estimator))
    unit = np.sqrt(float(repsim.hsic(x, x)) * float(repsim.hsic(y, y)))
    moved = repsim.hsic(translation(orthogonal(x, rng), rng), y, estimator=estimator)
    assert float(moved) == pytest.approx(before, rel=1e-9, abs=1e-11 * unit)
    grown = repsim.hsic(3 * x, y / 2, estimator=estimator)
    assert float(grown) == pytest.approx(before * 9 / 4, rel=1e-9, abs=1e-11 * unit)
    swapped = repsim.hsic(y, x, estimator=estimator)
    assert float(swapped) == pytest.approx(before, rel=1e-9, abs=1e-11 * unit)


@each("estimator", ESTIMATORS)
@given(pair=pairs(), offset=st.floats(-3, 3))
def test_grams_need_not_be_centred(estimator, pair, offset):
    # Adding a_i + a_j to a Gram is a translation of what it came from.
    x, y, rng = pair
    k, l = x @ x.T, y @ y.T  # noqa: E741
    before = float(repsim.cka_from_gram(k, l, estimator=estimator))
    shift = rng.standard_normal(len(k))
    moved = k + shift[:, None] + shift[None, :] + offset
    assert float(repsim.cka_from_gram(moved, l, estimator=estimator)) == pytest.approx(
        before, abs=1e-8
    )
    assert before == pytest.approx(value(x, y, estimator=estimator), abs=1e-8)
    if estimator == "unbiased":  # the diagonal plays no part
        diagonal = np.diag(rng.standard_normal(len(k)))
        free = repsim.cka_from_gram(k + diagonal, l, estimator=estimator)
        assert float(free) == pytest.approx(before, abs=1e-8)
