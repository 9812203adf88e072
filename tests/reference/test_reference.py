"""The references agree with one another and with the published numbers: they judge the rest."""

import math

import numpy as np
import pytest

from reference import hsic, kernels, minibatch
from reference.data import kornblith_demo, oracle


def test_oracle_data():
    x, y = oracle()
    np.testing.assert_allclose(
        [x.sum(), y.sum()], [-3.64459499275931, 1.04980705226922], rtol=1e-13
    )


def test_hsic_of_the_oracle():
    k, l = map(kernels.linear, oracle())  # noqa: E741
    assert hsic.biased_matrices(k, l) * 81 == pytest.approx(165.56273126145, rel=1e-12)
    assert hsic.biased_matrices(k, l) == pytest.approx(2.0439843365611, rel=1e-12)
    assert hsic.biased_loops(k, l) == pytest.approx(2.0439843365611, rel=1e-12)
    assert hsic.unbiased_song(k, l) == pytest.approx(1.309118067819, rel=1e-12)
    assert hsic.unbiased_tuples(k, l) == pytest.approx(1.309118067819, rel=1e-12)


@pytest.mark.parametrize("n", [4, 5, 6])
def test_song_is_the_mean_over_distinct_tuples(n):
    rng = np.random.default_rng(n)
    k, l = (kernels.rbf(rng.standard_normal((n, 2))) for _ in range(2))  # noqa: E741
    assert hsic.unbiased_song(k, l) == pytest.approx(hsic.unbiased_tuples(k, l), abs=1e-14)
    product = (hsic.u_centred(k) * hsic.u_centred(l)).sum() / (n * (n - 3))
    assert product == pytest.approx(hsic.unbiased_tuples(k, l), abs=1e-14)


def test_kornblith_demo():
    x, y = kornblith_demo()
    k, l = kernels.linear(x), kernels.linear(y)  # noqa: E741
    assert hsic.cka(k, l) == pytest.approx(0.557613256612, abs=1e-12)
    assert hsic.cka(k, l, "unbiased") == pytest.approx(0.513456489506, abs=1e-12)
    half = hsic.cka(kernels.rbf(x, 0.5), kernels.rbf(y, 0.5))
    assert half == pytest.approx(0.654831182261, abs=1e-12)


def test_minibatch_of_the_oracle():
    x, y = oracle()
    batches = [x[:4], x[4:]], [y[:4], y[4:]]
    value = minibatch.minibatch_cka(*batches)
    assert value == pytest.approx(0.57384734973695, rel=1e-12)
    uniform = minibatch.minibatch_cka(*batches, weight=lambda n: 1)
    assert uniform == pytest.approx(0.57328840948304, rel=1e-12)
    by_n = minibatch.minibatch_cka(*batches, weight=lambda n: n)
    assert by_n == pytest.approx(0.57275167853463, rel=1e-12)
    short = [*batches[0], x[:3]], [*batches[1], y[:3]]
    assert minibatch.minibatch_cka(*short) == value


def test_jackknife_of_two_batches_is_half_their_difference():
    # k = 2: sqrt(1/2 * 2 * ((a - b)/2)^2) = |a - b|/2
    x, y = oracle()
    a = minibatch.minibatch_cka([x[:5]], [y[:5]])
    b = minibatch.minibatch_cka([x[5:]], [y[5:]])
    error = minibatch.jackknife_standard_error([x[:5], x[5:]], [y[:5], y[5:]])
    assert error == pytest.approx(math.fabs(a - b) / 2, rel=1e-12)
