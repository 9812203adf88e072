"""Products of rows with rows in every framework and precision; settings stay unchanged."""

import contextlib

import numpy as np
import pytest

from repsim import InputError
from repsim.arrays import array_namespace, require_precision, row_products


def sample(n=12, p=300, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p))


def kept_digits(x, bits):
    """Float32 rounded to nearest with this many significant bits, on the integers behind them."""
    drop = 24 - bits
    whole = np.abs(x).astype(np.float32).view(np.uint32).astype(np.int64)
    up = (whole + (1 << (drop - 1))) >> drop << drop
    return np.copysign(up.astype(np.uint32).view(np.float32), x).astype(np.float32)


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 11), ("bf16", 8)])
def test_factors_are_rounded_to_nearest(precision, bits, eager):
    """One feature: the products are those of the rounded values, exactly."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 1)) * 10.0 ** rng.integers(-9, 9, (50, 1))).astype(np.float32)
    a = eager.array(x)
    out = eager.numpy(row_products(array_namespace(a), a, precision))
    rounded = kept_digits(x, bits)
    np.testing.assert_array_equal(out, rounded @ rounded.T)
    assert (rounded != x).all()


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_rounding_survives_a_compiler(backend, precision):
    def products(a):
        return row_products(array_namespace(a), a, precision)

    x = sample().astype(np.float32)
    expected = row_products(np, x, precision)
    np.testing.assert_allclose(backend.numpy(backend.call(products, x)), expected, rtol=1e-4)
    assert np.abs(expected - x @ x.T).max() > 1e-4  # so rounding does change the products


def test_bfloat16_is_torchs_own():
    torch = pytest.importorskip("torch")
    x = torch.tensor(sample(), dtype=torch.float32)
    half = x.bfloat16().float()
    torch.testing.assert_close(
        row_products(array_namespace(x), x, "bf16"), half @ half.T, rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_float64_is_rounded_and_summed_in_float64(precision):
    x = sample()
    out = row_products(np, x, precision)
    assert out.dtype == np.float64
    rounded = kept_digits(x.astype(np.float32), {"tf32": 11, "bf16": 8}[precision])
    np.testing.assert_allclose(out, rounded.astype(float) @ rounded.T.astype(float), atol=1e-2)
    assert np.abs(out - x @ x.T).max() > 1e-3


@pytest.mark.parametrize("p", [1, 2048, 4096, 4099, 9000])
@pytest.mark.parametrize("n", [4, 127, 257])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_stacks_of_chunks(n, p, strided, double):
    torch = pytest.importorskip("torch")
    x = torch.tensor(sample(n, p + 7), dtype=torch.float32)[:, 3 : p + 3]
    x = x if strided else x.contiguous()
    dtype = torch.float64 if double else None
    out = row_products(array_namespace(x), x, dtype=dtype)
    assert out.dtype == (dtype or torch.float32)
    wanted = x.double() @ x.double().T
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=8 * 2**-23 * p)


def test_every_feature_counts_once():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for n, p in ((4, 5 * 2048 + 9), (64, 4 * 2048), (1100, 4 * 2048 + 1)):  # the last in two stacks
        x = torch.tensor(rng.integers(-4, 5, (n, p)), dtype=torch.float32)
        out = row_products(array_namespace(x), x)
        assert torch.equal(out, (x.double() @ x.double().T).float())  # integers: to the last digit


def test_many_features_keep_their_digits():
    torch = pytest.importorskip("torch")
    x = torch.rand((8, 1 << 19), generator=torch.Generator().manual_seed(0))
    wanted = x.double() @ x.double().T
    out = row_products(array_namespace(x), x, dtype=torch.float64)
    # One product of all features is off by 1e-5 and more.
    torch.testing.assert_close(out, wanted, rtol=2e-7, atol=0)


@pytest.mark.parametrize(("n", "p"), [(4, 5000), (128, 5000)])
def test_gradients_pass(n, p):
    torch = pytest.importorskip("torch")
    x = torch.tensor(sample(n, p), dtype=torch.float32, requires_grad=True)
    weights = torch.tensor(sample(n, n), dtype=torch.float32)
    (weights * row_products(array_namespace(x), x)).sum().backward()
    wanted = (weights + weights.T) @ x.detach()
    torch.testing.assert_close(x.grad, wanted, rtol=1e-4, atol=1e-4)


def test_unknown_precision():
    for wrong in ("half", None, "TF32"):
        with pytest.raises(InputError, match="f: unknown precision.\n  expected one of 'h"):
            require_precision("f", wrong)


# Torch's settings, and the accelerator played by the processor


@pytest.fixture
def torch():
    """Torch with its settings of matrix products put back at the end."""
    torch = pytest.importorskip("torch")
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):
        pytest.skip("needs torch 2.9")
    yield torch
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    for setting in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul):
        setting.fp32_precision = "none"


@contextlib.contextmanager
def placed(x, where):
    """A tensor on the processor, or on the accelerator that the processor plays."""
    from accelerator import Accelerator, Far

    if where == "cpu":
        yield x
    else:
        with Accelerator():
            yield Far(x)


def watched(torch, where):
    """A mode that notes the setting under which matrices are multiplied, or fails there."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __init__(self, fails=False):
            super().__init__()
            self.seen, self.fails = [], fails

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "mm" in str(function):
                backends = torch.backends
                setting = backends.cuda.matmul if where == "cuda" else backends.mkldnn.matmul
                self.seen.append((str(function), setting.fp32_precision))
                if self.fails:
                    raise ArithmeticError("no")
            if "mm.dtype" in str(function):  # only accelerators have it
                half = args[0]
                assert half.dtype == torch.bfloat16
                assert args[2] == torch.float32
                return half.float() @ args[1].float()
            return function(*args, **(kwargs or {}))

    return Watch


def allow(torch, how):
    if how == "medium":
        torch.set_float32_matmul_precision("medium")
    elif how == "all backends":
        torch.backends.fp32_precision = "tf32"
    elif how == "cuda alone":
        torch.backends.cuda.matmul.fp32_precision = "tf32"


def settings(torch):
    matmul = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    return [torch.backends.fp32_precision, *(each.fp32_precision for each in matmul)]


@pytest.mark.parametrize("how", ["nothing", "medium", "all backends", "cuda alone"])
@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["highest", "tf32"])
@pytest.mark.parametrize("fails", [False, True])
def test_a_setting_lasts_for_one_product(torch, how, where, precision, fails):
    allow(torch, how)
    before = settings(torch)
    x = torch.tensor(sample(), dtype=torch.float32)
    with placed(x, where) as x, watched(torch, where)(fails) as watch:
        if fails:
            with pytest.raises(ArithmeticError):
                row_products(array_namespace(x), x, precision)
        else:
            row_products(array_namespace(x), x, precision)
    ((_, during),) = watch.seen
    rounds_itself = where == "cpu"
    wanted = {"ieee", "none"} if precision == "highest" or rounds_itself else {"tf32"}
    assert during in wanted
    assert settings(torch) == before
    if how == "all backends":  # and it still follows the more general setting
        torch.backends.fp32_precision = "none"
        assert settings(torch) == ["none"] * 3


def test_bfloat16_factors_with_a_float32_result(torch):
    wanted = row_products(np, sample().astype(np.float32), "bf16")
    allow(torch, "medium")
    before = settings(torch)
    x = torch.tensor(sample(), dtype=torch.float32)
    with placed(x, "cuda") as x, watched(torch, "cuda")() as watch:
        out = row_products(array_namespace(x), x, "bf16")
    assert watch.seen[0][0] == "aten.mm.dtype"
    assert settings(torch) == before
    np.testing.assert_allclose(out.near.numpy(), wanted, atol=1e-3)


def test_bfloat16_before_torch_could_return_float32(torch, monkeypatch):
    """Arithmetic rounds the factors: slower, with the same numbers."""
    wanted = row_products(np, sample().astype(np.float32), "bf16")
    monkeypatch.setattr(type(torch.ops.aten.mm), "overloads", lambda _: ["default", "out"])
    x = torch.tensor(sample(), dtype=torch.float32)
    with placed(x, "cuda") as x, watched(torch, "cuda")() as watch:
        out = row_products(array_namespace(x), x, "bf16")
    assert watch.seen[0][0] == "aten.mm.default"
    np.testing.assert_allclose(out.near.numpy(), wanted, atol=1e-3)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["highest", "tf32", "bf16"])
def test_cuda_agrees_with_the_processor(torch, precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x = torch.tensor(sample(64, 10_000), dtype=torch.float32)
    out = row_products(array_namespace(x), x.cuda(), precision).cpu()
    wanted = row_products(array_namespace(x), x, precision)
    # Hardware may cut digits of TF32 off where the processor rounds.
    tolerance = {"highest": 1e-5, "tf32": 1e-3, "bf16": 1e-5}[precision]
    torch.testing.assert_close(out, wanted, rtol=0, atol=tolerance * float(wanted.max()))
