"""Derivatives: right in torch, right in jax, the same in both."""

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import right_gradient
from reference.data import related
from repsim.kernels import RBF, Cosine, Laplacian, Linear, Polynomial

ESTIMATORS = ("biased", "unbiased")
KERNELS = [
    Linear(),
    RBF(),
    RBF(0.7, "off_diagonal"),
    RBF(sigma=2.0),
    Laplacian(),
    Polynomial(),
    Polynomial(degree=3, coef0=0.0),
    Cosine(),
]
SHAPES = {"grams": (6, 7, 5), "features": (9, 2, 2)}


CASES = [
    (kernel, shape)
    for kernel in KERNELS
    for name, shape in SHAPES.items()
    if name == "grams" or kernel == Linear()
]


@each("estimator", ESTIMATORS)
@each(("kernel", "shape"), CASES)
@each("function", [repsim.cka, repsim.hsic])
def test_torch_gradcheck(function, kernel, shape, estimator):
    right_gradient(function, *related(*shape, 2), kernel=kernel, estimator=estimator)


@each("estimator", ESTIMATORS)
def test_torch_gradcheck_from_gram(estimator):
    def value(a, b):
        return repsim.cka_from_gram(a @ a.T, b @ b.T, estimator=estimator)

    right_gradient(value, *related(6, 7, 5, 2))


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [True, False])
@each(("kernel", "shape"), CASES)
def test_jax_agrees_with_torch(kernel, shape, compiled):
    torch = pytest.importorskip("torch")
    jax = pytest.importorskip("jax")
    x, y = related(*shape, 2)

    def value(a, b):
        """Both estimators in one compilation, with weights that tell them apart."""
        biased, unbiased = (repsim.cka(a, b, kernel=kernel, estimator=e) for e in ESTIMATORS)
        return biased + 0.7 * unbiased

    a, b = (torch.tensor(z, requires_grad=True) for z in (x, y))
    value(a, b).backward()
    assert float(a.grad.abs().max()) > 1e-4
    with jax.enable_x64(True):
        arrays = jax.numpy.asarray(x), jax.numpy.asarray(y)
        gradient = jax.grad(value, argnums=(0, 1))
        run = jax.jit(gradient) if compiled else gradient
        for out, expected in zip(run(*arrays), (a.grad, b.grad), strict=True):
            np.testing.assert_allclose(out, expected.numpy(), rtol=1e-7, atol=1e-10)


@each("estimator", ESTIMATORS)
@each("kernel", KERNELS)
def test_gradients_exist_at_duplicates_and_equality(kernel, estimator):
    """Distances of zero, and the maximum of the similarity, where its gradient is zero."""
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z) for z in related(8, 5, 4, 2))
    x[3] = x[2]
    x.requires_grad_()
    repsim.cka(x, y, kernel=kernel, estimator=estimator).backward()
    assert bool(torch.isfinite(x.grad).all())
    same = x.detach().clone().requires_grad_()
    repsim.cka(same, same.detach(), kernel=kernel, estimator=estimator).backward()
    np.testing.assert_allclose(same.grad.numpy(), 0, atol=1e-10)


@pytest.mark.slow
@each("kernel", ["linear", "cosine", "rbf"])
def test_gradient_ascent_makes_alike(kernel):
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z) for z in related(10, 3, 3, 4))
    before = float(repsim.cka(x, y, kernel=kernel))
    x.requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        loss = -repsim.cka(x, y, kernel=kernel)
        loss.backward()
        optimiser.step()
    assert float(repsim.cka(x.detach(), y, kernel=kernel)) > before + 0.1
