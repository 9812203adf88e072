"""The precision of a kernel, and when features are multiplied without a shift."""

import numpy as np
import pytest

import repsim
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial, with_precision

CHOICE = [Linear, RBF, Laplacian]


def test_the_default_does_not_show():
    assert repr(Linear()) == "Linear()"
    assert repr(Linear(precision="bf16")) == "Linear(precision='bf16')"
    assert repr(RBF(0.5)) == "RBF(fraction=0.5, median='all', sigma=None)"
    assert repr(Laplacian(precision="tf32")) == "Laplacian(sigma=None, precision='tf32')"
    assert Linear() != Linear(precision="tf32")


@pytest.mark.parametrize("kind", CHOICE)
def test_unknown_precisions(kind):
    with pytest.raises(repsim.InputError, match=rf"^{kind.__name__}: unknown precision"):
        kind(precision="fp8")


def test_with_precision():
    assert with_precision("f", RBF(0.5), "bf16") == RBF(0.5, precision="bf16")
    assert with_precision("f", Cosine(), "highest") == Cosine()
    for kernel in (Cosine(), Polynomial(), object()):
        with pytest.raises(repsim.InputError, match=r"f: this kernel takes no precision"):
            with_precision("f", kernel, "tf32")
    with pytest.raises(repsim.InputError, match="takes no precision"):
        with_precision("f", object(), "highest")
    with pytest.raises(repsim.InputError, match="f: unknown precision"):
        with_precision("f", Linear(), "double")


@pytest.mark.parametrize("kind", CHOICE)
@pytest.mark.parametrize(("precision", "most"), [("tf32", 2e-4), ("bf16", 2e-3)])
@pytest.mark.parametrize("offset", [0, 300])
def test_rounding_moves_cka_by_little(kind, precision, most, offset, eager):
    """Far from the origin, rounding the features themselves would leave nothing."""
    x, y = (z.astype(np.float32) + np.float32(offset) for z in related(40, 200, 300))
    a, b = eager.array(x), eager.array(y)
    exact = float(repsim.cka(a, b, kernel=kind(), estimator="unbiased"))
    out = float(repsim.cka(a, b, kernel=kind(precision=precision), estimator="unbiased"))
    assert 0 < abs(out - exact) < most


def test_few_features_do_not_get_around_the_precision():
    """Where the products of features are cheaper than Grams, they are not rounded."""
    x, y = (z.astype(np.float32) for z in related(100, 5, 6))
    plain, rounded = (repsim.cka(x, y, kernel=Linear(p)) for p in ("highest", "bf16"))
    from_grams = repsim.cka_from_gram(Linear("bf16").gram(x), Linear("bf16").gram(y))
    assert float(rounded) == pytest.approx(float(from_grams), abs=1e-6)
    assert float(rounded) != pytest.approx(float(plain), abs=1e-6)
    with pytest.raises(repsim.InputError, match="correction of linear CKA"):
        repsim.cka(x, y, kernel=Linear("bf16"), features="sampled")


def test_cka_matrix_has_none():
    xs = {"a": np.random.default_rng(0).standard_normal((20, 3))}
    with pytest.raises(repsim.InputError, match="cka_matrix: products are made by the processor"):
        repsim.cka_matrix(xs, kernel=RBF(precision="tf32"))


@pytest.mark.parametrize("precision", ["highest", "tf32", "bf16"])
def test_a_constant_is_exactly_zero(precision, eager):
    x = eager.array(np.full((37, 600), 0.1, np.float32))
    assert not eager.numpy(Linear(precision).gram(x)).any()


# Features as they are, about a median, about the mean


class Forms:
    """Of how many features products are formed, about which origin, in order."""

    def __init__(self):
        self.seen, self.origin = [], "as they are"

    def product(self, columns):
        if not self.seen or self.seen[-1][0] != self.origin:
            self.seen.append((self.origin, 0))
        self.seen[-1] = (self.origin, self.seen[-1][1] + columns)


class Watched(np.ndarray):
    """A matrix that tells its forms what NumPy computes from it."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if ufunc is np.minimum:
            self.forms.origin = "median"
        elif ufunc is np.add and method == "reduce":
            self.forms.origin = "mean"
        elif ufunc is np.matmul:
            self.forms.product(inputs[0].shape[1])
        plain = [np.asarray(x) if isinstance(x, Watched) else x for x in inputs]
        if "out" in options:
            options["out"] = tuple(np.asarray(x) for x in options["out"])
        return watched(getattr(ufunc, method)(*plain, **options), self.forms)

    def __array_finalize__(self, other):
        self.forms = getattr(other, "forms", None)


def watched(x, forms):
    out = np.asarray(x).view(Watched)
    out.forms = forms
    return out


def forms(x):
    """The forms and the Gram of a matrix of NumPy."""
    found = Forms()
    gram = Linear().gram(watched(x, found))
    return found.seen, np.asarray(gram)


def torch_forms(x):
    """The same of a tensor."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found = Forms()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = str(function)
            if "minimum" in name:
                found.origin = "median"
            elif "mean" in name:
                found.origin = "mean"
            elif ".mm." in name or ".bmm." in name:
                found.product(args[0].shape[-1] * (len(args[0]) if ".bmm." in name else 1))
            return function(*args, **(kwargs or {}))

    with Watch():
        gram = Linear().gram(x)
    return found.seen, gram


def features(mean, n=64, p=20_000, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, p))
    return (x + mean).astype(dtype)


CHANCE = (2 / (64 * 61)) ** 0.5  # standard deviation of unbiased CKA of 64 independent samples
FIRST = 4096  # features of the first of NumPy's blocks


@pytest.mark.parametrize(
    ("mean", "wanted"),
    [
        (0, [("as they are", 20_000)]),
        (3, [("as they are", 20_000)]),
        (5, [("as they are", FIRST), ("median", 20_000)]),
        (300, [("as they are", FIRST), ("median", 20_000)]),
    ],
)
def test_centring_only_where_it_moves_the_result(mean, wanted):
    seen, out = forms(features(mean))
    assert seen == wanted
    assert out.dtype == np.float32


@pytest.mark.parametrize(
    ("mean", "p", "wanted"),
    [
        (0, 15_000, [("as they are", 15_000)]),
        (0, 40_000, [("as they are", 40_000)]),
        (5, 40_000, [("as they are", 40_000), ("median", 40_000)]),
    ],
)
def test_torch_makes_one_product_of_uncopied_features(mean, p, wanted):
    torch = pytest.importorskip("torch")
    x = features(mean, p=p)
    seen, out = torch_forms(torch.tensor(x))
    assert seen == wanted
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    np.testing.assert_allclose(out, rows @ rows.T, atol=p * 2e-6)


@pytest.mark.parametrize(("n", "most"), [(16, 2), (32, 8**0.5), (64, 4), (100, 5), (200, 5)])
def test_the_bound_grows_with_the_number_of_samples(n, most):
    """Samples √(1 + mean²) as far from the origin as from their mean, from 2 to 5 times."""
    for factor, wanted in ((0.95, "as they are"), (1.05, "median")):
        seen, _ = forms(features(((factor * most) ** 2 - 1) ** 0.5, n=n))
        assert seen[-1][0] == wanted


def test_sums_beyond_float32_are_infinite_without_a_warning(recwarn):
    """As in torch's products; the caller reports it with the name of the layer."""
    torch = pytest.importorskip("torch")
    out = Linear().gram(torch.tensor(1.5e17 * features(0, n=8, p=40_000)))
    assert not torch.isfinite(out).all()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_a_few_numbers_are_shifted_without_a_check():
    assert forms(features(0, p=500))[0] == [("median", 500)]


def test_a_mean_that_the_first_features_do_not_have():
    x = features(0)
    x[:, 16_400:] += 50
    assert forms(x)[0] == [("as they are", 20_000), ("median", 20_000)]


def test_two_outliers_among_the_three():
    x = features(5000)
    x[[0, 32]] += 1e4
    seen, out = forms(x)
    assert seen == [("as they are", FIRST), ("median", FIRST), ("mean", 20_000)]
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    others = [i for i in range(64) if i not in (0, 32)]
    wanted = (rows @ rows.T)[np.ix_(others, others)]
    got = out[np.ix_(others, others)]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [0, 0.5, 1, 1.5, 1.7, 2, 3, 3.5, 3.8, 5, 30, 300])
@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_the_bound_bounds_the_error(mean, framework):
    """Independent data, where rounding shows most: chance alone moves CKA 4000 times as much."""
    x, y = features(mean, seed=0), features(-mean, seed=1)
    a, b = x, y
    if framework == "torch":
        torch = pytest.importorskip("torch")
        a, b = torch.tensor(x), torch.tensor(y)
    k, l = (np.asarray(Linear().gram(z), np.float64) for z in (a, b))  # noqa: E741
    exact = reference.cka(
        *(grams.linear(grams.centred(z.astype(np.float64))) for z in (x, y)), "unbiased"
    )
    assert reference.cka(k, l, "unbiased") == pytest.approx(exact, abs=CHANCE / 4000)


def test_without_the_bound_the_error_is_seen():
    """The test above can fail: products of features far from the origin lose their digits."""
    x, y = features(300, seed=0), features(-300, seed=1)
    k, l = (np.asarray(z @ z.T, np.float64) for z in (x, y))  # noqa: E741
    exact = reference.cka(
        *(grams.linear(grams.centred(z.astype(np.float64))) for z in (x, y)), "unbiased"
    )
    assert abs(reference.cka(k, l, "unbiased") - exact) > CHANCE / 4000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_stay_non_finite(bad):
    x = features(0, p=17_000)
    x[3, 16_000] = bad
    with np.errstate(all="ignore"):
        assert not np.isfinite(Linear().gram(x)).all()


def test_on_an_accelerator_one_form_is_made():
    """Reading whether a shift is needed would wait for the device."""
    torch = pytest.importorskip("torch")
    from accelerator import Accelerator, Far

    x = features(30, p=17_000)
    with Accelerator() as accelerator:
        seen, out = torch_forms(Far(torch.tensor(x)))
        assert accelerator.reads == []
    assert seen == [("median", 17_000)]
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    np.testing.assert_allclose(out.near.numpy(), rows @ rows.T, atol=17_000 * 1e-5)
