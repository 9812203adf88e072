"""Outputs of two models: Jensen–Shannon divergence, and disagreement with what accuracies allow."""

import itertools
import math

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax, softmax

import repsim
from cases import each
from measures.checks import half, lives_with_its_inputs, refuses, right_gradient, same_gradient


def outputs(n=40, classes=5, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, classes))
    return tuple(scale * (common + rng.standard_normal((n, classes))) for _ in range(2))


def divergence(p, q):
    return np.mean([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])


@each("dtype", ["float32", "float64"])
def test_jensen_shannon(backend, dtype):
    if backend.compiled and dtype == "float32":
        pytest.skip("compiling each takes a second; eager jax covers the dtypes")
    x, y = (z.astype(dtype) for z in outputs())
    p, q = (softmax(z.astype(float), axis=1) for z in (x, y))
    rtol = {"float32": 1e-5, "float64": 1e-11}[dtype]
    lives_with_its_inputs(backend, repsim.jensen_shannon, x, y, divergence(p, q), rtol)
    p, q = p.astype(dtype), q.astype(dtype)
    lives_with_its_inputs(
        backend, repsim.jensen_shannon, p, q, divergence(p, q), rtol, values="probabilities"
    )


def test_logits_have_a_constant_to_spare_and_logarithms_of_probabilities_are_logits():
    x, y = outputs()
    expected = float(repsim.jensen_shannon(x, y))
    assert float(repsim.jensen_shannon(x + 1e3, y - 1e3)) == pytest.approx(expected, abs=1e-12)
    logs = log_softmax(x, axis=1), log_softmax(y, axis=1)
    assert float(repsim.jensen_shannon(*logs)) == pytest.approx(expected, abs=1e-14)
    assert float(repsim.jensen_shannon(y, x)) == pytest.approx(expected, abs=1e-14)


def test_the_ends_of_the_range():
    x, _ = outputs()
    assert float(repsim.jensen_shannon(x, x)) == 0
    far = 1e4 * np.eye(3)
    assert float(repsim.jensen_shannon(far, far[[1, 2, 0]])) == pytest.approx(
        math.log(2), abs=1e-12
    )
    one = np.eye(3)
    out = repsim.jensen_shannon(one, one[[1, 2, 0]], values="probabilities")
    assert float(out) == pytest.approx(math.log(2), abs=1e-15)


def test_nearly_equal_distributions_keep_their_digits():
    """JS is the mean of δ²/(8p) to second order; a difference of logarithms would be rounding."""
    x = np.zeros((1, 4))
    y = x + 1e-7 * np.array([1.0, -1, 2, -2])
    p, q = (softmax(z.astype(np.longdouble), axis=1) for z in (x, y))
    expected = float(((p - q) ** 2 / (8 * p)).sum())
    assert float(repsim.jensen_shannon(x, y)) == pytest.approx(expected, rel=1e-6)


def test_gradients_and_half_precision():
    x, y = outputs(6, 4)
    same_gradient(repsim.jensen_shannon, x, y)
    p, q = (softmax(z, axis=1) for z in (x, y))
    right_gradient(lambda a, b: repsim.jensen_shannon(a.log(), b.log()), p, q)
    half(
        repsim.jensen_shannon, x, y,
        lambda a, b: divergence(softmax(a, axis=1), softmax(b, axis=1)), 1e-5,
    )  # fmt: skip
    # In half precision, the probabilities of a sample sum to 1 up to 2⁻⁸.
    half(repsim.jensen_shannon, p, q, divergence, 1e-5, values="probabilities")


def test_disagreement(backend):
    x, y = outputs()
    expected = np.mean(x.argmax(1) != y.argmax(1))
    assert 0 < expected < 1
    lives_with_its_inputs(backend, repsim.disagreement, x, y, expected, 1e-12)
    labels = np.random.default_rng(1).integers(0, 5, 40)
    e_x, e_y = (np.mean(z.argmax(1) != labels) for z in (x, y))
    low, high = abs(e_x - e_y), min(e_x + e_y, 1)
    lives_with_its_inputs(
        backend, repsim.disagreement, x, y, (expected - low) / (high - low), 1e-9, labels=labels
    )


@each("classes", [2, 3])
def test_the_bounds_are_those_of_all_models_of_these_accuracies(classes):
    """By trying all answers of y to four samples, for every number of errors of each."""
    labels = np.zeros(4, int)
    answers = [np.array(a) for a in itertools.product(range(classes), repeat=4)]
    for wrong_x, wrong_y in itertools.product(range(1, 4), repeat=2):
        values = [
            float(repsim.disagreement(np.eye(classes)[a], np.eye(classes)[b], labels=labels))
            for a, b in itertools.product(answers, answers[:: 1 if classes == 2 else 2])
            if (a != 0).sum() == wrong_x and (b != 0).sum() == wrong_y
        ]
        assert min(values) == pytest.approx(0, abs=1e-12)
        assert max(values) <= 1 + 1e-12
        if classes == 2:
            assert max(values) == pytest.approx(1)


def test_accuracies_that_allow_one_disagreement_alone():
    x, y = np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 1, 2, 1]]
    with pytest.warns(repsim.DegenerateWarning, match=r"disagreement: x and y .* NaN"):
        assert np.isnan(repsim.disagreement(x, y, labels=[0, 1, 2, 0]))
    assert float(repsim.disagreement(x, y)) == 0.25


def test_labels_of_other_frameworks():
    torch = pytest.importorskip("torch")
    x, y = (torch.tensor(z) for z in outputs())
    labels = torch.arange(40) % 5
    expected = repsim.disagreement(x.numpy(), y.numpy(), labels=labels.tolist())
    assert float(repsim.disagreement(x, y, labels=labels)) == pytest.approx(float(expected))


def test_errors():
    x, y = outputs()
    for function in (repsim.jensen_shannon, repsim.disagreement):
        name = function.__name__
        with refuses(repsim.InputError, f"{name}: x and y must have the same classes", "K=4"):
            function(x, y[:, :4])
        with refuses(repsim.InputError, f"{name}: x must hold one row", "(n, K)", "(2, 20, 5)"):
            function(x.reshape(2, 20, 5), y.reshape(2, 20, 5))
        with refuses(repsim.InputError, "K ≥ 2"):
            function(x[:, :1], y[:, :1])
        with refuses(repsim.InputError, "same samples"):
            function(x, y[:-1])
    with refuses(repsim.InputError, "x must hold probabilities", "logits"):
        repsim.jensen_shannon(x, y, values="probabilities")
    with refuses(repsim.InputError, "y must hold probabilities", "2"):
        repsim.jensen_shannon(softmax(x, axis=1), 2 * softmax(y, axis=1), values="probabilities")
    with refuses(repsim.InputError, "unknown values", "'logits'"):
        repsim.jensen_shannon(x, y, values="odds")
    for labels in ([0] * 39, [5] * 40, [-1] * 40, [0.5] * 40, "cat", [[0], [1, 2]]):
        with refuses(
            repsim.InputError, "disagreement: labels must be n=40 class numbers", "0 to 4"
        ):
            repsim.disagreement(x, y, labels=labels)
