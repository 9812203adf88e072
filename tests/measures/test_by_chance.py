"""The warning of values that independent data have too."""

import warnings

import numpy as np
import pytest

import repsim
from cases import each
from reference.data import related

pytestmark = pytest.mark.filterwarnings("error::repsim.ChanceWarning")

KERNELS = ("linear", "rbf", "laplacian", "polynomial", "cosine")


def noise(n, *widths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, p)) for p in widths]


def rounded(x, y, kernel="linear"):
    """What the warning says, from the public floor."""
    return round(float(repsim.chance_floor(x, y, kernel=kernel)), 1)


def floors(call):
    """The number in each warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert {w.category for w in caught} <= {repsim.ChanceWarning}
    assert all("/src/repsim/" not in w.filename for w in caught)
    return [float(str(w.message).split("is about ")[1].split()[0]) for w in caught]


@each("kernel", KERNELS)
@each(("n", "p", "q"), [(50, 500, 30), (60, 9, 8), (300, 25, 20)])
def test_cka_warns_with_the_floor(kernel, n, p, q):
    x, y = noise(n, p, q)
    expected = float(repsim.chance_floor(x, y, kernel=kernel))
    for function in (repsim.cka, repsim.angular_cka):
        found = floors(lambda f=function: f(x, y, kernel=kernel))
        assert found == ([round(expected, 1)] if expected > 0.1 else [])
        assert not floors(lambda f=function: f(x, y, kernel=kernel, estimator="unbiased"))


def test_every_framework(eager):
    arrays = noise(50, 500, 30)
    x, y = map(eager.array, arrays)
    for kernel in ("linear", "rbf"):
        expected = [rounded(*arrays, kernel)]
        assert floors(lambda k=kernel: repsim.cka(x, y, kernel=k)) == expected
    assert not floors(lambda: repsim.cka(x, y, estimator="unbiased"))


@each(("n", "p", "q"), [(2000, 600, 700), (1100, 1500, 1300)])
@each("dtype", ["float32", "float64"])
def test_the_floor_of_blocks(n, p, q, dtype):
    """With means, and of several blocks: the trace follows from the sums of the first reading."""
    x, y = ((30 + 1e-3 * z).astype(dtype) for z in noise(n, p, q))
    expected = rounded(x, y)
    assert expected > 0.1
    assert floors(lambda: repsim.cka(x, y)) == [expected]


@each("scale", [1e-200, 1e-20, 1e20, 1e150])
def test_the_floor_does_not_depend_on_the_scale(scale):
    x, y = noise(50, 500, 30)
    assert floors(lambda: repsim.cka(scale * x, y)) == [rounded(x, y)]
    outlier = y.copy()
    outlier[0] *= 1e3
    assert floors(lambda: repsim.cka(x, outlier)) == [rounded(x, outlier)]


def test_grams_and_sampled_features():
    x, y = noise(50, 500, 30)
    assert floors(lambda: repsim.cka_from_gram(x @ x.T, y @ y.T)) == [rounded(x, y)]
    assert not floors(lambda: repsim.cka_from_gram(x @ x.T, y @ y.T, estimator="unbiased"))
    assert floors(lambda: repsim.cka(x, y, features="sampled"))
    assert not floors(lambda: repsim.cka(x, y, given=y[:, :3]))


def test_the_remedy_is_in_the_text_and_python_shows_it_once():
    x, y = noise(50, 500, 30)
    with pytest.warns(repsim.ChanceWarning, match=r"cka: .*\n  Pass estimator='unbiased'"):
        repsim.cka(x, y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for row in range(5):
            repsim.cka(x[row:], y[row:])
    assert len(caught) == 1


def test_gradients_and_transforms_do_not_read_the_floor():
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z) for z in noise(30, 40, 20))
    expected = [rounded(x, y)]
    torch.func.grad(repsim.cka)(x, y)
    torch.vmap(repsim.cka, (0, None))(x[None], y)
    assert floors(lambda: repsim.cka(x.requires_grad_(), y)) == expected


@pytest.mark.slow
def test_a_gradient_of_jax():
    """Its numbers can be read one by one, and are not arrays."""
    jax = pytest.importorskip("jax")
    x, y = map(jax.numpy.asarray, noise(20, 9, 8))
    with pytest.warns(repsim.ChanceWarning):
        assert np.isfinite(jax.grad(repsim.cka)(x, y)).all()


def test_matrices_warn_once_of_the_worst_pair():
    x, y, z = noise(50, 500, 30, 3)

    def exact(kernel):
        layers = {"c": z, "b": y}, {"a": x}
        return lambda: repsim.cka_matrix(*layers, estimator="biased", kernel=kernel)

    for kernel in ("rbf", "laplacian", "cosine", "polynomial"):
        assert floors(exact(kernel)) == [rounded(x, y, kernel)], kernel
    for call in (
        lambda: repsim.pairwise({"a": x, "b": y, "c": z}, estimator="biased"),
        lambda: repsim.pairwise({"c": z, "b": y}, {"a": x, "c": z}, estimator="biased"),
        lambda: repsim.cka_matrix({"a": x, "b": y, "c": z}, estimator="biased"),
        lambda: streaming({"a": x, "b": y, "c": z}),
        lambda: streaming({"b": y, "c": z}, {"a": x + 30}),
    ):
        assert floors(call) == [rounded(x, y)]
        with pytest.warns(repsim.ChanceWarning, match="'(a|b)'.* with .*'(a|b)'"):
            call()
    assert not floors(lambda: repsim.pairwise({"a": x, "c": z}))
    assert not floors(lambda: repsim.cka_matrix({"a": x, "b": y}))
    assert not floors(lambda: repsim.pairwise({"c": z, "d": z[:, :2]}, estimator="biased"))
    assert not floors(lambda: repsim.pairwise({"a": x}, estimator="biased"))  # with itself


def streaming(*sides):
    sums = repsim.StreamingLinearCKA(estimator="biased")
    for rows in (slice(0, 20), slice(20, 50)):
        sums.update(*({name: x[rows] for name, x in side.items()} for side in sides))
    return sums.compute()


@each("kernel", ["linear", "rbf", "laplacian", "cosine"])
def test_the_floor_of_a_matrix_of_every_kernel(kernel):
    x, y = noise(40, 60, 50)
    expected = rounded(x, y, kernel)
    for size in (None, 7):
        options = {"kernel": kernel, "estimator": "biased", "block_size": size}
        assert floors(lambda o=options: repsim.cka_matrix({"a": x, "b": y}, **o)) == [expected]


def test_canonical_correlations_of_independent_data():
    """svcca keeps 250 of 255 directions and returns .98 of independent data."""
    x, y = noise(256, 2048, 2048)
    with pytest.warns(repsim.ChanceWarning, match="svcca: the mean squared .*1.0 here") as caught:
        assert float(repsim.svcca(x, y, variance=0.99)) > 0.97
    assert "directions=" in str(caught[0].message)
    a, b = noise(40, 8, 6)
    for function in (repsim.cca, repsim.pwcca, repsim.svcca):
        assert floors(lambda f=function: f(a, b)) == [0.2]
    assert floors(lambda: repsim.pairwise({"a": a, "b": b}, measure="cca")) == [0.2]


def test_canonical_correlations_above_chance():
    x, _ = related(60, 8, 8)
    close = x + 0.3 * noise(60, 8)[0]
    for function in (repsim.cca, repsim.pwcca, repsim.svcca):
        function(x, close)  # far above a floor of .14
        function(x[:, :3], noise(60, 3)[0])  # a floor of .05
    with pytest.warns(repsim.ChanceWarning):  # more than half would be chance
        repsim.cca(x[:12], close[:12])


@pytest.mark.slow
@each(("n", "p", "q"), [(40, 8, 6), (30, 10, 3)])
def test_false_alarms_and_the_variance_of_chance(n, p, q):
    """Independent data are found to be so, but for the share above three standard deviations."""
    warned = sum(bool(floors(lambda s=s: repsim.cca(*noise(n, p, q, seed=s)))) for s in range(300))
    assert 0.97 < warned / 300 < 1 or warned == 300
