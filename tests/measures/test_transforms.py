"""Transforms of torch: `torch.func`, `torch.vmap`, forward mode and `torch.compile`."""

import warnings
from itertools import product

import numpy as np
import pytest

import repsim
from cases import each
from measures.checks import refuses
from measures.test_gradients import CASES, ESTIMATORS, SHAPES
from reference.data import related
from repsim.kernels import RBF, Linear, Polynomial
from repsim.measures import MEASURES

torch = pytest.importorskip("torch")
RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])
FUNCTIONS = (repsim.cka, repsim.hsic)

pytestmark = pytest.mark.filterwarnings(  # of torch, about array_api_compat and about itself
    "ignore:Dynamo detected a call to a `functools.lru_cache`:UserWarning",
    "ignore:`torch.jit.script` is deprecated:FutureWarning",
)


def tensors(*shape, seed=2):
    return [torch.tensor(z) for z in related(*shape, seed)]


def backward(function, x, y):
    leaf = x.clone().requires_grad_()
    value = function(leaf, y)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def near(found, expected):
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@each("estimator", ESTIMATORS)
@each(("kernel", "shape"), CASES)
@each("function", FUNCTIONS)
def test_func_derivatives(function, kernel, shape, estimator):
    """They raised "Cannot access data pointer of Tensor that doesn't have storage"."""
    x, y = tensors(*shape)
    direction = torch.cos(torch.arange(float(x.numel()), dtype=x.dtype)).reshape(x.shape)

    def value(a, b=y):
        return function(a, b, kernel=kernel, estimator=estimator)

    plain, gradient = backward(value, x, y)
    near(torch.func.grad(value)(x), gradient)
    near(torch.func.grad(value, argnums=0)(x, y), gradient)
    near(torch.func.jacrev(value)(x), gradient)
    out, pull = torch.func.vjp(value, x)
    near(out, plain)
    near(pull(torch.ones_like(out))[0], gradient)
    out, tangent = torch.func.jvp(value, (x,), (direction,))
    near(out, plain)
    near(tangent, (gradient * direction).sum())
    with torch.autograd.forward_ad.dual_level():
        dual = value(torch.autograd.forward_ad.make_dual(x, direction))
        near(torch.autograd.forward_ad.unpack_dual(dual).tangent, (gradient * direction).sum())
    step = 1e-5 * direction
    moved = (value(x + step) - value(x - step)) / 2e-5
    np.testing.assert_allclose(tangent, moved, rtol=1e-4, atol=1e-8)


@pytest.mark.slow
@each("estimator", ESTIMATORS)
@each(("kernel", "shape"), CASES)
@each("function", FUNCTIONS)
def test_vmap_over_a_stack_of_layers(function, kernel, shape, estimator):
    x, y = tensors(*shape)
    layers = torch.stack([x, 2 * x + 1, x.flip(0)])

    def value(a, b):
        return function(a, b, kernel=kernel, estimator=estimator)

    each_layer = [value(layer, y) for layer in layers]
    near(torch.vmap(value, (0, None))(layers, y), torch.stack(each_layer))
    near(torch.vmap(value, (None, 0))(y, layers), torch.stack(each_layer))
    grid = torch.vmap(torch.vmap(value, (None, 0)), (0, None))(layers, layers)
    near(grid, torch.stack([torch.stack([value(a, b) for b in layers]) for a in layers]))
    gradients = torch.vmap(torch.func.grad(value), (0, None))(layers, y)
    near(gradients, torch.stack([backward(value, layer, y)[1] for layer in layers]))


def test_a_transform_leaves_values_of_other_tensors_alone():
    x, y = tensors(300, 300, 2)
    for options in ({}, {"estimator": "unbiased"}, {"kernel": "rbf"}):
        expected = repsim.cka(x, y, **options)
        value, gradient = torch.func.grad_and_value(
            lambda a, expected=expected, options=options: a * repsim.cka(x, y, **options)
        )(torch.ones((), dtype=x.dtype))[::-1]
        near(value, expected)
        near(gradient, expected)


def test_second_derivatives():
    x, y = tensors(6, 3, 2)
    expected = torch.autograd.functional.hessian(lambda a: repsim.cka(a, y), x)
    near(torch.func.hessian(lambda a: repsim.cka(a, y))(x), expected)


ON_THE_HOST = {
    "soft_matching",
    "soft_matching_correlation",
    "correlation_match",
    "permutation_procrustes",
    "permutation_procrustes_angle",
    "rank_similarity",
    "joint_rank_jaccard",
    "cycle_knn",
    "lcs_knn",
    "edit_knn",
}
"""They pair features or list neighbours outside the framework."""


@pytest.mark.skipif(RELEASE < (2, 9), reason="vmap of torch 2.9 takes more operations")
def test_other_measures_under_transforms():
    x, y = tensors(14, 5, 4)
    rng = np.random.default_rng(0)  # duplicates, and distances that are equal
    tied = [torch.tensor(rng.integers(0, 3, (14, p)).astype(float)) for p in (3, 2)]
    for measure in MEASURES.values():

        def value(a, b, measure=measure):
            return measure.function(a, b, **measure.preset)

        if measure.name in ON_THE_HOST:
            operation = f"{measure.function.__name__}: "
            for run, a in ((torch.func.grad(value), x), (torch.vmap(value, (0, None)), x[None])):
                with refuses(repsim.ArrayTypeError, operation, "can be read"):
                    run(a, y)
            continue
        near(torch.vmap(value, (0, None))(x[None], y)[0], value(x, y))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", repsim.DegenerateWarning)
            near(torch.vmap(value, (0, None))(tied[0][None], tied[1])[0], value(*tied))
        if measure.differentiable and value(x.clone().requires_grad_(), y).requires_grad:
            near(torch.func.grad(value)(x, y), backward(value, x, y)[1])


def test_values_are_checked_where_they_can_be_read():
    x, y = tensors(9, 4, 3)
    bad = x.clone()
    bad[3, 1] = torch.nan
    with refuses(repsim.NonFiniteError, "cka: x must be finite", "row 3"):
        torch.func.grad(repsim.cka)(bad, y)
    with pytest.warns(repsim.DegenerateWarning, match="cka: x is constant"):
        torch.func.grad(repsim.cka)(torch.ones_like(x), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = torch.vmap(repsim.cka, (0, None))(torch.stack([bad, torch.ones_like(x), x]), y)
    assert torch.isnan(out).tolist() == [True, True, False]
    with refuses(repsim.InputError, "cka: x and y must describe the same samples"):
        torch.vmap(repsim.cka, (0, None))(x[None, :5], y)


@pytest.mark.slow
@pytest.mark.skipif(RELEASE < (2, 14), reason="older compilers break the graph")
def test_compile_without_a_graph_break():
    """The next test compiles few features, and other cases go through the lines of these.

    A polynomial of another degree is traced alike; "laplacian" takes the other median.
    """
    alike = (Polynomial(degree=3, coef0=0.0), RBF(0.7, "off_diagonal"))
    assert {kernel for kernel, _ in CASES}.issuperset(alike)
    for kernel, shape in CASES:
        if shape == SHAPES["grams"] and kernel not in alike:
            compiles(*tensors(*shape), kernel)


def compiles(x, y, kernel):
    # Tracing takes the time. Kernels differ in the Gram alone, so one needs not all combinations.
    calls = [(repsim.cka, "unbiased")]
    if kernel == "linear" or kernel == Linear():
        calls = list(product(FUNCTIONS, ESTIMATORS))

    def values(a, b):
        """All functions and estimators in one compilation."""
        return torch.stack([f(a, b, kernel=kernel, estimator=e) for f, e in calls])

    torch.compiler.reset()
    run = torch.compile(values, fullgraph=True, backend="eager")
    leaf = x.clone().requires_grad_()
    out = run(leaf, y)
    near(out, values(x, y))
    expected = torch.autograd.functional.jacobian(lambda a: values(a, y), x)
    near(torch.autograd.grad(out.sum(), leaf)[0], expected.sum(0))
    return run


@pytest.mark.slow
@pytest.mark.skipif(RELEASE < (2, 14), reason="older compilers break the graph")
def test_compiled_values_that_are_undefined_are_nan():
    x, y = tensors(9, 2, 2)
    run = compiles(x, y, "linear")
    bad = x.clone().requires_grad_()
    with torch.no_grad():
        bad[3, 1] = torch.nan
    assert torch.isnan(run(bad, y)).all()
    constant = torch.ones_like(x, requires_grad=True)
    assert torch.isnan(run(constant, y)).tolist() == [True, True, False, False]
