"""Inner products of all pairs of rows of a matrix, in a given precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from array_api_compat import is_jax_array, is_torch_array

from repsim._options import require_choice
from repsim._typing import Array, Namespace
from repsim.arrays._namespace import device_type

__all__ = ["PRECISIONS", "require_precision", "row_products"]

PRECISIONS = ("highest", "tf32", "bf16")
"""How many digits the factors of a product keep; sums are always in at least float32."""

_SIGNIFICANT_BITS = {"tf32": 11, "bf16": 8}

_CHUNK = 2048
"""Features in each of the products that a long one on a CPU is made of."""

_PARTIAL_BYTES = 1 << 24
"""Bytes of such products, (n, n) each, in memory at a time."""


def require_precision(operation: str, precision: str) -> None:
    """Raise if the precision is not one of :data:`PRECISIONS`."""
    require_choice(operation, "precision", precision, PRECISIONS)


def row_products(xp: Namespace, x: Array, precision: str = "highest", dtype: Any = None) -> Array:
    """Return x xᵀ, the (n, n) inner products of the rows of ``x`` (n, p), float32 or float64.

    The result has the dtype of ``x``, or ``dtype``. If the products of many features are computed
    in parts, they are then summed in ``dtype`` too.

    ``"highest"`` multiplies the unrounded numbers, whatever precision the user allows for other
    products. ``"tf32"`` and ``"bf16"`` first round them to 11 and 8 significant bits, to nearest,
    and sum the products in the dtype of ``x``. On CUDA, for float32, the tensor cores do both.
    Elsewhere the factors are rounded by arithmetic, and the result is the same except for the order
    of the sums.

    On CUDA ``"bf16"`` is an argument of the product. TF32 has no such argument: the setting of the
    process is changed around the one product and restored afterwards, also after an error. A
    product that another thread starts in between runs with it too.
    """
    where = _torch_device(x)
    whole = precision == "highest"
    if not whole and not _on_tensor_cores(xp, x, where, precision):
        x, whole = _rounded(x, _SIGNIFICANT_BITS[precision]), True
    if where is None or x.dtype != xp.float32:
        # On accelerators the default of jax is lower.
        own = {"precision": "highest"} if is_jax_array(x) else {}
        product: Array = xp.matmul(x, xp.matrix_transpose(x), **own)
    elif whole or precision == "tf32":
        wanted = "ieee" if whole else "tf32"
        with nullcontext() if _is_set(xp, where, wanted) else _float32_products(xp, where, wanted):
            product = _in_chunks(x, dtype) if where == "cpu" else x @ xp.matrix_transpose(x)
    else:
        half = xp.astype(x, xp.bfloat16)
        product = xp.mm(half, xp.matrix_transpose(half), out_dtype=xp.float32)
    return product if dtype in (None, product.dtype) else xp.astype(product, dtype)


def _in_chunks(x: Any, dtype: Any) -> Any:
    """Return x xᵀ of a float32 tensor in main memory, from a stack of short products.

    Short sums lose fewer digits: with 800 000 features the relative error of a Gram is 5e-8 instead
    of 3e-6.
    """
    # Measured for the three cases of benchmarks/peers.py on two cores: blocks multiplied one after
    # the other, with nearly the same digits, take 0.2, 5.6 and 5.1 % more CPU time of `compare`,
    # and one long product, which loses the digits, takes 1.3, 2.6 and 2.5 % more.
    n, p = x.shape
    whole = p - p % _CHUNK
    if whole < 2 * _CHUNK:
        return x @ x.T
    total: Any = None
    some = _CHUNK * max(1, _PARTIAL_BYTES // (4 * n * n))
    for start in range(0, whole, some):
        part = x[:, start : min(start + some, whole)]
        stack = part.unflatten(1, (-1, _CHUNK)).transpose(0, 1)
        product = (stack @ stack.mT).sum(0, dtype=dtype)
        total = product if total is None else total + product
    if whole < p:
        rest = x[:, whole:]
        total = total + rest @ rest.T
    return total


def _rounded(x: Array, bits: int) -> Array:
    """Round to this number of significant bits, to nearest (Veltkamp's splitting).

    It uses only arithmetic, so it is the same in every framework. It overflows beyond 2^(127 − 24 +
    bits), where a Gram of float32 features overflows anyway.
    """
    digits = 53 if "64" in str(x.dtype) else 24
    wide = x * float(2 ** (digits - bits) + 1)
    return wide - (wide - x)


def _torch_device(x: Array) -> str | None:
    return device_type(x) if is_torch_array(x) else None


def _on_tensor_cores(xp: Namespace, x: Array, where: str | None, precision: str) -> bool:
    if where != "cuda" or x.dtype != xp.float32:
        return False
    # torch 2.8 introduced float32 results of bfloat16 factors; a rounded result would be useless.
    return precision != "bf16" or "dtype" in xp.ops.aten.mm.overloads()


@contextmanager
def _float32_products(xp: Namespace, where: str, wanted: str) -> Iterator[None]:
    """Set the precision of torch's float32 products, and restore the setting afterwards."""
    setting = _float32_setting(xp, where)
    if setting is None:
        yield
        return
    if hasattr(setting, "fp32_precision"):
        now = setting.fp32_precision
        setting.fp32_precision = wanted
        try:
            yield
        finally:
            setting.fp32_precision = "none"
            if setting.fp32_precision != now:  # else a more general setting decides
                setting.fp32_precision = now
        return
    before = setting.allow_tf32
    setting.allow_tf32 = wanted == "tf32"
    try:
        yield
    finally:
        setting.allow_tf32 = before


def _is_set(xp: Namespace, where: str, wanted: str) -> bool:
    """Whether torch's float32 products already have this precision."""
    setting = _float32_setting(xp, where)
    if hasattr(setting, "fp32_precision"):
        now = setting.fp32_precision
        return bool(now == wanted or (now == "none" and wanted == "ieee"))
    return where != "cuda" or setting.allow_tf32 == (wanted == "tf32")  # before torch 2.9


def _float32_setting(xp: Namespace, where: str) -> Any:
    """Return the object that has the setting; None on a CPU before torch 2.9, which has none."""
    backends = xp.backends
    return backends.cuda.matmul if where == "cuda" else getattr(backends.mkldnn, "matmul", None)
