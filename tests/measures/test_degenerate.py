"""Undefined similarities are NaN with a warning about the right argument, never a number."""

import functools
import warnings

import numpy as np
import pytest

import repsim
from cases import each
from reference.data import related
from repsim.kernels import RBF, Polynomial

ESTIMATORS = ("biased", "unbiased")
KERNELS = ["linear", "rbf", "laplacian", "polynomial", "cosine"]
ROWS = {
    "tenths": [0.1, 0.1, 0.1, 0.1],
    "mixed": [0.1, 0.3, 0.7, 7.7],
    "large": [1e4, 0.1, 0.1, 0.1],
    "zeros": [0.0, 0.0, 0.0, 0.0],
    "ones": [1.0, 1.0, 1.0, 1.0],
}


def degenerate(call, *names):
    """The result and the arguments that the warnings name, which are exactly ``names``."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = call()
    assert [w.category for w in caught] == [repsim.DegenerateWarning] * len(names)
    for w, (operation, name) in zip(caught, names, strict=True):
        assert str(w.message).startswith(f"{operation}: {name} ")
        assert "NaN" in str(w.message)
        assert w.filename == __file__  # the caller's line
    assert np.isnan(float(out))
    return out


@each("estimator", ESTIMATORS)
@each("kernel", KERNELS)
@each("row", list(ROWS))
def test_constant_input(eager, row, kernel, estimator):
    if row == "zeros" and kernel == "cosine":
        pytest.skip("a direction is missing, see below")
    sizes = [(37, "float32"), (100, "float32"), (100, "float64")]
    for n, dtype in sizes[:1] if eager.name.startswith("jax") else sizes:
        x = eager.array(np.tile(np.asarray(ROWS[row], dtype), (n, 1)))
        y = eager.array(related(n, 3, 4)[1].astype(dtype))
        cka = functools.partial(repsim.cka, kernel=kernel, estimator=estimator)
        out = degenerate(lambda a=x, b=y, cka=cka: cka(a, b), ("cka", "x"))
        assert eager.owns(out)
        assert tuple(out.shape) == ()
        degenerate(lambda a=x, b=y, cka=cka: cka(b, a), ("cka", "y"))
        degenerate(lambda a=x, cka=cka: cka(a, a), ("cka", "x"), ("cka", "y"))


@each("estimator", ESTIMATORS)
@each("kernel", ["polynomial", "cosine", "linear"])
@each("n", [1000, 1500])
def test_constant_input_of_many_samples(n, kernel, estimator):
    """Rounding grows with n: NumPy adds columns up one row after the other."""
    x = np.tile(np.asarray(ROWS["mixed"], np.float32), (n, 1))
    y = np.random.default_rng(0).standard_normal((n, 3)).astype(np.float32)
    degenerate(lambda: repsim.cka(x, y, kernel=kernel, estimator=estimator), ("cka", "x"))


@each("kernel", KERNELS)
def test_constant_input_under_jit(kernel):
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray(np.tile(np.asarray(ROWS["mixed"], np.float32), (37, 1)))
    y = jax.numpy.asarray(related(37, 3, 4)[1].astype(np.float32))
    run = jax.jit(lambda a, b: [repsim.cka(a, b, kernel=kernel, estimator=e) for e in ESTIMATORS])
    assert np.isnan(run(x, y)).all()


@each("estimator", ESTIMATORS)
@each("constant", [0.1, 0.3, 1.0, 7.7, 0.0])
@each(("n", "dtype"), [(8, "float64"), (100, "float32"), (1000, "float32")])
def test_constant_gram(n, dtype, constant, estimator):
    k = np.full((n, n), constant, dtype)
    z = np.random.default_rng(0).standard_normal((n, 3)).astype(dtype)
    l = z @ z.T  # noqa: E741
    name = "cka_from_gram"

    def call(*grams):
        return lambda: repsim.cka_from_gram(*grams, estimator=estimator)

    degenerate(call(k, l), (name, "k"))
    degenerate(call(l, k), (name, "l"))
    degenerate(call(k, k), (name, "k"), (name, "l"))


@each("n", [40, 300])  # large ones are centred in place
def test_what_counts_as_constant_follows_the_scale_and_the_sign_of_a_gram(n):
    torch = pytest.importorskip("torch")
    x, y = related(n, 3, 4)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    noise = np.sign(x @ y[:, :3].T + y[:, :3] @ x.T)
    for estimator in ESTIMATORS:
        options = {"estimator": estimator}
        expected = float(repsim.cka_from_gram(k, l, **options))
        for scale in (1e-20, -1e-20, -1.0, 1e20):
            out = repsim.cka_from_gram(scale * k, l, **options)
            assert float(out) == pytest.approx(np.sign(scale) * expected, rel=1e-9)
            tensor = repsim.cka_from_gram(torch.tensor(scale * k), torch.tensor(l), **options)
            assert tensor.item() == pytest.approx(float(out), rel=1e-12)
            constant = scale * (1 + 2**-52 * noise)
            degenerate(
                lambda k=constant, options=options: repsim.cka_from_gram(k, l, **options),
                ("cka_from_gram", "k"),
            )


def test_a_gram_with_a_constant_part_is_not_constant():
    """A spread far below the constant but far above its rounding still counts."""
    x, y = related(50, 3, 4)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    for estimator in ESTIMATORS:
        expected = float(repsim.cka_from_gram(k, l, estimator=estimator))
        shifted = repsim.cka_from_gram(k + 1e8, l, estimator=estimator)
        assert float(shifted) == pytest.approx(expected, abs=1e-6)
    expected = float(repsim.cka(x, y, kernel=Polynomial(degree=1)))
    far = repsim.cka(x + 1e4, y, kernel=Polynomial(degree=1))
    assert float(far) == pytest.approx(expected, abs=1e-6)


def test_little_beside_a_constant_is_not_yet_nothing():
    """Just above the rounding of the constant: few digits, but a similarity."""
    x, y = related(50, 3, 4)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    for estimator in ESTIMATORS:
        expected = float(repsim.cka_from_gram(k, l, estimator=estimator))
        shifted = repsim.cka_from_gram(k + 1e13, l, estimator=estimator)
        assert float(shifted) == pytest.approx(expected, abs=0.01)
        narrow = (1 + 1e-5 * k).astype(np.float32)
        out = repsim.cka_from_gram(narrow, l.astype(np.float32), estimator=estimator)
        assert float(out) == pytest.approx(expected, abs=0.01)


@each("estimator", ESTIMATORS)
@each("dtype", ["float32", "float64"])
def test_a_high_degree_of_a_constant(dtype, estimator):
    """Entries that should be equal differ by degree times the rounding of the products."""
    x = np.tile(np.random.default_rng(1).standard_normal(77).astype(dtype), (101, 1))
    y = related(101, 3, 4)[1].astype(dtype)
    for degree in (2, 9, 40):
        kernel = Polynomial(degree=degree, gamma=0.05)
        assert np.ptp(kernel.gram(x)) == 0
        degenerate(
            lambda kernel=kernel: repsim.cka(x, y, kernel=kernel, estimator=estimator),
            ("cka", "x"),
        )


def test_one_hot_features_are_not_called_constant():
    x, y = np.eye(6), np.random.default_rng(0).standard_normal((6, 2))
    for call in (repsim.cka, lambda x, y, **o: repsim.cka_from_gram(x @ x.T, y @ y.T, **o)):
        with pytest.warns(repsim.DegenerateWarning, match="or all pairs of them are equally alike"):
            assert np.isnan(call(x, y, estimator="unbiased"))


def test_one_distinct_sample_of_many_is_constant_to_the_unbiased_estimator():
    """The rounding of the difference grows with the size of its terms: features, not Grams."""
    for seed in range(3):
        x = np.full((200, 100), 0.1)
        x[11] = 100 * np.random.default_rng(seed).standard_normal(100)
        layers = {"apart": x, "y": related(200, 3, 4)[1]}
        with pytest.warns(repsim.DegenerateWarning, match=r"xs\['apart'\] is constant"):
            found = repsim.pairwise(layers, measure="cka", estimator="unbiased")
        np.testing.assert_allclose(found, [[np.nan] * 2, [np.nan, 1]], rtol=1e-12)


def test_a_diagonal_gram_is_constant_to_the_unbiased_estimator():
    # It never looks at the diagonal; nothing is left off it.
    k, y = np.diag([1.0, 2.0, 3.0, 4.0, 5.0]), related(5, 3, 4)[1]
    degenerate(
        lambda: repsim.cka_from_gram(k, y @ y.T, estimator="unbiased"), ("cka_from_gram", "k")
    )
    assert 0 < float(repsim.cka_from_gram(k, y @ y.T)) < 1


@each("kernel", KERNELS)
@each("dtype", ["float32", "float64"])
@each("n", [4, 37, 100])
def test_one_distinct_sample(n, dtype, kernel, eager):
    """For the unbiased estimator, one sample against equal others is a constant."""
    if eager.name == "jax" and (n, dtype) not in [(4, "float64"), (37, "float32")]:
        pytest.skip("every size is compiled again")
    x = np.tile(np.asarray([0.1, 0.3, 0.7], dtype), (n, 1))
    x[1] = [0.7, -0.4, 0.2]
    y = related(n, 3, 4)[1].astype(dtype)
    if kernel in ("rbf", "laplacian"):
        kernel = RBF(sigma=1.0)  # the median distance is zero
    a, b = eager.array(x), eager.array(y)
    degenerate(lambda: repsim.cka(a, b, kernel=kernel, estimator="unbiased"), ("cka", "x"))
    assert 0 < float(repsim.cka(a, b, kernel=kernel)) < 1


def test_one_distinct_sample_in_either_form():
    for p in (2, 60):
        x, y = related(30, p, p, 1)
        x[1:] = x[0]
        x[7] += 1
        degenerate(lambda x=x, y=y: repsim.cka(x, y, estimator="unbiased"), ("cka", "x"))
        assert float(repsim.cka(x, x)) == pytest.approx(1)


@each("estimator", ESTIMATORS)
def test_hsic_of_a_constant_is_zero(estimator, eager):
    for shape in ((30, 3, 4), (6, 30, 40)):
        y = related(*shape)[1]
        x = np.full((shape[0], shape[1]), 0.1)
        for kernel in ("linear", "rbf", "laplacian"):
            out = repsim.hsic(eager.array(x), eager.array(y), kernel=kernel, estimator=estimator)
            assert float(out) == 0


@each("estimator", ESTIMATORS)
@each("argument", ["x", "y"])
def test_a_row_of_zeros_has_no_cosine(argument, estimator, eager):
    arrays = dict(zip("xy", related(10, 3, 4), strict=True))
    arrays[argument][2] = 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        out = repsim.cka(
            *(eager.array(a) for a in arrays.values()), kernel="cosine", estimator=estimator
        )
    assert np.isnan(float(out))
    # No division warnings, and it is not a constant: it is a row of zeros.
    assert [w.category for w in caught] == [repsim.DegenerateWarning]
    message = str(caught[0].message)
    assert message.startswith(f"cka: {argument} ")
    assert "constant" not in message
    assert "zero" in message
    with pytest.warns(repsim.DegenerateWarning, match=f"hsic: {argument} .*row of zeros"):
        assert np.isnan(repsim.hsic(*arrays.values(), kernel="cosine", estimator=estimator))


def test_the_gradient_of_nothing_is_not_a_number_elsewhere():
    """A constant layer among others: NaN in its similarity, finite gradients of the others."""
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z, requires_grad=True) for z in related(8, 3, 4))
    constant = torch.full((8, 2), 0.1, dtype=torch.float64)
    with pytest.warns(repsim.DegenerateWarning):
        undefined = repsim.cka(constant, y)
    total = torch.where(torch.isnan(undefined), 0.0, undefined) + repsim.cka(x, y)
    total.backward()
    assert bool(torch.isfinite(y.grad).all())


def test_two_samples():
    # For the biased estimator, all pairs of different samples are alike.
    x, y = np.array([[0.0], [1.0]]), np.array([[5.0, 1.0], [2.0, 2.0]])
    assert float(repsim.cka(x, y)) == pytest.approx(1)
    assert float(repsim.hsic(x, x)) == pytest.approx(0.25)
