"""Kendall's tau of dissimilarities: pairs of entries one by one, ties, and missing entries."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, undefined
from reference import rdm as reference
from reference.data import oracle, related

COMPARISONS = ("kendall", "kendall_a")


@each("comparison", COMPARISONS)
def test_oracle(comparison):
    x, y = oracle()
    out = float(repsim.rsa(x, y, comparison=comparison))
    assert out == pytest.approx(0.3979797980, abs=1e-10)
    out = float(repsim.rsa(x, y, rdm="correlation", comparison=comparison))
    assert out == pytest.approx(0.4383838384, abs=1e-10)


@each("comparison", COMPARISONS)
def test_values(eager, comparison):
    for dtype, rtol in (("float32", 1e-5), ("float64", 1e-11)):
        x, y = (z.astype(dtype) for z in related(12, 5, 7))
        for rdm in ("euclidean", "correlation", "cosine"):
            expected = reference.rsa(x, y, rdm, comparison)
            options = {"rdm": rdm, "comparison": comparison}
            lives_with_its_inputs(eager, repsim.rsa, x, y, expected, rtol, **options)


@each("comparison", COMPARISONS)
@each("seed", range(3))
def test_ties(comparison, seed):
    """Only tau_a of a representation and itself is below 1: it divides by tied pairs too."""
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 3, (10, 2)).astype(float), rng.standard_normal((10, 3))
    expected = reference.rsa(x, y, "sqeuclidean", comparison)
    for factor in (1, 0.1):
        out = float(repsim.rsa(factor * x, y, comparison=comparison))
        assert out == pytest.approx(expected, abs=1e-12)
    itself = float(repsim.rsa(x, x, comparison=comparison))
    assert itself == pytest.approx(1) if comparison == "kendall" else itself < 0.95


@each("comparison", COMPARISONS)
def test_missing_entries_are_left_out(comparison):
    x, y = related(9, 4, 5)
    a, b = repsim.rdm(x), repsim.rdm(y)
    a[2, 5] = a[5, 2] = b[0, 1] = b[1, 0] = np.nan
    off = np.triu_indices(9, 1)
    kept = ~np.isnan(a[off]) & ~np.isnan(b[off])
    expected = reference.COMPARISON[comparison](a[off][kept], b[off][kept])
    out = float(repsim.rsa_from_rdm(a, b, comparison=comparison, nan="omit"))
    assert out == pytest.approx(expected, abs=1e-12)
    out = repsim.pairwise({"a": x}, {"b": y}, measure="rsa", comparison=comparison).item()
    assert out == pytest.approx(reference.rsa(x, y, comparison=comparison), abs=1e-12)


@each("comparison", COMPARISONS)
def test_degenerate(comparison):
    y = related(7, 3, 4)[1]
    for x, about in ((np.eye(7), "same dissimilarity"), (np.ones((7, 3)), "same for all")):
        undefined(lambda a=x: repsim.rsa(a, y, comparison=comparison), "x", about=about)
        undefined(lambda a=x: repsim.rsa(y, a, comparison=comparison), "y", about=about)


def test_half_precision():
    x, y = (np.rint(4 * z) for z in related(9, 4, 5))
    for comparison in COMPARISONS:
        half(
            repsim.rsa,
            x,
            y,
            lambda a, b, c=comparison: reference.rsa(a, b, "sqeuclidean", c),
            1e-6,
            comparison=comparison,
        )


def test_values_that_cannot_be_read():
    jax = pytest.importorskip("jax")
    x, y = related(9, 4, 5)
    for comparison in COMPARISONS:
        run = jax.jit(lambda a, b, c=comparison: repsim.rsa(a, b, comparison=c))
        with refuses(repsim.ArrayTypeError, "rsa: x", "can be read", "Kendall"):
            run(x, y)
