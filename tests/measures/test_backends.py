"""Every framework returns the same value, on the device of the inputs."""

import numpy as np
import pytest

import repsim
from cases import each
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial

KERNELS = {
    "linear": (Linear(), grams.linear),
    "rbf": (RBF(), grams.rbf),
    "rbf-off": (RBF(0.7, "off_diagonal"), lambda x: grams.rbf(x, 0.7, "off_diagonal")),
    "laplacian": (Laplacian(), grams.laplacian),
    "polynomial": (Polynomial(), grams.polynomial),
    "cosine": (Cosine(), grams.cosine),
}
SHAPES = {"features": (20, 3, 4), "grams": (8, 20, 30)}


@each("estimator", ["biased", "unbiased"])
@each("kernel", list(KERNELS))
@each("dtype", ["float32", "float64"])
def test_values(backend, kernel, estimator, dtype):
    if backend.compiled and dtype == "float32" and kernel != "linear":
        pytest.skip("compiling each takes a second; eager jax covers the dtypes")
    instance, gram = KERNELS[kernel]
    shapes = SHAPES.values() if kernel == "linear" else [SHAPES["grams"]]
    for shape in shapes:
        x, y = (z.astype(dtype) for z in related(*shape))
        k, l = gram(x), gram(y)  # noqa: E741
        rtol = {"float32": 2e-5, "float64": 1e-11}[dtype]
        calls = [
            (repsim.cka, (x, y), reference.cka(k, l, estimator), {"kernel": instance}),
            (repsim.hsic, (x, y), reference.HSIC[estimator](k, l), {"kernel": instance}),
            (
                repsim.cka_from_gram,
                (k.astype(dtype), l.astype(dtype)),
                reference.cka(k, l, estimator),
                {},
            ),
        ]
        for function, arrays, expected, options in calls:
            before = [a.copy() for a in arrays]
            out = backend.call(function, *arrays, estimator=estimator, **options)
            assert backend.owns(out)
            assert tuple(out.shape) == ()
            assert backend.dtype(out) == dtype
            if not backend.compiled:
                assert backend.device(out) == backend.device(backend.array(x))
            np.testing.assert_allclose(float(out), expected, rtol=rtol, err_msg=function.__name__)
            for a, b in zip(arrays, before, strict=True):
                np.testing.assert_array_equal(a, b)


@each("kernel", list(KERNELS))
def test_inputs_are_not_written_to(eager, kernel):
    for shape in SHAPES.values():
        x, y = related(*shape)
        a, b = eager.array(x.copy()), eager.array(y.copy())
        for estimator in ("biased", "unbiased"):
            repsim.cka(a, b, kernel=KERNELS[kernel][0], estimator=estimator)
            repsim.hsic(a, b, kernel=KERNELS[kernel][0], estimator=estimator)
        np.testing.assert_array_equal(eager.numpy(a), x)
        np.testing.assert_array_equal(eager.numpy(b), y)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    a, b = eager.array(k.copy()), eager.array(l.copy())
    repsim.cka_from_gram(a, b)
    repsim.cka_from_gram(a, b, estimator="unbiased")
    np.testing.assert_array_equal(eager.numpy(a), k)
    np.testing.assert_array_equal(eager.numpy(b), l)


def test_read_only_and_strided_arrays():
    x, y = related(12, 6, 8)
    expected = float(repsim.cka(x, y))
    x.flags.writeable = False
    wide = np.zeros((24, 16))
    wide[::2, ::2] = y
    assert float(repsim.cka(x, wide[::2, ::2])) == pytest.approx(expected, rel=1e-13)
    assert float(repsim.cka(np.asfortranarray(x), y)) == pytest.approx(expected, rel=1e-13)
    assert float(repsim.cka(x[::-1], y[::-1])) == pytest.approx(expected, rel=1e-12)


def test_feature_maps(backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 2, 3, 3)), rng.standard_normal((6, 4, 2))
    out = backend.call(repsim.cka, x, y, estimator="unbiased")
    expected = reference.cka(
        grams.linear(x.reshape(6, -1)), grams.linear(y.reshape(6, -1)), "unbiased"
    )
    np.testing.assert_allclose(float(out), expected, rtol=1e-11)


@each(
    ("dtype_x", "dtype_y", "result"),
    [
        ("float16", "float16", "float32"),
        ("float16", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float16", "float64", "float64"),
        ("int64", "int64", "float64"),
        ("int8", "uint8", "float64"),
        ("bool", "bool", "float64"),
        ("bool", "float32", "float64"),
        ("int32", "float16", "float64"),
    ],
)
def test_result_dtype(backend, dtype_x, dtype_y, result):
    if backend.name == "strict" and "float16" in (dtype_x, dtype_y):
        pytest.skip("the standard has no float16")
    x, y = related(9, 4, 5)
    x, y = (np.rint(3 * x) % 5).astype(dtype_x), (np.rint(3 * y) % 7).astype(dtype_y)
    expected = reference.cka(grams.linear(x), grams.linear(y), "unbiased")
    out = backend.call(repsim.cka, x, y, estimator="unbiased")
    assert backend.dtype(out) == result
    np.testing.assert_allclose(float(out), expected, atol=1e-6 if result == "float32" else 1e-12)
    assert backend.dtype(backend.call(repsim.hsic, x, y)) == result


@pytest.mark.slow
def test_jax_without_float64():
    """Its default: integers and sums are float32 there."""
    jax = pytest.importorskip("jax")
    x, y = related(40, 6, 8)
    x, y = x.astype(np.float32), y.astype(np.float32)
    combinations = [(k, e) for k in ("linear", "rbf") for e in ("biased", "unbiased")]
    run = jax.jit(lambda a, b: [repsim.cka(a, b, kernel=k, estimator=e) for k, e in combinations])
    outputs = run(jax.numpy.asarray(x), jax.numpy.asarray(y))
    for (name, estimator), out in zip(combinations, outputs, strict=True):
        gram = grams.KERNELS[name]
        expected = reference.cka(gram(x), gram(y), estimator)
        assert out.dtype == np.float32
        assert float(out) == pytest.approx(expected, rel=1e-5), (name, estimator)
    whole = jax.numpy.asarray(np.rint(3 * x).astype(np.int32))
    out = repsim.cka(whole, jax.numpy.asarray(y))
    assert out.dtype == np.float32
    expected = reference.cka(grams.linear(np.rint(3 * x)), grams.linear(y))
    assert float(out) == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_vmap_over_pairs():
    jax = pytest.importorskip("jax")
    pairs = [related(8, 6, 5, seed) for seed in range(3)]
    xs, ys = (jax.numpy.asarray(np.stack(side)) for side in zip(*pairs, strict=True))
    out = jax.vmap(lambda a, b: repsim.cka(a, b, kernel="rbf", estimator="unbiased"))(xs, ys)
    expected = [reference.cka(grams.rbf(x), grams.rbf(y), "unbiased") for x, y in pairs]
    np.testing.assert_allclose(np.asarray(out), expected, rtol=1e-4)


def test_nan_under_jit_comes_out_as_nan():
    jax = pytest.importorskip("jax")
    x, y = related(10, 4, 5)
    x[3, 1] = np.nan

    def values(a, b):
        return (
            repsim.cka(a, b),
            repsim.cka(a, b, estimator="unbiased"),
            repsim.cka(a, b, kernel="rbf", estimator="unbiased"),
        )

    assert np.isnan(jax.jit(values)(jax.numpy.asarray(x), jax.numpy.asarray(y))).all()


def test_torch_keeps_the_graph_and_not_more():
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z) for z in related(12, 4, 5))
    assert not repsim.cka(x, y).requires_grad
    assert repsim.cka(x.requires_grad_(), y).requires_grad
    with torch.no_grad():
        assert not repsim.cka(x, y).requires_grad
