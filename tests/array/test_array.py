"""repsim.arrays: scales, dtypes, layout, frameworks and devices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import repsim
from repsim.arrays import (
    accumulator_dtype,
    array_namespace,
    as_samples,
    check_finite,
    column_blocks,
    compute_dtype,
    device_type,
    flatten_features,
    host_resident,
    known,
    namespace,
    numbers,
    promote,
    same_home,
    scalar,
    to_numpy,
    unit_scale,
)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("value", [1e-30, 3e-8, 0.999999, 1.0, 5e3, 1e8, 7e15, 1e30])
def test_unit_scale_is_a_power_of_two(backend, dtype, value):
    x = np.asarray([[value, -value / 3], [0, value / 7]], dtype)
    scaled = backend.call(lambda a: unit_scale(array_namespace(a), a)[0], x)
    scale = float(backend.call(lambda a: unit_scale(array_namespace(a), a)[1], x))
    assert math.frexp(scale)[0] == 0.5
    assert 1 <= float(np.abs(backend.numpy(scaled)).max()) < 2
    np.testing.assert_array_equal(backend.numpy(scaled) * np.asarray(scale, dtype), x)


@given(st.floats(1e-290, 1e290))
def test_unit_scale_loses_no_digit(value):
    x = np.array([value, value / 3])
    scaled, scale = unit_scale(np, x)
    assert 1 <= scaled[0] < 2
    assert scaled[0] * scale == value


def test_unit_scale_of_columns_and_rows():
    x = np.asarray([[3.0, 0.0, 1e-30], [-5.0, 0.0, 3e-30]])
    for axis, columns in ((0, x.T), (1, x)):
        scaled, scale = unit_scale(np, x, axis=axis)
        assert scaled.shape == x.shape
        for row, out, each_scale in zip(
            columns, scaled if axis else scaled.T, scale.ravel(), strict=True
        ):
            wanted, wanted_scale = unit_scale(np, row)
            assert each_scale == wanted_scale
            np.testing.assert_array_equal(out, wanted)


def test_unit_scale_of_zero():
    scaled, scale = unit_scale(np, np.zeros((2, 2)))
    assert float(scale) == 1
    assert not scaled.any()


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        ("float16", "float32"),
        ("float32", "float32"),
        ("float64", "float64"),
        ("int8", "float64"),
        ("int64", "float64"),
        ("uint8", "float64"),
        ("bool", "float64"),
    ],
)
def test_the_precision_policy(eager, dtype, wanted):
    if eager.name == "strict" and dtype == "float16":
        pytest.skip("the standard has no float16")
    x = eager.array(np.asarray([[1, 0], [0, 1]], dtype))
    xp = array_namespace(x)
    assert compute_dtype(xp, x) == getattr(xp, wanted)
    assert eager.dtype(promote(xp, x)) == wanted
    np.testing.assert_array_equal(eager.numpy(promote(xp, x)), np.eye(2))
    if dtype == wanted:
        assert promote(xp, x) is x


def test_sums_are_kept_in_double(eager):
    x = eager.array(np.ones(3, np.float32))
    xp = array_namespace(x)
    assert accumulator_dtype(xp, x) == xp.float64


def test_jax_has_double_only_when_asked():
    jax = pytest.importorskip("jax")
    x = jax.numpy.ones(3)
    assert accumulator_dtype(array_namespace(x), x) == np.float32
    assert compute_dtype(array_namespace(x), jax.numpy.arange(3)) == np.float32


def test_scalar_is_an_array_without_axes(backend):
    x = np.asarray([1.5, 2.0])
    out = backend.call(
        lambda a: scalar(array_namespace(a), array_namespace(a).sum(a) * 2.0, a.dtype), x
    )
    assert backend.owns(out)
    assert tuple(out.shape) == ()
    assert float(out) == 7.0


def test_flatten(backend):
    x = np.arange(48.0).reshape(2, 3, 2, 4)
    out = backend.call(lambda a: flatten_features(array_namespace(a), a), x)
    np.testing.assert_array_equal(backend.numpy(out), x.reshape(2, 24))
    flat = np.ones((3, 2))
    assert flatten_features(np, flat) is flat


@pytest.mark.parametrize("shape", [(10, 3), (2000, 256), (2000, 4097), (4, 300_000)])
def test_column_blocks_cover_each_column_once(shape):
    x = np.empty(shape, np.float16)
    blocks = list(column_blocks(x))
    columns = [i for block in blocks for i in range(shape[1])[block]]
    assert columns == list(range(shape[1]))
    if shape == (2000, 4097):
        assert len(blocks) > 2


def test_known_and_unknown_truth():
    assert known(True) is True
    assert known(np.asarray(False)) is False
    jax = pytest.importorskip("jax")
    seen = []
    jax.jit(lambda a: seen.append(known(a > 0)) or a)(1.0)
    assert seen == [None]
    jax.grad(lambda a: seen.append(known(a > 0)) or a)(1.0)
    assert seen[1] is True


def test_homes(eager):
    x, y = eager.array(np.ones(2)), eager.array(np.zeros((3, 1)))
    assert same_home(x, y)
    assert host_resident(x) == (eager.name != "torch-cuda")
    np.testing.assert_array_equal(to_numpy(y), np.zeros((3, 1)))
    assert isinstance(to_numpy(y), np.ndarray)
    assert namespace("cka", x=x, y=y) is array_namespace(x)
    if eager.name != "numpy":
        assert not same_home(x, np.ones(2))


def test_to_numpy_detaches():
    torch = pytest.importorskip("torch")
    x = torch.ones(2, requires_grad=True)
    np.testing.assert_array_equal(to_numpy(x), [1, 1])


def test_as_samples_names_its_argument():
    with pytest.raises(repsim.InputError, match=r"op: layer3 .*\n  layer3: \(5,\)"):
        as_samples("op", np, np.ones(5), "layer3", min_samples=2, why="it")
    with pytest.raises(repsim.InputError, match=r"op: batch 7 needs at least 6 samples"):
        as_samples("op", np, np.ones((5, 2)), "layer3", min_samples=6, why="batch 7")
    with pytest.raises(repsim.NonFiniteError, match="op: layer3 must be finite"):
        check_finite("op", np, np.full((5, 2), np.nan), "layer3")


def test_numbers_are_read_and_those_still_traced_are_not():
    np.testing.assert_array_equal(numbers(np.arange(3)), [0, 1, 2])
    torch = pytest.importorskip("torch")
    x = torch.arange(3.0)
    np.testing.assert_array_equal(numbers(x), [0, 1, 2])
    assert numbers(x.requires_grad_()) is None
    read = []
    torch.func.grad(lambda v: read.append(numbers(v)) or v.sum())(x.detach())
    jax = pytest.importorskip("jax")
    jax.jit(lambda v: read.append(numbers(v)) or v)(jax.numpy.ones(3))
    assert read == [None, None]


def test_device_type(eager):
    assert "cpu" in device_type(eager.array([1.0]))
