"""Tests of the properties that the registry states, for each measure and framework."""

import dataclasses
import inspect
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import repsim
from cases import each
from repsim.measures import INVARIANCES, MEASURES, Measure, register, resolve_measure

SIDES = ("x", "y")
seeds = st.integers(0, 2**32 - 1)

# One shape, because jax compiles every operation for every shape. More samples than features and
# than neighbours; at least two features, because the cosine of one feature is only a sign.
N, P, Q = 24, 3, 4


def value(measure, x, y):
    return float(measure.function(x, y, **measure.preset))


@pytest.mark.parametrize("name", [name for name, each in MEASURES.items() if each.growth])
def test_a_sum_over_samples_grows_with_their_number(name):
    measure, (x, y, _) = MEASURES[name], pair(0)
    more = value(measure, *(np.repeat(z, 4, axis=0) for z in (x, y)))
    assert more == pytest.approx(4**measure.growth * value(measure, x, y))


def pair(seed, n=N, p=P, q=Q):
    """Two representations with something in common, means, and columns of different scale."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, max(p, q)))
    x, y = common[:, :p].copy(), common[:, :q].copy()
    for z in (x, y):
        z += 0.6 * rng.standard_normal(z.shape)
        z *= 2.0 ** rng.uniform(-1, 1, z.shape[1])
        z += rng.standard_normal(z.shape[1])
    return x, y, rng


def turn(x, rng):
    return np.linalg.qr(rng.standard_normal((x.shape[1], x.shape[1])))[0]


CHANGES = {
    "orthogonal": lambda x, rng: x @ turn(x, rng),
    "permutation": lambda x, rng: x[:, rng.permutation(x.shape[1])],
    "isotropic_scale": lambda x, rng: x * 2.0 ** rng.uniform(1, 4),
    "translation": lambda x, rng: x + 3 * rng.standard_normal(x.shape[1]),
    "invertible_linear": lambda x, rng: (
        x @ turn(x, rng) * np.geomspace(0.2, 5, x.shape[1]) @ turn(x, rng)
    ),
}
assert tuple(CHANGES) == INVARIANCES


def claimed(measure, side):
    on_y = side == "y" and measure.invariances_y is not None
    return measure.invariances_y if on_y else measure.invariances


def changes(measure, *, claim):
    """The sides and changes that the measure claims not to see, or those it does not."""
    return [(s, c) for s in SIDES for c in INVARIANCES if (c in claimed(measure, s)) == claim]


def moved(x, y, side, change, rng):
    arrays = {"x": x, "y": y}
    arrays[side] = CHANGES[change](arrays[side], rng)
    return arrays


def tolerance(measure):
    # A distance is the root of a difference of squares.
    return 1e-8 if measure.similarity else 1e-6


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=6)
@given(seed=seeds)
def test_it_does_not_see(name, seed):
    measure = MEASURES[name]
    x, y, rng = pair(seed)
    before = pytest.approx(value(measure, x, y), abs=tolerance(measure))
    for side, change in changes(measure, claim=True):
        after = value(measure, **moved(x, y, side, change, rng))
        assert after == before, f"{change} of {side}"


@pytest.mark.parametrize("name", MEASURES)
def test_it_sees(name):
    """Invariances that are not stated do not hold."""
    measure = MEASURES[name]
    pairs = [pair(seed) for seed in range(5)]
    before = [value(measure, x, y) for x, y, _ in pairs]
    for side, change in changes(measure, claim=False):
        after = [value(measure, **moved(x, y, side, change, rng)) for x, y, rng in pairs]
        seen = max(abs(a - b) for a, b in zip(after, before, strict=True))
        assert seen > 1e-3, f"{change} of {side}"


@pytest.mark.parametrize("name", MEASURES)
def test_the_invariances_on_each_framework(name, eager):
    measure = MEASURES[name]
    for seed in range(3):
        x, y, rng = pair(seed)
        before = eager.call(measure.function, x, y, **measure.preset)
        assert float(before) == pytest.approx(value(measure, x, y), rel=1e-9, abs=1e-12)
        for side in SIDES:
            changed = {"x": x, "y": y}
            for change in INVARIANCES:  # one after the other
                if change in claimed(measure, side):
                    changed = moved(**changed, side=side, change=change, rng=rng)
            now = eager.call(measure.function, *changed.values(), **measure.preset)
            assert float(now) == pytest.approx(float(before), abs=tolerance(measure)), side


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=10)
@given(seed=seeds)
def test_range_symmetry_and_itself(name, seed):
    measure = MEASURES[name]
    x, y, _ = pair(seed)
    low, high = measure.range
    out, back = value(measure, x, y), value(measure, y, x)
    for number in (out, back):
        assert low <= number <= high
    if measure.symmetric:
        assert back == pytest.approx(out, abs=1e-12 + tolerance(measure) * 1e-3)
    itself = value(measure, x, x)
    # The arccos of 1 + 1e-16 is NaN, and so is the root of one minus it.
    for equal in (itself, value(measure, x, np.concatenate([x, x], axis=1))):
        assert low <= equal <= high
    if measure.self_is_best:
        assert itself == pytest.approx(1.0 if measure.similarity else 0.0, abs=tolerance(measure))
        assert out < itself if measure.similarity else out > itself


@pytest.mark.parametrize("name", [name for name, m in MEASURES.items() if not m.symmetric])
def test_asymmetric_measures_depend_on_the_order(name):
    measure = MEASURES[name]
    gaps = [
        abs(value(measure, x, y) - value(measure, y, x)) for x, y, _ in (pair(s) for s in range(5))
    ]
    assert max(gaps) > 1e-4


@pytest.mark.parametrize("name", [name for name, m in MEASURES.items() if m.metric])
@settings(max_examples=15)
@given(seed=seeds, widths=st.permutations((2, 3, 5)))
def test_triangle_inequality(name, seed, widths):
    measure = MEASURES[name]
    assert measure.symmetric
    assert not measure.similarity
    x, y, rng = pair(seed, p=widths[0], q=widths[1])
    # Between the two, so the inequality is near an equality.
    z = np.pad(x, ((0, 0), (0, 3)))[:, :5] + np.pad(y, ((0, 0), (0, 3)))[:, :5]
    z = z[:, : widths[2]] + 0.1 * rng.standard_normal((N, widths[2]))
    sides = value(measure, x, z), value(measure, z, y), value(measure, x, y)
    for i in range(3):
        assert sides[i] <= sum(sides) - sides[i] + 1e-7


def test_only_dissimilarities_are_metrics():
    assert any(m.metric for m in MEASURES.values())
    for measure in MEASURES.values():
        assert not (measure.metric and (measure.similarity or not measure.symmetric))


@pytest.mark.parametrize("name", MEASURES)
def test_fewest_samples(name):
    measure = MEASURES[name]
    few = measure.minimum_samples
    options = measure.options("test", {})
    assert measure.fewest(**options)[0] == few
    x, y, _ = pair(0, n=few, p=2, q=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", repsim.DegenerateWarning)
        value(measure, x, y)
    with pytest.raises(repsim.InputError, match=rf"needs at least {few} samples") as caught:
        value(measure, x[:-1], y[:-1])
    assert str(caught.value).startswith(f"{measure.function.__name__}: ")


@pytest.mark.parametrize("name", MEASURES)
def test_the_result_is_at_home(name, eager):
    """A 0-d array of the caller's framework and device, in the precision of the input."""
    measure = MEASURES[name]
    x, y, _ = pair(3)
    expected = value(measure, x, y)
    for dtype, digits in (("float64", 1e-9), ("float32", 2e-4)):
        out = eager.call(measure.function, x.astype(dtype), y.astype(dtype), **measure.preset)
        assert eager.owns(out)
        assert tuple(out.shape) == ()
        assert eager.dtype(out) == dtype
        assert eager.device(out) == eager.device(eager.array(x))
        assert float(out) == pytest.approx(expected, abs=digits)


@pytest.mark.slow  # every operation is compiled a second time
@pytest.mark.parametrize("name", MEASURES)
def test_jax_without_float64(name):
    """Its default: every sum and every decomposition is float32 there."""
    jax = pytest.importorskip("jax")
    measure = MEASURES[name]
    x, y, _ = pair(3)
    x, y = x.astype(np.float32), y.astype(np.float32)
    out = measure.function(jax.numpy.asarray(x), jax.numpy.asarray(y), **measure.preset)
    assert out.dtype == np.float32
    assert float(out) == pytest.approx(value(measure, x.astype(float), y.astype(float)), abs=2e-4)


@pytest.mark.parametrize("name", MEASURES)
def test_half_precision_and_integers(name):
    measure = MEASURES[name]
    x, y, _ = pair(3)
    for dtype, result in (("float16", "float32"), ("int64", "float64")):
        a, b = (np.rint(8 * z).astype(dtype) for z in (x, y))
        out = measure.function(a, b, **measure.preset)
        assert out.dtype == result
        expected = value(measure, a.astype(float), b.astype(float))
        # Ranks jump where two distances are equal but for their rounding.
        assert float(out) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("name", [name for name, m in MEASURES.items() if m.differentiable])
def test_under_jit_and_grad(name):
    jax = pytest.importorskip("jax")
    measure = MEASURES[name]
    x, y, _ = pair(3)
    with jax.enable_x64(True):
        apply = jax.jit(jax.value_and_grad(lambda a, b: measure.function(a, b, **measure.preset)))
        out, gradient = apply(x, y)
        assert float(out) == pytest.approx(value(measure, x, y), rel=1e-9)
    step = 1e-5 * np.random.default_rng(0).standard_normal(x.shape)
    slope = (value(measure, x + step, y) - value(measure, x - step, y)) / 2
    assert np.sum(np.asarray(gradient) * step) == pytest.approx(slope, rel=1e-5, abs=1e-11)


CONSTANT = np.tile([0.1, 0.3, 7.7], (N, 1))


@pytest.mark.parametrize("name", MEASURES)
def test_a_constant(name, eager):
    measure = MEASURES[name]
    operation = measure.function.__name__
    _, y, _ = pair(3, q=P)
    flat, varied = eager.array(CONSTANT), eager.array(y)
    for arrays, side in (((flat, varied), "x"), ((varied, flat), "y")):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            out = value(measure, *arrays)
        if measure.defined_for_constant:
            assert not caught
            assert np.isfinite(out)
            continue
        assert np.isnan(out)
        assert [w.category for w in caught] == [repsim.DegenerateWarning]
        assert str(caught[0].message).startswith(f"{operation}: {side} ")
        assert caught[0].filename == __file__


def degenerate_cases():
    x, y, rng = pair(5)
    duplicated = x.copy()
    duplicated[1::2] = duplicated[::2]
    yield "half of the rows duplicates", duplicated, y
    repeated = np.repeat(x[:2], N // 2, axis=0)
    yield "two distinct rows", repeated, y
    lone = np.tile(x[:1], (N, 1))
    lone[7] += 1
    yield "one row unlike the others", lone, y
    yield "a constant column", np.concatenate([x, np.full((N, 1), 0.1)], axis=1), y
    yield "a duplicated column", np.concatenate([x, x[:, :1]], axis=1), y
    yield "rank one", x[:, :1] * [[1.0, 2.0, -3.0]], y
    yield "one feature", x[:, :1], y
    yield "one feature of each", x[:, :1], y[:, 1:2]
    yield "as many features as samples", rng.standard_normal((N, N)), y
    yield "more features than samples", rng.standard_normal((N, 40)), rng.standard_normal((N, 50))
    yield "rows of zeros", np.where(np.arange(N)[:, None] < 4, 0.0, x), y
    yield "all zeros", np.zeros_like(x), y
    yield "far from the origin", x + 1e7, y
    yield "tiny", 1e-15 * x, y
    yield "huge", 1e15 * x, y


CASES = {case: (x, y) for case, x, y in degenerate_cases()}


@each("case", CASES)
@pytest.mark.parametrize("name", MEASURES)
def test_never_a_number_without_a_meaning(name, case):
    """A value in its range, or NaN and a warning that names the side, or an error of ours."""
    measure = MEASURES[name]
    for side in SIDES:
        x, y = CASES[case] if side == "x" else CASES[case][::-1]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", repsim.ChanceWarning)
            message = ""
            try:
                out = value(measure, x, y)
            except repsim.InputError as error:
                message = str(error)
        if message:
            assert "\n" in message  # what came, and what to do about it
            continue
        assert {w.category for w in caught} <= {repsim.DegenerateWarning}
        assert np.isnan(out) == bool(caught), (out, [str(w.message) for w in caught])
        if not caught:
            assert measure.range[0] - 1e-9 <= out <= measure.range[1] + 1e-9


@pytest.mark.parametrize("name", MEASURES)
def test_declared_invariance_to_scale_holds_at_extreme_scales(name):
    measure = MEASURES[name]
    if "isotropic_scale" not in measure.invariances:
        pytest.skip("it depends on the scale")
    x, y, _ = pair(5)
    expected = value(measure, x, y)
    for scale in (1e-15, 1e15):
        assert value(measure, scale * x, y) == pytest.approx(expected, abs=1e-7)
    x, y = (z.astype(np.float32) for z in (x, y))
    for scale in (1e-8, 1e8):
        out = value(measure, np.float32(scale) * x, y)
        assert out == pytest.approx(expected, abs=2e-3 if not measure.differentiable else 1e-5)


FEATURE_BY_FEATURE = {
    *("correlation_match", "correlation_match_soft", "predictivity", "predictivity_pls"),
    *("rsa_correlation", "soft_matching", "soft_matching_correlation"),
}
"""A feature that is zero everywhere has a partner, a score or a share of the mean of a row."""


def test_a_dead_feature_changes_no_measure_of_whole_samples():
    x, y, _ = pair(3, q=P)
    dead_x, dead_y = (np.concatenate([z, np.zeros((N, 1))], axis=1) for z in (x, y))
    changed = set()
    for name, measure in MEASURES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", repsim.DegenerateWarning)
            before, after = value(measure, x, y), value(measure, dead_x, dead_y)
        if not math.isclose(after, before, rel_tol=1e-9, abs_tol=1e-9):
            changed.add(name)
    assert changed == FEATURE_BY_FEATURE


@pytest.mark.parametrize("name", MEASURES)
def test_means_of_float32(name):
    """The values of the data after their rounding to float32."""
    measure = MEASURES[name]
    if "translation" not in measure.invariances:
        pytest.skip("it depends on the mean")
    x, y, _ = pair(5)
    x, y = (x + 300).astype(np.float32), (y - 30).astype(np.float32)
    expected = value(measure, x.astype(float), y.astype(float))
    assert value(measure, x, y) == pytest.approx(expected, rel=2e-4, abs=1e-5)


@pytest.mark.parametrize("name", MEASURES)
def test_the_inputs_stay_as_they_are(name):
    measure = MEASURES[name]
    x, y, _ = pair(5)
    a, b = x.copy(), y.copy()
    a.flags.writeable = b.flags.writeable = False
    value(measure, a, b)
    np.testing.assert_array_equal(a, x)
    np.testing.assert_array_equal(b, y)


@pytest.mark.parametrize("name", MEASURES)
def test_the_entry(name):
    measure = MEASURES[name]
    assert measure.name == name
    assert measure.family
    assert measure.cost
    assert measure.reference
    assert measure.range[0] < measure.range[1]
    assert measure.minimum_samples >= 2
    function = measure.function
    assert getattr(repsim, function.__name__) is function
    assert function.__name__ in MEASURES
    parameters = list(inspect.signature(function).parameters.values())
    assert [p.name for p in parameters[:2]] == ["x", "y"]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters[2:])
    for section in ("Parameters", "Returns", "Raises", "Notes", "References"):
        assert f"\n{section}\n{'-' * len(section)}\n" in inspect.getdoc(function), section


OWN = """
import math, warnings
import numpy as np
import repsim
from repsim.measures import INVARIANCES, Measure, evaluate, register, resolve_measure, undefined

def prepare(operation, x, *, name, weight):
    undefined(operation, name, x[0, 0] > 1e6, "is larger than a million")
    return x.shape[1], x

def compare(x, y, *, weight):
    return np.asarray(weight * abs(x[0] - y[0]), dtype=x[1].dtype)

def width(x, y, *, weight=1.0):
    return evaluate("width", x, y, weight=weight)

entry = register(Measure(
    name="width", family="test", function=width, range=(0.0, math.inf), similarity=False,
    metric=False, symmetric=True, invariances=frozenset(INVARIANCES), minimum_samples=5,
    cost="O(1)", reference="none", prepare=prepare, compare=compare,
))
x, y = np.zeros((24, 3)), np.ones((24, 4))
assert resolve_measure("test", "width") is entry
assert float(width(x, y)) == 1
assert float(width(x, y, weight=3.0)) == 3
try:
    width(x[:4], y[:4])
except repsim.InputError as error:
    assert "width: width needs at least 5 samples" in str(error)
else:
    raise AssertionError("four samples were taken")
assert repsim.pairwise({"a": x}, {"b": y}, measure="width", weight=2.0).item() == 2
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    width(x, y + 1e7)
assert [w.category for w in caught] == [repsim.DegenerateWarning]
assert "width: y is larger than a million, so" in str(caught[0].message)
"""


def test_a_new_measure():
    """The steps of CONTRIBUTING.md, for the difference in the number of features.

    It runs in a new process, because a registered measure stays registered.
    """
    run = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_an_entry_is_checked():
    mine = dataclasses.replace(MEASURES["nbs"], name="mine")
    assert resolve_measure("test", mine) is mine
    assert "mine" not in MEASURES
    assert repr(mine) == "<Measure 'mine': shape, a similarity from 0 to 1>"
    with pytest.raises(
        repsim.InputError, match="unknown invariances of 'mine'.*\n.*\n.*'rotation'"
    ):
        dataclasses.replace(mine, invariances=frozenset({"rotation"}))
    with pytest.raises(repsim.InputError, match="unknown options for measure 'mine'"):
        dataclasses.replace(mine, preset={"k": 3})


def test_a_name_is_taken_once():
    with pytest.raises(repsim.InputError, match=r"register: there is a measure 'cka' already"):
        register(dataclasses.replace(MEASURES["nbs"], name="cka"))
    with pytest.raises(TypeError):
        MEASURES["new"] = MEASURES["cka"]
    assert MEASURES["cka"].function is repsim.cka
    # A module that is loaded again registers its entry again.
    assert register(MEASURES["cka"]) is MEASURES["cka"]


@each("bad", ["CKA", "", None, 3, repsim.cka, ["cka"]])
def test_unknown_measures_are_listed(bad):
    with pytest.raises(
        repsim.InputError, match=r"test: unknown measure.\n.*'hsic', 'cka'.*\n.*got"
    ):
        resolve_measure("test", bad)


def test_options_are_the_given_the_preset_and_the_defaults():
    measure = MEASURES["normalised_procrustes"]
    assert isinstance(measure, Measure)
    assert measure.options("test", {}) == {"norm": "unit"}
    assert measure.options("test", {"norm": "none"}) == {"norm": "none"}
    assert MEASURES["procrustes"].options("test", {}) == {"norm": "none"}
    with pytest.raises(repsim.InputError, match=r"test: unknown options.*'procrustes'.*\n.*'norm'"):
        measure_options = MEASURES["procrustes"].options
        measure_options("test", {"scale": 1})


def test_the_needs_of_options():
    options = MEASURES["cka"].options("test", {"estimator": "unbiased"})
    assert MEASURES["cka"].fewest(**options) == (4, "the unbiased estimator")
    assert math.isfinite(value(MEASURES["cka"], *pair(0)[:2]))


@pytest.mark.parametrize("name", [name for name in MEASURES if MEASURES[name].reorder])
def test_a_reordered_item_is_that_of_the_reordered_samples(name):
    measure = MEASURES[name]
    has_k = "k" in measure.options("test", {})
    options = measure.options("test", {"k": 4} if has_k else {})
    rng = np.random.default_rng(0)
    with_ties = rng.integers(0, 3, (2, 30, 5)) + np.arange(5) / 8
    for data in (rng.standard_normal((2, 30, 5)), with_ties):
        x, y = (measure.prepare("test", z, name="z", **options) for z in data)
        for _ in range(3):
            order = rng.permutation(30)
            again = measure.prepare("test", data[1][order], name="y", **options)
            moved = measure.reorder(y, order)
            value = measure.compare(x, moved, **options)
            assert value == pytest.approx(measure.compare(x, again, **options), rel=1e-10)
            back = measure.reorder(moved, np.argsort(order))
            same = measure.compare(y, y, **options)
            assert measure.compare(y, back, **options) == pytest.approx(same, abs=1e-12)


@pytest.mark.parametrize("name", [name for name in MEASURES if MEASURES[name].compare_with_all])
def test_all_items_at_once_have_the_values_of_each(name):
    measure = MEASURES[name]
    options = measure.options("test", {"k": 4})
    rng = np.random.default_rng(0)
    items = [
        measure.prepare("test", rng.standard_normal((30, p)), name="x", **options)
        for p in (3, 5, 8)
    ]

    def tied(levels):
        data = rng.integers(0, levels, (30, 4)) + rng.random(4)
        return measure.prepare("test", data, name="x", **options)

    items += [tied(2), tied(3), tied(5)]
    with_all = measure.compare_with_all(items, **options)
    for other in (*items, tied(2), tied(4)):
        expected = [float(measure.compare(each, other, **options)) for each in items]
        np.testing.assert_allclose(with_all(other), expected, rtol=1e-12)
    same = np.eye(30) + 1  # all samples are equally far from each other
    with pytest.warns(repsim.DegenerateWarning):
        undefined = measure.prepare("test", same, name="x", **options)
    assert with_all(undefined) is None
    assert measure.compare_with_all([*items, undefined], **options) is None
