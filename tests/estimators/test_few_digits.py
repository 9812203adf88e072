"""A Gram whose entries differ in few digits gives a warning, whoever makes the Gram."""

import warnings

import numpy as np
import pytest
import torch

import repsim
from reference.data import related
from repsim.kernels import RBF, Laplacian, Polynomial

WORDS = "differ in few digits"


def warned(call, *args, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*args, **options)
    return [str(each.message) for each in caught if WORDS in str(each.message)]


def tables(mean=0.0):
    return [(z + mean).astype(np.float32) for z in related(60, 10, 12)]


def minibatch(kernel, x, y, *, how="update"):
    acc = repsim.MinibatchCKA(kernel=kernel)
    for rows in (slice(0, 30), slice(30, 60)):
        sides = {"a": x[rows]}, {"b": y[rows]}
        if how == "update_grams":
            sides = [{name: kernel.gram(z) for name, z in side.items()} for side in sides]
        if how == "merge" and acc.n_batches:
            other = acc.spawn()
            other.update(*sides)
            state = repsim.MinibatchCKA.from_state_dict(other.state_dict())
            acc = acc.merge(state)
        else:
            getattr(acc, "update_grams" if how == "update_grams" else "update")(*sides)
    return acc.compute()


def of_models(kernel, x, y):
    model = torch.nn.Sequential(torch.nn.Tanh(), torch.nn.Softsign())
    return repsim.compare(model, data=torch.from_numpy(x).split(30), kernel=kernel, progress=False)


WAYS = {
    "cka": lambda kernel, x, y: repsim.cka(x, y, kernel=kernel, estimator="unbiased"),
    "hsic": lambda kernel, x, y: repsim.hsic(x, y, kernel=kernel),
    "partial": lambda kernel, x, y: repsim.cka(x, y, kernel=kernel, given=x[:, ::-1] ** 2),
    "cka_from_gram": lambda kernel, x, y: repsim.cka_from_gram(kernel.gram(x), kernel.gram(y)),
    "pairwise": lambda kernel, x, y: repsim.pairwise({"a": x, "b": y}, kernel=kernel),
    "permutation_test": lambda kernel, x, y: repsim.permutation_test(
        x, y, kernel=kernel, permutations=9
    ),
    "max_t": lambda kernel, x, y: repsim.max_t({"a": x}, {"b": y}, kernel=kernel, permutations=9),
    "jackknife": lambda kernel, x, y: repsim.jackknife(x, y, kernel=kernel),
    "cka_matrix": lambda kernel, x, y: repsim.cka_matrix({"a": x}, {"b": y}, kernel=kernel),
    "biased cka_matrix": lambda kernel, x, y: repsim.cka_matrix(
        {"a": x}, {"b": y}, kernel=kernel, estimator="biased"
    ),
    "MinibatchCKA": minibatch,
    "update_grams": lambda kernel, x, y: minibatch(kernel, x, y, how="update_grams"),
    "merge": lambda kernel, x, y: minibatch(kernel, x, y, how="merge"),
    "compare": of_models,
}


@pytest.mark.filterwarnings("ignore::repsim.ChanceWarning")
def test_every_way_into_a_gram_warns_of_few_digits():
    kernels = {
        "few": (RBF(sigma=1e3), Laplacian(sigma=1e5), Polynomial(degree=2, coef0=1e6)),
        "enough": (RBF(sigma=10.0), Laplacian(sigma=10.0), Polynomial(degree=2)),
    }
    x, y = tables()
    for digits, each in kernels.items():
        for kernel in each:
            for way, call in WAYS.items():
                told = warned(call, kernel, x, y)
                assert bool(told) is (digits == "few"), (way, kernel, told)


def test_digits_are_those_of_each_layer():
    """float64 beside float32; a batch that is constant has no digits and counts for none."""
    x, y = tables()
    acc = repsim.MinibatchCKA(kernel=RBF(sigma=5e3))
    acc.update({"narrow": x, "wide": x.astype(np.float64)}, {"wide": y.astype(np.float64)})
    (told,) = warned(acc.compute)
    assert "x 'narrow' differ" in told
    acc = repsim.MinibatchCKA(kernel=RBF(sigma=10.0))
    for rows in (np.zeros_like(x), x):
        acc.update({"a": rows})
    assert not warned(acc.compute)


def test_one_pair_of_near_samples_is_not_few_digits():
    """Nearly all entries are zero, with all of their digits."""
    x = 100 * np.random.default_rng(0).standard_normal((400, 5)).astype(np.float32)
    x[1] = x[0] + 0.5
    for estimator in ("biased", "unbiased"):
        assert not warned(repsim.cka_matrix, {"a": x}, kernel=RBF(sigma=0.5), estimator=estimator)


@pytest.mark.filterwarnings("ignore::repsim.ChanceWarning")
def test_digits_are_those_of_the_dtype_that_came_in():
    """A Gram of features at 3 standard deviations from zero has enough digits of float32."""
    x, y = (z + 3 * z.std() for z in related(60, 200, 200))
    k, l = x @ x.T, y @ y.T  # noqa: E741
    near = k + 1e8
    cases = [
        (torch.float16, k / 1e3, True),
        (torch.bfloat16, k, True),
        (torch.float32, k, False),
        (torch.float16, RBF().gram(x), False),
        (torch.float32, near, True),
        (torch.float64, near, False),
    ]
    for dtype, gram, few in cases:
        pair = torch.tensor(gram).to(dtype), torch.tensor(l)
        told = warned(repsim.cka_from_gram, *pair)
        assert len(told) == few, (dtype, told)
        assert all("Gram matrix of k differ" in each for each in told)
        acc = repsim.MinibatchCKA()
        acc.update_grams(dict(zip("kl", pair, strict=True)))
        assert len(warned(acc.compute)) == few, dtype
