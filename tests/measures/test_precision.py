"""Values are right to the digits of the input: against float64 loops on the rounded values."""

import warnings

import numpy as np
import pytest
import torch

import repsim
from cases import each
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related, rounding
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial

EPS = {"float16": 2**-23, "bfloat16": 2**-23, "float32": 2**-23, "float64": 2**-52}
ESTIMATORS = ("biased", "unbiased")


def linear(x):
    return grams.linear(grams.centred(x))


def expected(x, y, estimator, gram=linear):
    return reference.cka(gram(x), gram(y), estimator)


SHAPES = [(100, 20, 30), (40, 100, 60)]  # feature form and Gram form


@each("estimator", ESTIMATORS)
@each("shape", SHAPES)
@each("dtype", ["float16", "float32", "float64"])
def test_numpy_dtypes(dtype, shape, estimator):
    x, y = ((z + 3).astype(dtype) for z in related(*shape))
    out = float(repsim.cka(x, y, estimator=estimator))
    assert out == pytest.approx(expected(x, y, estimator), abs=rounding(EPS[dtype], max(shape)))


@each("estimator", ESTIMATORS)
@each("shape", SHAPES)
@each("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_half_precision(framework, dtype, shape, estimator):
    """Rounded values with an offset: their Grams need more digits than they have."""
    module = pytest.importorskip(framework)
    x, y = (z + 8 for z in related(*shape))
    if framework == "torch":
        a, b = (module.tensor(z).to(getattr(module, dtype)) for z in (x, y))
        x, y = (z.to(module.float64).numpy() for z in (a, b))
    else:
        a, b = (module.numpy.asarray(z, dtype) for z in (x, y))
        x, y = (np.asarray(z).astype(np.float64) for z in (a, b))
    out = repsim.cka(a, b, estimator=estimator)
    assert str(out.dtype).endswith("float32")
    tolerance = rounding(EPS[dtype], max(shape))
    assert float(out) == pytest.approx(expected(x, y, estimator), abs=tolerance)
    assert float(out) < 0.9


@each("name", list(grams.KERNELS))
def test_every_kernel_in_half_precision(name):
    torch = pytest.importorskip("torch")
    for dtype in (torch.float16, torch.bfloat16):
        a, b = (torch.tensor(z).to(dtype) for z in related(40, 8, 9))
        x, y = (z.to(torch.float64).numpy() for z in (a, b))
        for estimator in ESTIMATORS:
            out = float(repsim.cka(a, b, kernel=name, estimator=estimator))
            wanted = expected(x, y, estimator, grams.KERNELS[name])
            assert out == pytest.approx(wanted, abs=rounding(EPS["float16"], 40))


def test_float16_that_would_overflow():
    x, y = related(40, 30, 20)
    x, y = (2000 * x).astype(np.float16), (2000 * y).astype(np.float16)
    for estimator in ESTIMATORS:
        out = float(repsim.cka(x, y, estimator=estimator))
        tolerance = rounding(EPS["float16"], 40)
        assert out == pytest.approx(expected(x, y, estimator), abs=tolerance)


def test_bfloat16_in_numpy():
    """What numpy.asarray makes of a jax array in bfloat16."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x, y = ((z + 8).astype(ml_dtypes.bfloat16) for z in related(40, 10, 12))
    out = repsim.cka(x, y)
    assert out.dtype == np.float32
    assert float(out) == pytest.approx(expected(x, y, "biased"), abs=rounding(EPS["bfloat16"], 40))


@each("estimator", ESTIMATORS)
@each("shape", SHAPES)
@each("dtype", ["int8", "int64", "uint8", "bool"])
def test_integers_and_booleans_are_exact(dtype, shape, estimator):
    x, y = (np.rint(20 * z) for z in related(*shape))
    x, y = ((z > 0 if dtype == "bool" else np.abs(z) % 100).astype(dtype) for z in (x, y))
    out = repsim.cka(x, y, estimator=estimator)
    assert out.dtype == np.float64
    tolerance = rounding(EPS["float64"], max(shape))
    assert float(out) == pytest.approx(expected(x, y, estimator), abs=tolerance)


@each("estimator", ESTIMATORS)
@each("shape", SHAPES)
@each("mean", [30, 1e3, 1e5])
def test_linear_with_a_large_mean(eager, mean, shape, estimator):
    x, y = ((z / z.std(0) + mean).astype(np.float32) for z in related(*shape))
    out = float(eager.call(repsim.cka, x, y, estimator=estimator))
    tolerance = rounding(EPS["float32"], max(shape))
    assert tolerance < 1e-5
    assert out == pytest.approx(expected(x, y, estimator), abs=tolerance)


@each("estimator", ESTIMATORS)
@each("mean", [30, 1e3, 1e5])
@each(
    ("kernel", "gram"),
    [
        (RBF(), grams.rbf),
        (RBF(median="off_diagonal"), lambda x: grams.rbf(x, median="off_diagonal")),
        (RBF(sigma=5.0), lambda x: grams.rbf_fixed(x, 5.0)),
        (Laplacian(), grams.laplacian),
    ],
)
def test_distances_with_a_large_mean(kernel, gram, mean, estimator):
    x, y = ((z / z.std(0) + mean).astype(np.float32) for z in related(60, 30, 20))
    out = float(repsim.cka(x, y, kernel=kernel, estimator=estimator))
    wanted = expected(x, y, estimator, gram)
    assert out == pytest.approx(wanted, abs=rounding(EPS["float32"], 60))


@each("estimator", ESTIMATORS)
@each("shape", SHAPES)
@each("mean", [1e3, 1e7])
def test_float64_with_a_large_mean(mean, shape, estimator):
    x, y = (z + mean for z in related(*shape))
    out = float(repsim.cka(x, y, estimator=estimator))
    tolerance = rounding(EPS["float64"], max(shape))
    # The reference subtracts a rounded mean, so it computes with twice the digits.
    x, y = (
        (z.astype(np.longdouble) - z.astype(np.longdouble).mean(0)).astype(float) for z in (x, y)
    )
    assert out == pytest.approx(expected(x, y, estimator), abs=tolerance)


@each("estimator", ESTIMATORS)
@each("mean", [30, 1e4])
def test_hsic_with_a_large_mean(mean, estimator):
    for shape in ((100, 20, 30), (40, 100, 60)):
        x, y = ((z + mean).astype(np.float32) for z in related(*shape))
        wanted = reference.HSIC[estimator](linear(x), linear(y))
        out = float(repsim.hsic(x, y, estimator=estimator))
        assert out == pytest.approx(wanted, rel=2 * rounding(EPS["float32"], max(shape)))


SCALE_FREE = [
    (Linear(), linear),
    (RBF(), grams.rbf),
    (RBF(0.5, "off_diagonal"), lambda x: grams.rbf(x, 0.5, "off_diagonal")),
    (Laplacian(), grams.laplacian),
    (Cosine(), grams.cosine),
    (Polynomial(coef0=0.0), lambda x: grams.polynomial(x, coef0=0.0)),
]


@each("estimator", ESTIMATORS)
@each(("kernel", "gram"), SCALE_FREE)
@each(
    ("dtype", "factor"),
    [("float64", 1e15), ("float64", 1e-15), ("float32", 1e8), ("float32", 1e-8)],
)
def test_scales(kernel, gram, dtype, factor, estimator, eager):
    for shape in [(20, 3, 4), (8, 20, 30)] if kernel == Linear() else [(8, 20, 30)]:
        x, y = (z.astype(dtype) for z in related(*shape))
        wanted = expected(x, y, estimator, gram)
        # One more rounding of the inputs. Eight samples in twenty dimensions are almost equally
        # far from each other, so a kernel of distances centres away most of what it is.
        tolerance = (
            rounding(EPS[dtype], max(shape)) * 2 * (8 if isinstance(kernel, RBF | Laplacian) else 1)
        )
        scaled = (x * np.asarray(factor, dtype), y)
        assert float(
            eager.call(repsim.cka, *scaled, kernel=kernel, estimator=estimator)
        ) == pytest.approx(wanted, abs=tolerance)
        both = (x * np.asarray(factor, dtype), y * np.asarray(1 / factor, dtype))
        assert float(
            eager.call(repsim.cka, *both, kernel=kernel, estimator=estimator)
        ) == pytest.approx(wanted, abs=tolerance)
        itself = eager.call(repsim.cka, scaled[0], scaled[0], kernel=kernel, estimator=estimator)
        assert float(itself) == pytest.approx(1, abs=4 * EPS[dtype])


@each("estimator", ESTIMATORS)
@each("kernel", ["linear", "rbf", "laplacian", "cosine"])
@each("factor", [1e-25, 1e25])
def test_scales_up_to_the_range_of_float32(kernel, factor, estimator):
    """The squares of these features do not fit into float32; their similarity does."""
    for shape in [(40, 5, 6), (10, 30, 20)]:
        x, y = (z.astype(np.float32) for z in related(*shape))
        wanted = expected(x, y, estimator, grams.KERNELS[kernel])
        out = float(repsim.cka(x * np.float32(factor), y, kernel=kernel, estimator=estimator))
        assert out == pytest.approx(wanted, abs=2 * rounding(EPS["float32"], 40))


def test_a_gram_that_overflows_is_an_error():
    """A polynomial has no scale to divide by: NonFiniteError, never a guess."""
    x, y = (z.astype(np.float32) for z in related(10, 30, 20))
    with pytest.raises(repsim.NonFiniteError, match=r"cka: .*x"):
        repsim.cka(x * np.float32(1e15), y, kernel="polynomial")
    with pytest.raises(repsim.NonFiniteError, match=r"hsic: .*y"):
        repsim.hsic(x, y * np.float32(1e15), kernel="polynomial")


@each("estimator", ESTIMATORS)
@each(
    ("dtype", "factor"),
    [("float64", 1e15), ("float64", 1e-15), ("float32", 1e8), ("float32", 1e-8)],
)
def test_hsic_scales(dtype, factor, estimator, eager):
    for shape in [(20, 3, 4), (8, 20, 30)]:
        x, y = (z.astype(dtype) for z in related(*shape))
        wanted = reference.HSIC[estimator](linear(x), linear(y)) * factor**4
        scaled = (x * np.asarray(factor, dtype), y * np.asarray(factor, dtype))
        out = float(eager.call(repsim.hsic, *scaled, estimator=estimator))
        assert out == pytest.approx(wanted, rel=4 * rounding(EPS[dtype], max(shape)), abs=0)


@each("kernel", ["linear", "rbf"])
def test_independent_data_are_around_zero(kernel):
    """Unbiased CKA has variance 2/(n(n-3)) there; negative values are needed for its mean."""
    rng = np.random.default_rng(0)
    n, draws = 20, 200
    values = np.array(
        [
            float(
                repsim.cka(
                    rng.standard_normal((n, 8)),
                    rng.standard_normal((n, 50)),
                    kernel=kernel,
                    estimator="unbiased",
                )
            )
            for _ in range(draws)
        ]
    )
    standard_error = np.sqrt(2 / (n * (n - 3)) / draws)
    assert abs(values.mean()) < 4 * standard_error
    assert 0.3 < (values < 0).mean() < 0.7
    assert values.std() == pytest.approx(np.sqrt(2 / (n * (n - 3))), rel=0.25)
    biased = repsim.cka(rng.standard_normal((n, 8)), rng.standard_normal((n, 50)), kernel=kernel)
    assert float(biased) > 0.3


def test_opposite_grams_reach_minus_one():
    k = np.random.default_rng(0).standard_normal((8, 8))
    k = k + k.T
    for estimator in ESTIMATORS:
        assert float(repsim.cka_from_gram(k, -k, estimator=estimator)) == pytest.approx(-1)


@each("estimator", ESTIMATORS)
@each("kernel", ["linear", "laplacian", "polynomial", "cosine", "rbf"])
def test_duplicated_samples(kernel, estimator):
    x, y = related(12, 5, 6)
    rows = [*range(12), 0, 0, 3, 5]
    x, y = x[rows].astype(np.float32), y[rows].astype(np.float32)
    out = float(repsim.cka(x, y, kernel=kernel, estimator=estimator))
    wanted = expected(x, y, estimator, grams.KERNELS[kernel])
    assert out == pytest.approx(wanted, abs=rounding(EPS["float32"], 16))


@each("estimator", ESTIMATORS)
@each("size", [1e2, 1e3, 1e4])
@each("shape", [(200, 10, 8), (40, 60, 60)])
def test_one_sample_far_from_the_others(shape, size, estimator):
    """A massive activation: the unbiased estimate is of its size, and terms of size² cancel."""
    x, y = related(*shape)
    x[0] *= size
    y[0] *= size
    x, y = x.astype(np.float32), y.astype(np.float32)
    out = float(repsim.cka(x, y, estimator=estimator))
    tolerance = rounding(EPS["float32"], max(shape)) + EPS["float32"] * size
    assert abs(out) <= 1 + tolerance
    assert out == pytest.approx(expected(x, y, estimator), abs=tolerance)


@each("estimator", ESTIMATORS)
def test_grams_of_a_large_constant_part_in_float32(estimator):
    # Kernels between 0 and 1 have a mean near their spread; centring must keep the digits.
    x, y = (z.astype(np.float32) for z in related(300, 4, 5))
    kernel = RBF(sigma=20.0)
    out = float(repsim.cka(x, y, kernel=kernel, estimator=estimator))
    wanted = expected(x, y, estimator, lambda z: grams.rbf_fixed(z, 20.0))
    # Entries near 1 with distances of 1/100: the rounding of the entries counts 100 times.
    assert out == pytest.approx(wanted, abs=100 * rounding(EPS["float32"], 4))


@pytest.mark.filterwarnings("ignore::repsim.ChanceWarning")
@each("estimator", ESTIMATORS)
def test_grams_of_few_digits_are_told(estimator):
    """In float32 such values are off by more than 1e-4; beside each, a case that is not."""
    x, y = related(200, 20, 30)
    distance = float(np.sqrt(2 * x.var(axis=0).sum()))
    cases = [
        ((RBF(sigma=300 * distance), 0), (RBF(sigma=20 * distance), 0)),
        ((Laplacian(sigma=1e5 * distance), 0), (Laplacian(sigma=1e3 * distance), 0)),
        ((Polynomial(degree=2), 1000), (Polynomial(degree=2), 30)),
    ]
    for few, enough in cases:
        off = []
        for kernel, mean in (few, enough):
            options = {"kernel": kernel, "estimator": estimator}
            near = [(z + mean).astype(np.float32) for z in (x, y)]
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                values = [float(repsim.cka(*near, **options))]
            told = [str(each.message) for each in caught]
            assert any("differ in few digits" in each for each in told) is not bool(off)
            values.append(float(repsim.cka(*(z.astype(np.float64) for z in near), **options)))
            off.append(abs(values[0] - values[1]))
        assert off[1] < 5e-5
        assert off[0] > 1e-4


@pytest.mark.filterwarnings("ignore::repsim.ChanceWarning")
def test_rounding_leads_to_no_value_beyond_the_range():
    """1 + 1e-7 has no arccos, and 1 − CKA is then negative."""
    rng = np.random.default_rng(0)
    beyond = 0
    for p in (1, 2, 3, 30):
        for dtype in (np.float32, np.float64):
            x = rng.standard_normal((24, p)).astype(dtype)
            y = (3 * x @ np.linalg.qr(rng.standard_normal((p, p)))[0]).astype(dtype)
            layers = {"x": x, "y": y, "-x": -x}
            maps = [repsim.pairwise(layers, estimator="biased"), repsim.cka_matrix(layers)]
            maps += [repsim.pairwise(layers, measure=each) for each in ("rv2", "rsa")]
            maps += [repsim.max_t(layers, permutations=1).cka]
            values = [repsim.cka(a, b) for a in layers.values() for b in layers.values()]
            assert max(np.max(each) for each in [*maps, values]) <= 1
            beyond += any(np.any(np.asarray(each) == 1) for each in [*maps, values])
    assert beyond == 8
    x = torch.tensor(rng.standard_normal((9, 2)), dtype=torch.float32, requires_grad=True)
    repsim.cka(x, 3 * x.detach()).backward()
    assert float(abs(x.grad).max()) < 1e-5
