"""The precision of a kernel, and when features may be multiplied as they are."""

import numpy as np
import pytest
from array_api_compat import array_namespace

import repsim
from reference import hsic as reference
from reference import kernels as grams
from reference.data import related
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial, _products, with_precision

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
    """Also far from the origin, where rounding the features themselves would leave nothing."""
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


def forms(monkeypatch, x):
    """Of how many features products were formed, about which origin, and the Gram."""
    seen = []
    original = _products._products

    def spy(xp, x, blocks, origin, *rest):
        blocks = list(blocks)
        name = "as they are" if origin is None else origin.__qualname__.split(".")[0]
        seen.append(f"{name} {sum(block.stop - block.start for block in blocks)}")
        return original(xp, x, blocks, origin, *rest)

    monkeypatch.setattr(_products, "_products", spy)
    return seen, Linear().gram(x)


def features(mean, n=64, p=20_000, dtype=np.float32, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, p))
    return (x + mean).astype(dtype)


CHANCE = (2 / (64 * 61)) ** 0.5  # standard deviation of unbiased CKA of 64 independent samples
FIRST, LAST = 4096, 20_000 - 4096  # of NumPy's blocks


@pytest.mark.parametrize(
    ("mean", "wanted"),
    [
        (0, [f"as they are {FIRST}", f"as they are {LAST}"]),
        (3, [f"as they are {FIRST}", f"as they are {LAST}"]),
        (5, [f"as they are {FIRST}", f"_median_of_three {FIRST}", f"_median_of_three {LAST}"]),
        (300, [f"as they are {FIRST}", f"_median_of_three {FIRST}", f"_median_of_three {LAST}"]),
    ],
)
def test_centring_only_where_it_moves_the_result(monkeypatch, mean, wanted):
    seen, _ = forms(monkeypatch, features(mean))
    assert seen == wanted


@pytest.mark.parametrize(
    ("mean", "p", "wanted"),
    [
        (0, 15_000, ["as they are 15000"]),
        (0, 40_000, ["as they are 40000"]),
        (5, 40_000, ["as they are 40000", "_median_of_three 16384", "_median_of_three 23616"]),
    ],
)
def test_torch_makes_one_product_of_what_is_not_copied(monkeypatch, mean, p, wanted):
    torch = pytest.importorskip("torch")
    x = features(mean, p=p)
    seen, out = forms(monkeypatch, torch.tensor(x))
    assert seen == wanted
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    np.testing.assert_allclose(out.numpy(), rows @ rows.T, atol=p * 2e-6)


@pytest.mark.parametrize(("n", "most"), [(16, 2), (32, 8**0.5), (64, 4), (100, 5), (200, 5)])
def test_the_bound_grows_with_the_number_of_samples(monkeypatch, n, most):
    """Samples √(1 + mean²) as far from the origin as from their mean, from 2 to 5 times."""
    for factor, wanted in ((0.95, "as they are"), (1.05, "_median_of_three")):
        with monkeypatch.context() as patch:
            seen, _ = forms(patch, features(((factor * most) ** 2 - 1) ** 0.5, n=n))
        assert seen[-1].startswith(wanted)


def test_sums_beyond_float32_are_infinite_without_a_word(recwarn):
    """As its own products are; the layer's name is known elsewhere."""
    torch = pytest.importorskip("torch")
    out = Linear().gram(torch.tensor(1.5e17 * features(0, n=8, p=40_000)))
    assert not torch.isfinite(out).all()
    assert not [w for w in recwarn if issubclass(w.category, RuntimeWarning)]


def test_a_few_numbers_are_not_asked_about(monkeypatch):
    assert forms(monkeypatch, features(0, p=500))[0] == ["_median_of_three 500"]


def test_a_mean_that_the_first_features_do_not_have(monkeypatch):
    x = features(0)
    x[:, 16_400:] += 50
    assert forms(monkeypatch, x)[0] == [
        f"as they are {FIRST}",
        f"as they are {LAST}",
        f"_median_of_three {FIRST}",
        f"_median_of_three {LAST}",
    ]


def test_two_outliers_among_the_three(monkeypatch):
    x = features(5000)
    x[[0, 32]] += 1e4
    seen, out = forms(monkeypatch, x)
    assert seen[-1] == "_mean 20000"
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    others = [i for i in range(64) if i not in (0, 32)]
    wanted = (rows @ rows.T)[np.ix_(others, others)]
    got = out[np.ix_(others, others)]
    np.testing.assert_allclose(got, wanted, rtol=1e-5)


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


def test_without_the_bound_the_error_is_seen(monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(_products, "FARTHEST", 1e9)
    monkeypatch.setattr(_products, "FAR", 1e9)
    x, y = features(300, seed=0), features(-300, seed=1)
    k, l = (np.asarray(Linear().gram(z), np.float64) for z in (x, y))  # noqa: E741
    exact = reference.cka(
        *(grams.linear(grams.centred(z.astype(np.float64))) for z in (x, y)), "unbiased"
    )
    assert abs(reference.cka(k, l, "unbiased") - exact) > CHANCE / 4000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad):
    x = features(0, p=17_000)
    x[3, 16_000] = bad
    with np.errstate(all="ignore"):
        assert not np.isfinite(Linear().gram(x)).all()


def test_where_values_cannot_be_read_one_form_is_made(monkeypatch):
    monkeypatch.setattr(_products, "host_resident", lambda _: False)
    x = features(30, p=17_000)
    seen, out = forms(monkeypatch, x)
    assert seen == ["_median_of_three 17000"]
    rows = x.astype(np.float64) - x.astype(np.float64).mean(0)
    np.testing.assert_allclose(out, rows @ rows.T, atol=17_000 * 1e-5)
    assert array_namespace(out).__name__.endswith("numpy")
