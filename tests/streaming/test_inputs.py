"""Refused and skipped batches; neither changes the sums so far."""

import numpy as np
import pytest

import repsim
from repsim import ArrayTypeError, InputError, MinibatchCKA, NonFiniteError, StateError
from streaming.batches import accumulate, data, loops, named, same_state, split

KERNELS = ["linear", "rbf", "laplacian", "polynomial", "cosine"]


@pytest.fixture
def started():
    xs, ys = (split(side, [8, 8]) for side in data(16))
    return accumulate(xs, ys)


def refused(acc, error, says, xs, ys=None, method="update"):
    """The call is refused, and the accumulator is as it was before."""
    before = acc.state_dict()
    with pytest.raises(error, match=says) as caught, np.errstate(all="ignore"):
        getattr(acc, method)(xs, ys)
    assert f"MinibatchCKA.{method}" in str(caught.value)
    assert same_state(acc.state_dict(), before)
    return str(caught.value)


@pytest.mark.parametrize("method", ["update", "update_grams"])
@pytest.mark.parametrize("empty", [False, True], ids=["later", "first"])
class TestMappings:
    def acc(self, empty, method):
        acc = MinibatchCKA()
        if not empty:
            getattr(acc, method)(*self.sides())
        return acc

    def sides(self, n=8):
        """Square arrays, which both methods take."""
        rng = np.random.default_rng(0)
        k, l, m = (v @ v.T for v in rng.standard_normal((3, n, 4)))  # noqa: E741
        return {"a": k, "b": l}, {"c": m}

    @pytest.mark.parametrize("what", ["array", "list", "tuple", "strings", "none"])
    def test_not_a_mapping(self, method, empty, what):
        xs, ys = self.sides()
        wrong = {"array": xs["a"], "list": [xs["a"]], "tuple": tuple(xs.values()),
                 "strings": "ab", "none": None}[what]  # fmt: skip
        refused(self.acc(empty, method), InputError, "xs must map", wrong, ys, method)
        if what != "none":
            refused(self.acc(empty, method), InputError, "ys must map", xs, wrong, method)

    def test_no_layers(self, method, empty):
        xs, ys = self.sides()
        refused(self.acc(empty, method), InputError, "no layers in xs", {}, ys, method)
        refused(self.acc(empty, method), InputError, "no layers in ys", xs, {}, method)

    @pytest.mark.parametrize("value", [[[1.0, 2.0], [3.0, 4.0]], 3.0, "x", None])
    def test_not_arrays(self, method, empty, value):
        xs, ys = self.sides()
        says = refused(
            self.acc(empty, method),
            ArrayTypeError,
            "must be an array",
            {**xs, "b": value},
            ys,
            method,
        )
        assert "xs['b']" in says

    def test_different_n(self, method, empty):
        xs, ys = self.sides()
        other, other_y = self.sides(9)
        says = refused(
            self.acc(empty, method), InputError, "same samples", {**xs, "b": other["b"]}, ys, method
        )
        assert "xs['b']" in says
        assert "n=8" in says
        assert "n=9" in says
        says = refused(self.acc(empty, method), InputError, "same samples", xs, other_y, method)
        assert "ys['c']" in says

    def test_mixed_frameworks(self, method, empty):
        torch = pytest.importorskip("torch")
        xs, ys = self.sides()
        refused(
            self.acc(empty, method), ArrayTypeError, "one framework",
            {**xs, "b": torch.tensor(xs["b"])}, ys, method,
        )  # fmt: skip
        refused(
            self.acc(empty, method), ArrayTypeError, "one framework",
            xs, named(torch.tensor, ys), method,
        )  # fmt: skip

    def test_mixed_devices(self, method, empty):
        torch = pytest.importorskip("torch")
        xs, ys = (named(torch.tensor, side) for side in self.sides())
        acc = self.acc(empty, method)
        refused(acc, ArrayTypeError, "one device", {**xs, "b": xs["b"].to("meta")}, ys, method)
        # Each side agrees with itself; "meta" alone has no values to compare.
        refused(acc, ArrayTypeError, "no values", xs, {"c": ys["c"].to("meta")}, method)


@pytest.mark.parametrize("method", ["update", "update_grams"])
def test_other_layers_in_a_later_batch(method):
    rng = np.random.default_rng(0)
    a, b, c = (v @ v.T for v in rng.standard_normal((3, 8, 4)))
    acc = MinibatchCKA()
    getattr(acc, method)({"a": a, "b": b}, {"c": c})
    says = refused(acc, InputError, "layers of the first batch", {"a": a}, {"c": c}, method)
    assert "missing: ['b']" in says
    says = refused(
        acc, InputError, "layers of the first batch", {"a": a, "b": b, "d": c}, {"c": c}, method
    )
    assert "new: ['d']" in says
    says = refused(acc, InputError, "ys must", {"a": a, "b": b}, {"C": c}, method)
    assert "missing: ['c']" in says
    assert "new: ['C']" in says
    refused(acc, InputError, "ys was left out", {"a": a, "b": b}, None, method)
    itself = MinibatchCKA()
    getattr(itself, method)({"a": a, "b": b})
    refused(itself, InputError, "ys was given", {"a": a, "b": b}, {"c": c}, method)


@pytest.mark.parametrize(
    ("shape", "says"),
    [((8,), "samples by features"), ((), "samples by features"), ((8, 0), "empty")],
)
def test_shapes_that_are_no_samples(started, shape, says):
    xs, ys = data(8)
    text = refused(started, InputError, says, {**xs, "norm": np.ones(shape)}, ys)
    assert "xs['norm']" in text


def test_complex(started):
    xs, ys = data(8)
    refused(started, ArrayTypeError, "must be real", {**xs, "fc": xs["fc"] * 1j}, ys)


def test_grams_that_are_not_square(started):
    k = {name: np.eye(8) for name in ("conv", "norm", "fc")}
    l = {name: np.eye(8) for name in ("patch", "block")}  # noqa: E741
    for wrong in (np.ones((8, 3)), np.ones(8), np.ones((2, 8, 8))):
        says = refused(
            started, InputError, "must be a Gram matrix", {**k, "fc": wrong}, l, "update_grams"
        )
        assert "xs['fc']" in says
        refused(
            started, InputError, "must be a Gram matrix", k, {**l, "block": wrong}, "update_grams"
        )


@pytest.mark.parametrize("kernel", ["gaussian", RuntimeError, None, 3, repsim.kernels.RBF])
def test_unknown_kernels(kernel):
    with pytest.raises(InputError, match="MinibatchCKA: unknown kernel"):
        MinibatchCKA(kernel=kernel)


def test_a_refused_first_batch_leaves_no_trace():
    """A skipped batch must fix neither the layers nor the bandwidths."""
    xs, ys = data(8)
    for kernel in KERNELS:
        expected = accumulate([ys], kernel=kernel).compute()
        acc = MinibatchCKA(kernel=kernel)
        bad = {**xs, "patch": xs["fc"].copy()}
        bad["patch"][0, 0] = np.nan
        refused(acc, NonFiniteError, "finite", bad, {"other": xs["conv"]})
        acc.update(ys)
        assert acc.compute().identical(expected), kernel


# Short batches


@pytest.mark.parametrize("method", ["update", "update_grams"])
def test_short_batches_are_left_out_counted_and_reported_once(method):
    xs, ys = (split(side, [6, 3, 7, 1, 2]) for side in data(19))
    if method == "update_grams":
        xs, ys = ([{k: v @ v.T for k, v in b.items()} for b in side] for side in (xs, ys))
    acc = MinibatchCKA()
    for x, y in zip(xs, ys, strict=True):
        getattr(acc, method)(x, y)
    assert (acc.n_batches, acc.n_samples) == (2, 13)
    assert (acc.n_skipped_batches, acc.n_skipped_samples) == (3, 6)
    with pytest.warns(repsim.RepsimWarning) as caught:
        result = acc.compute()
    assert len(caught) == 1
    assert "3 batch(es) of fewer than 4 samples (6 samples in all)" in str(caught[0].message)
    assert caught[0].filename == __file__
    assert result.attrs["n_skipped_batches"] == 3
    assert result.attrs["n_skipped_samples"] == 6
    if method == "update":
        np.testing.assert_allclose(result.values, loops(xs, ys), rtol=1e-11)


def test_only_short_batches():
    acc = accumulate([data(3)[0], data(2)[0]])
    with pytest.raises(StateError) as caught:
        acc.compute()
    assert "shorter ones: 2" in str(caught.value)
    with pytest.raises(StateError):
        acc.standard_error()
    with pytest.raises(StateError, match="nothing to compute from"):
        MinibatchCKA().compute()


# NaN and infinity


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["x", "y", "itself"])
def test_non_finite_names_layer_and_batch_and_keeps_the_rest(kernel, value, side):
    xs, ys = (split(s, [8, 2, 7, 6]) for s in data(23))
    two = side != "itself"
    acc = accumulate(xs[:3], ys[:3] if two else None, kernel)
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        expected = acc.compute()
    layer = "block" if side == "y" else "norm"
    bad = (ys if side == "y" else xs)[3]
    good = bad[layer].copy()
    bad[layer] = good.copy()
    bad[layer][2, 1] = value
    says = refused(acc, NonFiniteError, "finite", xs[3], ys[3] if two else None)
    assert f"'{layer}'" in says
    assert "1 layer(s)" in says
    assert "batch 3" in says  # the short one counts: it is the place in the stream
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        assert acc.compute().identical(expected)
    bad[layer] = good
    acc.update(xs[3], ys[3] if two else None)
    with pytest.warns(repsim.RepsimWarning, match="fewer than 4"):
        np.testing.assert_array_equal(
            acc.compute().values, accumulate(xs, ys if two else None, kernel).compute().values
        )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_in_every_framework(eager, kernel, value):
    xs, ys = (split(s, [8, 8]) for s in data(16, dtype="float32"))
    for first in (False, True):
        acc = accumulate(xs[:1], ys[:1], kernel, eager.array)
        if first:
            acc.reset()
        bad = {**ys[1], "block": ys[1]["block"].copy()}
        bad["block"][0, 0] = value
        with (
            pytest.raises(NonFiniteError, match="'block'"),
            np.errstate(all="ignore"),
        ):
            acc.update(named(eager.array, xs[1]), named(eager.array, bad))


def test_non_finite_grams(started):
    k = {name: np.eye(8) for name in ("conv", "norm", "fc")}
    l = {name: np.eye(8) for name in ("patch", "block")}  # noqa: E741
    for i, j in ((0, 1), (3, 3)):
        if i == j:
            continue  # the diagonal is not looked at by an unbiased estimate
        wrong = np.eye(8)
        wrong[i, j] = wrong[j, i] = np.nan
        says = refused(started, NonFiniteError, "finite", {**k, "fc": wrong}, l, "update_grams")
        assert "'fc'" in says


def test_many_layers_are_not_all_listed():
    bad = {f"layer{i}": np.full((6, 2), np.nan) for i in range(30)}
    says = refused(MinibatchCKA(), NonFiniteError, "30 layer", bad)
    assert "'layer7', ..." in says
    assert "layer8" not in says


def test_half_precision_that_overflowed():
    x = np.full((6, 2), 300.0, np.float16)
    x[0] = np.inf
    refused(MinibatchCKA(), NonFiniteError, "65504", {"x": x})


@pytest.mark.parametrize("kernel", KERNELS)
def test_no_stray_warnings_come_with_the_error(kernel):
    """Warnings are errors here, so a RuntimeWarning of the framework would fail the test."""
    x = data(8)[0]["conv"].copy()
    x[0, 0] = np.inf
    with pytest.raises(NonFiniteError):
        MinibatchCKA(kernel=kernel).update({"x": x})
