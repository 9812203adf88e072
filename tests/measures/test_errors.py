"""Each error names the operation, the argument, what was passed and the repair."""

import contextlib

import numpy as np
import pytest

import repsim
from cases import each
from reference.data import related
from repsim.kernels import RBF, Polynomial

X, Y = related(10, 3, 4)
K, L = X @ X.T, Y @ Y.T
ON_ACTIVATIONS = [repsim.cka, repsim.hsic]


@contextlib.contextmanager
def refused(kind, *words):
    with pytest.raises(kind) as caught:
        yield
    assert isinstance(caught.value, repsim.RepsimError)
    for word in words:
        assert word in str(caught.value)


@pytest.fixture(params=ON_ACTIVATIONS, ids=lambda f: f.__name__)
def function(request):
    return request.param


def test_different_n(function, eager):
    x, y = eager.array(np.ones((512, 768), np.float32)), eager.array(np.ones((511, 10), np.float32))
    op = function.__name__
    with refused(
        repsim.InputError,
        f"{op}: x and y must describe the same samples",
        "x: (512, 768) → n=512",
        "y: (511, 10) → n=511",
        "Pair rows",
    ):
        function(x, y)


def test_different_n_with_the_samples_on_another_axis():
    x = np.ones((40, 6))
    for y, repair in {
        (6, 40): "columns of y",
        (4, 5, 40): "axis 2 of y",
        (5, 40, 4): "axis 1 of y",
        (6,): "pass y[:, None]",
        (0, 6): "y is empty",
    }.items():
        with refused(repsim.InputError, repair):
            repsim.cka(x, np.ones(y))


def test_different_n_under_jit(function):
    jax = pytest.importorskip("jax")
    with refused(repsim.InputError, "n=10", "n=9"):
        jax.jit(function)(jax.numpy.asarray(X), jax.numpy.asarray(Y[:9]))


@each("n", [1, 2, 3])
def test_too_few_for_the_unbiased_estimator(function, n):
    with refused(
        repsim.InputError,
        f"{function.__name__}: ",
        "unbiased estimator",
        "at least 4 samples",
        f"x: ({n}, 3)",
        f"n={n}",
        "axis 0",
    ):
        function(X[:n], Y[:n], estimator="unbiased")
    function(X[:4], Y[:4], estimator="unbiased")


def test_too_few_for_the_biased_estimator(function):
    with refused(repsim.InputError, "biased estimator", "at least 2 samples", "n=1"):
        function(X[:1], Y[:1])
    assert np.isfinite(function(X[:2], Y[:2]))


@each("bad", [np.nan, np.inf, -np.inf])
@each("argument", ["x", "y"])
def test_not_finite(function, eager, argument, bad):
    arrays = {"x": X.copy(), "y": Y.copy()}
    arrays[argument][7, 2] = bad
    arrays[argument][4, 1:] = bad
    with refused(
        repsim.NonFiniteError,
        f"{function.__name__}: {argument} must be finite",
        "NaN or infin",
        "row 4",
        "3 entries" if argument == "x" else "4 entries",
        "drop those rows",
    ):
        function(*(eager.array(a) for a in arrays.values()))


def test_features_without_a_value_are_to_be_left_out_not_the_samples(function, eager):
    x = X.copy()
    x[:, [0, 2]] = np.nan
    with refused(repsim.NonFiniteError, "all values of 2 of", "leave those features out of x"):
        function(eager.array(x), eager.array(Y))


def test_infinity_of_half_precision(function):
    with np.errstate(over="ignore"):
        x = (X * 1e5).astype(np.float16)
    with refused(repsim.NonFiniteError, "x must be finite", "65504"):
        function(x, Y.astype(np.float16))


def test_not_finite_in_a_feature_map(function):
    x = np.ones((6, 2, 3, 3))
    x[5, 1, 2, 2] = np.nan
    with refused(repsim.NonFiniteError, "row 5", "1 entry"):
        function(x, np.random.default_rng(0).standard_normal((6, 2)))


@each("argument", ["x", "y"])
def test_one_dimension(function, eager, argument):
    arrays = {"x": X, "y": Y}
    arrays[argument] = arrays[argument][:, 0]
    with refused(
        repsim.InputError,
        f"{function.__name__}: {argument} must be samples by features",
        f"{argument}: (10,)",
        f"{argument}[:, None]",
    ):
        function(*(eager.array(a) for a in arrays.values()))


@each("argument", ["x", "y"])
def test_no_dimension(function, eager, argument):
    arrays = {"x": X, "y": Y}
    arrays[argument] = np.asarray(3.0)
    with refused(repsim.InputError, f"{argument} must be samples by features", f"{argument}: ()"):
        function(*(eager.array(a) for a in arrays.values()))


@each("shape", [(10, 0), (0, 3), (10, 2, 0)])
def test_empty(function, eager, shape):
    x = eager.array(np.ones(shape))
    y = eager.array(np.ones((shape[0], 4)))
    with refused(repsim.InputError, f"{function.__name__}: x is empty", str(shape), "mask"):
        function(x, y)


@each(
    ("kernel", "got"),
    [
        ("gaussian", "'gaussian'"),
        ("RBF", "'RBF'"),
        (None, "None"),
        (RBF, "the class RBF: write RBF()"),
        (Polynomial, "the class Polynomial: write Polynomial()"),
        (lambda x: x, "lambda"),
        (["linear"], "['linear']"),
        (1.0, "1.0"),
    ],
)
def test_unknown_kernel(function, kernel, got):
    with refused(
        repsim.InputError,
        f"{function.__name__}: unknown kernel",
        "'linear', 'rbf', 'laplacian', 'polynomial', 'cosine'",
        "repsim.kernels.RBF(",
        got,
    ):
        function(X, Y, kernel=kernel)


@each("estimator", ["debiased", "Biased", None, True, ["biased"], 0])
def test_unknown_estimator(function, estimator):
    words = ("unknown estimator", "'biased', 'unbiased'", repr(estimator))
    with refused(repsim.InputError, f"{function.__name__}: ", *words):
        function(X, Y, estimator=estimator)
    with refused(repsim.InputError, "cka_from_gram: ", *words):
        repsim.cka_from_gram(K, L, estimator=estimator)


@each("bad", [X.tolist(), None, "x", 3.0, tuple(X), object()])
def test_not_an_array(function, bad):
    op = function.__name__
    for arguments, name in (((bad, Y), "x"), ((X, bad), "y")):
        with refused(
            repsim.ArrayTypeError,
            f"{op}: {name} must be an array",
            f"{name}: {type(bad).__module__.partition('.')[0]}.{type(bad).__name__}",
            f"numpy.asarray({name})",
        ):
            function(*arguments)
    with refused(repsim.ArrayTypeError, "cka_from_gram: l must be an array"):
        repsim.cka_from_gram(K, bad)


def test_data_frames_are_asked_to_come_without_labels(function):
    pandas = pytest.importorskip("pandas")
    with refused(repsim.ArrayTypeError, "x must be an array", "x.to_numpy()"):
        function(pandas.DataFrame(X), Y)


def test_masked_arrays(function):
    """A mask cannot be kept, and must not be dropped in silence."""
    masked = np.ma.masked_array(X, mask=np.abs(X) > 1)
    with refused(repsim.ArrayTypeError, f"{function.__name__}: x"):
        function(masked, Y)


@each(
    ("array", "words"),
    [
        (X + 1j, ["must be real", "complex128", "x.real, x.imag"]),
        (X.astype(object), ["must hold real numbers", "object", "astype"]),
        (X.astype(str), ["must hold real numbers", "<U", "astype"]),
        (X.astype("datetime64[s]"), ["must hold real numbers", "datetime64"]),
    ],
)
def test_not_numbers(function, array, words):
    with refused(repsim.ArrayTypeError, f"{function.__name__}: x", *words):
        function(array, Y)


def test_complex_elsewhere(function, eager):
    with refused(repsim.ArrayTypeError, "y must be real", "complex"):
        function(eager.array(X), eager.array(Y + 1j))


def test_mixed_frameworks(function):
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    for other, kind in ((torch.tensor(Y), "torch.Tensor"), (jax.numpy.asarray(Y), "jaxlib.")):
        with refused(
            repsim.ArrayTypeError,
            f"{function.__name__}: x and y must belong to one framework",
            "x: (10, 3) numpy.ndarray",
            f"y: (10, 4) {kind}",
            "Convert one of them",
        ):
            function(X, other)
        with refused(repsim.ArrayTypeError, "cka_from_gram: k and l must belong to one framework"):
            repsim.cka_from_gram(K, other)


def test_mixed_devices(function):
    xp = pytest.importorskip("array_api_strict")
    x, y = xp.asarray(X), xp.asarray(Y, device=xp.Device("device1"))
    with refused(
        repsim.ArrayTypeError,
        f"{function.__name__}: x and y must belong to one device",
        "x: (10, 3)",
        "on array_api_strict.Device('CPU_DEVICE')",
        "on array_api_strict.Device('device1')",
        "y.to(x.device)",
    ):
        function(x, y)


def test_a_tensor_without_values_beside_one_with(function):
    torch = pytest.importorskip("torch")
    with refused(repsim.ArrayTypeError, f"{function.__name__}: ", "on meta"):
        function(torch.tensor(X), torch.tensor(Y, device="meta"))


@pytest.mark.cuda
def test_processor_and_accelerator(function):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with refused(repsim.ArrayTypeError, "one device", "on cpu", "on cuda:0"):
        function(torch.tensor(X), torch.tensor(Y, device="cuda"))


def test_tensors_without_values(function):
    torch = pytest.importorskip("torch")
    with refused(repsim.ArrayTypeError, f"{function.__name__}: x", "meta"):
        function(torch.tensor(X, device="meta"), torch.tensor(Y, device="meta"))


def test_sparse_tensors(function):
    torch = pytest.importorskip("torch")
    with refused(repsim.ArrayTypeError, f"{function.__name__}: x", "sparse"):
        function(torch.tensor(X).to_sparse(), torch.tensor(Y))


@each("shape", [(10, 3), (10,), (2, 5, 5), ()])
def test_not_a_gram(shape, eager):
    bad = eager.array(np.ones(shape))
    for arguments, name in (((bad, eager.array(L)), "k"), ((eager.array(K), bad), "l")):
        with refused(
            repsim.InputError,
            f"cka_from_gram: {name} must be a Gram matrix, (n, n)",
            f"{name}: {shape}",
            "For activations (n, p)",
        ):
            repsim.cka_from_gram(*arguments)


def test_not_symmetric(eager):
    bad = K.copy()
    bad[0, 1] += 1
    for arguments, name in (((bad, L), "k"), ((L, bad), "l")):
        with refused(
            repsim.InputError,
            f"cka_from_gram: {name} must be symmetric",
            f"|{name} - {name}ᵀ| = 1",
            "every sample with every sample",
        ):
            repsim.cka_from_gram(*map(eager.array, arguments))


def test_symmetric_to_rounding():
    rng = np.random.default_rng(0)
    k = (K * (1 + 1e-6 * rng.standard_normal(K.shape))).astype(np.float32)
    assert np.isfinite(repsim.cka_from_gram(k, L.astype(np.float32)))


def test_grams_of_different_samples(eager):
    with refused(
        repsim.InputError,
        "cka_from_gram: k and l must describe the same samples",
        "k: (10, 10) → n=10",
        "l: (9, 9) → n=9",
        "same rows",
    ):
        repsim.cka_from_gram(eager.array(K), eager.array(L[:9, :9]))


def test_grams_of_too_few():
    with refused(repsim.InputError, "cka_from_gram: ", "at least 4 samples", "k: (3, 3)", "n=3"):
        repsim.cka_from_gram(K[:3, :3], L[:3, :3], estimator="unbiased")
    with refused(repsim.InputError, "at least 2 samples", "n=1"):
        repsim.cka_from_gram(K[:1, :1], L[:1, :1])
    with refused(repsim.InputError, "k is empty"):
        repsim.cka_from_gram(K[:0, :0], L[:0, :0])


@each("bad", [np.nan, np.inf])
def test_grams_that_are_not_finite(bad, eager):
    wrong = L.copy()
    wrong[3, 5] = wrong[5, 3] = bad
    with refused(repsim.NonFiniteError, "cka_from_gram: l must be finite", "2 entries", "row 3"):
        repsim.cka_from_gram(eager.array(K), eager.array(wrong))


def test_complex_grams():
    with refused(repsim.ArrayTypeError, "cka_from_gram: k must be real"):
        repsim.cka_from_gram(K + 0j, L)


def test_options_are_keywords():
    with pytest.raises(TypeError):
        repsim.cka(X, Y, "rbf")
    with pytest.raises(TypeError):
        repsim.hsic(X, Y, "rbf")
    with pytest.raises(TypeError):
        repsim.cka_from_gram(K, L, "unbiased")


def test_the_hierarchy():
    assert issubclass(repsim.InputError, (repsim.RepsimError, ValueError))
    assert issubclass(repsim.InputError, repsim.RepsimError)
    assert issubclass(repsim.InputError, ValueError)
    assert issubclass(repsim.NonFiniteError, repsim.InputError)
    assert issubclass(repsim.ArrayTypeError, repsim.RepsimError)
    assert issubclass(repsim.ArrayTypeError, TypeError)
    assert issubclass(repsim.DegenerateWarning, repsim.RepsimWarning)
    assert issubclass(repsim.RepsimWarning, UserWarning)
    assert repsim.NonFiniteError("").partial is None
