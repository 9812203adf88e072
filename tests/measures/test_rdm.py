"""RDMs in and out: `rdm`, and RSA of ready RDMs, with and without missing pairs."""

import numpy as np
import pytest
import xarray
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

import repsim
from cases import each
from measures.checks import refuses, right_gradient, same_gradient, undefined
from reference import rdm as reference
from reference.data import oracle, related

KINDS = ("euclidean", "sqeuclidean", "correlation", "cosine")
COMPARISONS = ("spearman", "rho_a", "pearson", "cosine", "whitened")
NO_GAPS = tuple(c for c in COMPARISONS if c != "whitened")


def square(x, kind="euclidean"):
    return squareform(reference.entries(x, kind), checks=False)


@each("kind", KINDS)
@each("dtype", ["float32", "float64"])
def test_rdm_of_every_framework(backend, kind, dtype):
    if backend.compiled and dtype == "float32":
        pytest.skip("compiling each takes a second; eager jax covers the dtypes")
    x = related(9, 5, 5)[0].astype(dtype)
    out = backend.call(repsim.rdm, x, kind=kind)
    assert backend.owns(out)
    assert backend.dtype(out) == dtype
    rtol = {"float32": 1e-5, "float64": 1e-12}[dtype]
    found = backend.numpy(out)
    np.testing.assert_allclose(found, square(x, kind), rtol=rtol, atol=1e-12)
    np.testing.assert_array_equal(np.diagonal(found), 0)
    np.testing.assert_array_equal(found, found.T)


@each("kind", KINDS)
@each("comparison", COMPARISONS)
@each("dtype", ["float32", "float64"])
def test_rsa_of_the_rdms_is_rsa(backend, kind, comparison, dtype):
    if backend.compiled and (dtype == "float32" or comparison != "spearman"):
        pytest.skip("compiling each takes a second; eager jax covers the rest")
    x, y = (z.astype(dtype) for z in related(12, 5, 7))

    def through(a, b, condensed=False):
        return repsim.rsa_from_rdm(repsim.rdm(a, kind), repsim.rdm(b, kind), comparison=comparison)

    out = backend.call(through, x, y)
    assert backend.owns(out)
    assert tuple(out.shape) == ()
    assert backend.dtype(out) == dtype
    expected = float(repsim.rsa(x, y, rdm=kind, comparison=comparison))
    assert float(out) == pytest.approx(expected, abs={"float32": 1e-5, "float64": 1e-12}[dtype])


def test_only_rounding_makes_a_tie():
    order = np.random.default_rng(0).permutation(45)
    for dtype, spread in ((np.float32, 1e-3), (np.float64, 1e-7)):
        near = (1 + spread * order / 45).astype(dtype)
        for comparison in ("spearman", "rho_a", "kendall"):
            out = repsim.rsa_from_rdm(near, order.astype(dtype), comparison=comparison)
            assert float(out) == pytest.approx(1, abs=1e-6), (dtype, comparison)


def test_ties_are_those_of_rsa():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (12, 5)), rng.integers(0, 3, (12, 4))
    expected = float(repsim.rsa(x, y))
    for dtype in ("float32", "float64"):
        a, b = (repsim.rdm(z.astype(dtype)) for z in (x, y))
        assert float(repsim.rsa_from_rdm(a, b)) == pytest.approx(expected, abs=1e-6)


@each("comparison", COMPARISONS)
def test_condensed_and_square(eager, comparison):
    x, y = related(10, 4, 3)
    a, b = pdist(x), pdist(y, "cityblock")
    expected = reference.COMPARISON[comparison](a, b)
    for left in (a, squareform(a)):
        for right in (b, squareform(b)):
            out = eager.call(repsim.rsa_from_rdm, left, right, comparison=comparison)
            assert float(out) == pytest.approx(expected, abs=1e-12)


@each("comparison", COMPARISONS)
def test_the_unit_does_not_matter_and_entries_may_be_negative(comparison):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 28))
    expected = reference.COMPARISON[comparison](a, b)
    for scale in (1.0, 1e200, 1e-200):
        out = repsim.rsa_from_rdm(scale * a, b, comparison=comparison)
        assert float(out) == pytest.approx(expected, abs=1e-9)


@each("comparison", NO_GAPS)
@each("form", ["square", "condensed"])
def test_missing_pairs_are_left_out_of_both(backend, comparison, form):
    if backend.compiled and form == "square":
        pytest.skip("compiling each takes a second; eager jax covers the rest")
    rng = np.random.default_rng(2)
    a, b = np.round(rng.random((2, 36)), 1)  # with ties
    a[[3, 8]] = np.nan
    b[[8, 20, 21]] = np.nan
    expected = reference.with_missing(a, b, comparison)
    if form == "square":
        a, b = squareform(a), squareform(b)
        np.fill_diagonal(a, np.nan)  # some packages do
    out = backend.call(repsim.rsa_from_rdm, a, b, comparison=comparison, nan="omit")
    assert float(out) == pytest.approx(expected, abs=1e-12)


def test_the_reference_of_missing_pairs_is_that_of_scipy():
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 20))
    a[4] = np.nan
    both = np.arange(20) != 4
    for name, function in (("spearman", spearmanr), ("pearson", pearsonr)):
        found = reference.with_missing(a, b, name)
        assert found == pytest.approx(function(a[both], b[both])[0], abs=1e-12)


def test_nothing_missing_is_the_plain_value():
    a, b = (repsim.rdm(z) for z in related(9, 4, 5))
    for comparison in NO_GAPS:
        out = repsim.rsa_from_rdm(a, b, comparison=comparison, nan="omit")
        expected = repsim.rsa_from_rdm(a, b, comparison=comparison)
        assert float(out) == pytest.approx(float(expected), abs=1e-14)


def test_missing_pairs_must_be_asked_for():
    a, b = (repsim.rdm(z) for z in related(9, 4, 5))
    a[2, 4] = a[4, 2] = np.nan
    for left in (a, squareform(a, checks=False)):
        with refuses(repsim.NonFiniteError, "rsa_from_rdm: a must be finite", "nan='omit'"):
            repsim.rsa_from_rdm(left, b)
    infinite = np.where(np.isnan(a), np.inf, a)
    with refuses(repsim.NonFiniteError, "rsa_from_rdm: b", "2 entries are infinite"):
        repsim.rsa_from_rdm(a, infinite, nan="omit")
    a[4, 2] = 1.0
    with refuses(repsim.InputError, "a must be symmetric", "NaN on one side"):
        repsim.rsa_from_rdm(a, b, nan="omit")
    few = np.full(10, np.nan)
    few[:3] = [1, 3, 2]
    assert repsim.rsa_from_rdm(few, np.arange(10.0), nan="omit") == pytest.approx(0.5)
    few[0] = np.nan
    with refuses(repsim.InputError, "at least 3 pairs", "2 of 10 pairs"):
        repsim.rsa_from_rdm(few, np.arange(10.0), nan="omit")


def test_arrays_that_are_not_rdms_are_refused():
    x, y = related(6, 4, 5)
    a, b = repsim.rdm(x), repsim.rdm(y)
    for wrong, words in (
        (x, "(n, n) or (n(n−1)/2,)"),
        (a[0, :5], "(n, n) or (n(n−1)/2,)"),
        (a[None], "(n, n) or (n(n−1)/2,)"),
        (x @ np.ones((4, 6)), "must be symmetric"),
        (1 - repsim.rdm(x, "cosine"), "must have a zero diagonal"),
        (a[:2, :2], "at least 3 samples"),
        (a[:5, :5], "same samples"),
        (squareform(a[:5, :5]), "n=5"),
    ):
        with refuses(repsim.InputError, "rsa_from_rdm: ", words):
            repsim.rsa_from_rdm(b, wrong)
    for scale in (1e-6, 1e6):  # what is rounding is relative to the largest entry
        beyond, within = (share * scale * a.max() for share in (2e-3, 5e-4))
        for place, words in ((np.eye(6), "zero diagonal"), (np.eye(6, k=2), "symmetric")):
            repsim.rsa_from_rdm(b, scale * a + within * place)
            with refuses(repsim.InputError, "rsa_from_rdm: b", words):
                repsim.rsa_from_rdm(a, scale * a + beyond * place)
    for wrong in (a + 0j, a.astype(object), a.tolist(), np.ma.masked_array(a)):
        with refuses(repsim.ArrayTypeError, "rsa_from_rdm: a"):
            repsim.rsa_from_rdm(wrong, b)
    with refuses(repsim.InputError, "unknown comparison", "'tau'"):
        repsim.rsa_from_rdm(a, b, comparison="tau")
    with refuses(repsim.InputError, "'whitened' needs all pairs", "nan='omit'"):
        repsim.rsa_from_rdm(a, b, comparison="whitened", nan="omit")
    with refuses(repsim.InputError, "unknown nan", "'omit'", "'propagate'"):
        repsim.rsa_from_rdm(a, b, nan="propagate")
    with refuses(repsim.InputError, "rdm: unknown kind", "Did you mean 'correlation'"):
        repsim.rdm(np.eye(4), "pearson")
    with refuses(repsim.InputError, "rdm: unknown kind", "'cosine'", "'l1'"):
        repsim.rdm(x, "l1")
    with refuses(repsim.InputError, "rdm: a dissimilarity matrix needs at least 2"):
        repsim.rdm(x[:1])
    x[3, 1] = np.nan
    with refuses(repsim.NonFiniteError, "rdm: x", "row 3"):
        repsim.rdm(x)


def test_rsa_refuses_a_ready_rdm(eager):
    """Its rows had been taken as features: −.02 for two RDMs that agree."""
    x, y = related(12, 12, 12)
    for kind in KINDS:
        a = eager.array(repsim.rdm(x, kind))
        b = eager.array(y)
        for arrays in ((a, b), (b, a)):
            with refuses(repsim.InputError, "rsa: ", "looks like an RDM", "rsa_from_rdm"):
                repsim.rsa(*arrays)
        assert np.isfinite(float(repsim.rsa_from_rdm(repsim.rdm(a), repsim.rdm(b))))
    with refuses(repsim.InputError, "xs['a'] must be activations", "rsa_from_rdm"):
        repsim.pairwise({"a": a, "b": b}, measure="rsa")
    assert np.isfinite(float(repsim.rsa(b, b)))  # square, and not symmetric


@each("kind", KINDS)
def test_gradients(kind):
    x, y = related(6, 4, 5, 2)

    def through(a, b):
        return repsim.rsa_from_rdm(repsim.rdm(a, kind), repsim.rdm(b, kind), comparison="pearson")

    right_gradient(through, x, y)
    if kind == "euclidean":
        same_gradient(through, x, y)


def test_gradients_beside_missing_pairs():
    torch = pytest.importorskip("torch")
    a, b = (torch.tensor(pdist(z)) for z in related(7, 4, 5))
    b[2] = torch.nan
    a.requires_grad_()
    repsim.rsa_from_rdm(a, b, comparison="pearson", nan="omit").backward()
    assert bool(torch.isfinite(a.grad).all())
    assert float(a.grad[2]) == 0
    both = torch.arange(len(b)) != 2
    other = a.detach()[both].clone().requires_grad_()
    centred = [z - z.mean() for z in (other, b[both])]
    torch.cosine_similarity(*centred, dim=0).backward()
    np.testing.assert_allclose(a.grad[both], other.grad, atol=1e-12)


def test_samples_without_a_direction():
    x, y = related(8, 4, 5)
    x[2] = 0
    with pytest.warns(repsim.DegenerateWarning, match="rdm: x has a row of zeros"):
        a = repsim.rdm(x, "cosine")
    assert np.isnan(a[2, np.arange(8) != 2]).all()
    assert np.isnan(a).sum() == 14
    np.testing.assert_array_equal(np.diagonal(a), 0)
    rest = np.arange(8) != 2
    out = repsim.rsa_from_rdm(a, repsim.rdm(y, "cosine"), nan="omit")
    expected = repsim.rsa(x[rest], y[rest], rdm="cosine")
    assert float(out) == pytest.approx(float(expected), abs=1e-12)


@each("comparison", COMPARISONS)
def test_rdms_without_information_are_undefined(comparison):
    a, nothing = repsim.rdm(related(6, 4, 4)[0]), np.zeros((6, 6))
    undefined(
        lambda: repsim.rsa_from_rdm(a, nothing, comparison=comparison), "b", about="zero for all"
    )
    if comparison != "cosine":
        undefined(
            lambda: repsim.rsa_from_rdm(0.1 * (1 - np.eye(6)), a, comparison=comparison),
            "a",
            about="same dissimilarity",
        )


def test_half_precision_and_mixed_dtypes():
    torch = pytest.importorskip("torch")
    a, b = (pdist(z) for z in related(9, 4, 5))
    low = torch.tensor(a).to(torch.bfloat16)
    out = repsim.rsa_from_rdm(low, torch.tensor(b).to(torch.bfloat16), comparison="pearson")
    assert out.dtype == torch.float32
    mixed = repsim.rsa_from_rdm(low, torch.tensor(b), comparison="pearson")
    assert mixed.dtype == torch.float64
    expected = reference.pearson(low.double().numpy(), b)
    assert float(mixed) == pytest.approx(expected, abs=1e-12)


def test_oracle():
    x, y = oracle()
    out = repsim.rsa_from_rdm(pdist(x), pdist(y))
    assert float(out) == pytest.approx(0.55928853754941, abs=1e-12)


def test_labels_travel_with_the_rdm():
    """So RDMs of samples in another order are not compared by mistake."""
    x, y = related(6, 4, 5)
    ids = {"stimulus_id": ("image", list("abcdef")), "feature": np.arange(4)}
    labelled = xarray.DataArray(x, dims=("image", "feature"), coords=ids)
    out = repsim.rdm(labelled)
    assert out.dims == ("image", "image_2")
    assert set(out.coords) == {"stimulus_id"}
    np.testing.assert_array_equal(out, repsim.rdm(x))
    assert float(repsim.rsa_from_rdm(out, repsim.rdm(y))) == float(repsim.rsa(x, y))
    with refuses(repsim.InputError, "rsa_from_rdm", "another order"):
        repsim.rsa_from_rdm(out, repsim.rdm(labelled[::-1]))
    levels = labelled.assign_coords(run=("image", [0, 0, 0, 1, 1, 1]))
    levels = levels.set_index(image=["stimulus_id", "run"])
    assert repsim.rdm(levels).indexes["image"].equals(levels.indexes["image"])


def test_small_distances_beside_large_ones_in_jax_without_float64():
    """Two clusters at 1e4 standard deviations; products of float32 leave no digit within them."""
    jax = pytest.importorskip("jax")
    far = 1e4 * (np.arange(30)[:, None] % 2)
    x, y = ((z + far).astype(np.float32) for z in related(30, 6, 7))
    a, b = jax.numpy.asarray(x), jax.numpy.asarray(y)
    out = repsim.rdm(a)
    assert out.dtype == a.dtype
    np.testing.assert_allclose(out, repsim.rdm(x), rtol=1e-5)
    for function in (repsim.rsa, repsim.information_imbalance):
        assert float(function(a, b)) == pytest.approx(float(function(x, y)), abs=1e-4)
