"""Ready RDMs, square or their entries: rows and columns are permuted and drawn together."""

import numpy as np
import pytest

import repsim
from repsim import InputError
from repsim.inference import permutation_test, subsample

READY = {"measure": "rsa", "rdm": "precomputed"}


def judged(n=9, seed=0):
    """Two RDMs that no activations have: not metric, with ties."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(2):
        d = np.triu(rng.integers(1, 6, (n, n)).astype(float), 1)
        out.append(d + d.T)
    return out


def upper(d):
    return d[np.triu_indices(len(d), 1)]


def moved(d, rows):
    return d[np.ix_(rows, rows)]


def test_rows_and_columns_are_permuted_together():
    a, b = judged()
    forms = [(a, b), (upper(a), upper(b)), (a, upper(b))]
    for comparison in ("spearman", "kendall", "whitened"):
        rng = np.random.default_rng(5)
        orders = [rng.permutation(9) for _ in range(39)]
        loop = [
            float(repsim.rsa_from_rdm(a, moved(b, order), comparison=comparison))
            for order in orders
        ]
        value = float(repsim.rsa_from_rdm(a, b, comparison=comparison))
        p_value = (1 + sum(each >= value - 1e-12 for each in loop)) / 40
        options = {**READY, "comparison": comparison, "permutations": 39, "seed": 5}
        for x, y in forms:
            found = permutation_test(x, y, **options)
            np.testing.assert_allclose(found.null, loop, rtol=1e-10)
            assert (found.value, found.p_value) == (pytest.approx(value), p_value)
            mapped = repsim.max_t({"a": x}, {"b": y}, **options)
            assert mapped.p_value.item() == p_value
            pair = repsim.pairwise({"a": x}, {"b": y}, **READY, comparison=comparison)
            assert pair.item() == pytest.approx(value)
            assert repsim.rsa(x, y, rdm="precomputed", comparison=comparison) == pair.item()
    groups = np.repeat([0, 1, 2], 3)
    found = permutation_test(a, upper(b), groups=groups, **READY, permutations=9)
    assert found.n_groups == 3


def test_halves_have_rows_and_columns():
    a, b = judged(12)
    rng = np.random.default_rng(3)
    loop = []
    for _ in range(20):
        half = np.sort(rng.permutation(12)[:6])
        loop.append(float(repsim.rsa_from_rdm(moved(a, half), moved(b, half))))
    for x, y in ((a, b), (upper(a), b)):
        found = subsample(x, y, **READY, draws=20, seed=3)
        np.testing.assert_allclose(found.replicates, loop, rtol=1e-12)


def test_the_rdms_of_activations_give_what_activations_give():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 3))
    y = x + rng.standard_normal((10, 3))
    ready = [upper(repsim.rdm(z)) for z in (x, y)]
    for dtype in (np.float64, np.float32):
        expected = permutation_test(x.astype(dtype), y.astype(dtype), measure="rsa")
        found = permutation_test(*(d.astype(dtype) for d in ready), **READY)
        assert found.p_value == expected.p_value
        np.testing.assert_allclose(found.null, expected.null, atol=1e-6)


def test_other_frameworks_and_labels():
    a, b = judged()
    expected = permutation_test(a, b, **READY, permutations=9)
    torch = pytest.importorskip("torch")
    xarray = pytest.importorskip("xarray")
    for x, y in (
        (torch.tensor(a), torch.tensor(upper(b))),
        (xarray.DataArray(a), xarray.DataArray(upper(b))),
    ):
        found = permutation_test(x, y, **READY, permutations=9)
        np.testing.assert_allclose(found.null, expected.null, rtol=1e-12)


def test_refuses():
    a, b = judged()
    every = [
        lambda x, y, **options: permutation_test(x, y, **options),
        lambda x, y, **options: subsample(x, y, **options),
        lambda x, y, **options: repsim.max_t({"x": x}, {"y": y}, **options),
        lambda x, y, **options: repsim.pairwise({"x": x}, {"y": y}, **options),
    ]
    for ask in every:
        for match, bad in (
            ("must be an RDM", a[:, :3]),
            ("must be an RDM", upper(a)[:-1]),
            (r"must be an RDM(.|\n)*list\(rdms\)", np.stack([a, b])),
            ("symmetric", np.triu(a)),
            ("similarities", 1 + a),
            ("same samples", moved(a, range(8))),
            (r"other RDM(.|\n)*out of the rows and columns", np.where(a > 4, np.nan, a)),
        ):
            with pytest.raises(InputError, match=match):
                ask(bad, b, **READY)
        with pytest.raises(InputError, match=r"looks like an RDM(.|\n)*rdm='precomputed'"):
            ask(a, b, measure="rsa")
