"""Inside the caller's torch.autocast every public function computes as outside of it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import repsim
from cases import each
from reference.data import related
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial
from repsim.measures import MEASURES

torch = pytest.importorskip("torch")

HALVES = (torch.float16, torch.bfloat16)


def pair(dtype, mean, n=20):
    x, y = related(n, 6, 5)
    return [torch.asarray(z + mean).to(getattr(torch, dtype)) for z in (x, y)]


def same_inside(call):
    """The value outside of autocast; inside, all bits must be the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", repsim.DegenerateWarning)
        outside = call()
        for half in HALVES:
            with torch.autocast("cpu", dtype=half):
                inside = call()
            for a, b in zip(flat(outside), flat(inside), strict=True):
                np.testing.assert_array_equal(a, b)
    return outside


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value.detach().to(torch.float64).numpy()]
    if hasattr(value, "values") and not isinstance(value, dict):
        return [np.asarray(value.values)]
    return [np.asarray(value)]


@each("mean", [0, 30])
@each("dtype", ["float32", "float64", "bfloat16"])
def test_every_measure(dtype, mean):
    """Linear CKA of two float32 tensors was 0 or NaN instead of .999, from products in 8 bits."""
    for measure in MEASURES.values():
        x, y = pair(dtype, mean)
        same_inside(lambda m=measure, x=x, y=y: m.function(x, y, **m.preset))


@each("kernel", ["linear", "rbf", "laplacian", "cosine", "polynomial"])
def test_kernels_and_gradients(kernel):
    x, y = pair("float32", 30)
    for estimator in ("biased", "unbiased"):
        gradients = []
        for enabled in (False, True):
            leaf = x.clone().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                value = repsim.cka(leaf, y, kernel=kernel, estimator=estimator)
            value.backward()
            gradients.append(leaf.grad)
        assert torch.equal(*gradients)
        assert float(gradients[0].abs().max()) > 0
        same_inside(lambda e=estimator: repsim.hsic(x, y, kernel=kernel, estimator=e))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    same_inside(lambda: repsim.cka_from_gram(k, l))
    for each_kernel in (Linear(), RBF(), Laplacian(), Cosine(), Polynomial()):
        same_inside(lambda kernel=each_kernel: kernel.gram(x))


def test_accumulators_and_inference():
    x, y = pair("float32", 30)

    def minibatch():
        sums = repsim.MinibatchCKA()
        for rows in (slice(0, 10), slice(10, 20)):
            sums.update({"a": x[rows], "b": x[rows] ** 2}, {"c": y[rows]})
        return sums.compute()

    def streaming():
        sums = repsim.StreamingLinearCKA()
        sums.update({"a": x}, {"c": y})
        return sums.compute()

    calls = [
        minibatch,
        streaming,
        lambda: repsim.cka_matrix({"a": x}, {"c": y}),
        lambda: repsim.pairwise({"a": x}, {"c": y}, measure="procrustes"),
        lambda: repsim.chance_floor(x, y),
        lambda: repsim.permutation_test(x, y, permutations=19, seed=0).p_value,
        lambda: repsim.jackknife(x, y).standard_error,
    ]
    for call in calls:
        assert np.isfinite(flat(same_inside(call))[0]).all()


def test_attention():
    weights = torch.softmax(torch.randn(2, 3, 5, 5, generator=torch.manual_seed(0)), -1)
    grid = {"grid": (2, 2), "prefix": 1}
    calls = [
        lambda: repsim.attention.mean_distance(weights, **grid),
        lambda: repsim.attention.entropy(weights),
        lambda: repsim.attention.prefix_mass(weights, 1),
        lambda: repsim.attention.rollout([weights, weights]),
    ]
    for call in calls:
        same_inside(call)
