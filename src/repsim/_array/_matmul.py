"""Inner products of all pairs of rows of a matrix, in a given precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from typing import Any

from array_api_compat import is_jax_array, is_torch_array

from repsim._array._namespace import device_type
from repsim._errors import InputError
from repsim._typing import Array, Namespace

__all__ = ["PRECISIONS", "require_precision", "row_products"]

PRECISIONS = ("highest", "tf32", "bf16")
"""How many digits the factors of a product keep; sums are always in at least float32."""

_SIGNIFICANT_BITS = {"tf32": 11, "bf16": 8}

_CHUNK = 2048
"""Features in one of the products that the threads of torch share on a CPU.

Measured at 32 to 128 rows on two cores: a stack of such products takes 0.7 to 0.9 of the time of
one product, for which both threads pack the factors together. Its sums also lose fewer digits.
"""

_FEW_ROWS = 128
"""Above this number of rows one product keeps all threads busy."""

_HALVES, _QUARTERS = 1 << 26, 1 << 27
"""Multiplications from which rows are cut into two parts and, for many rows, into four.

The product of a block of rows with a later block is the mirror image of the product of the later
block with the first, so three of four products, or ten of sixteen, suffice. Measured on two cores:
from this size on 0.65 to 0.85 of the time of one product; more time below it.
"""

_MANY_ROWS = 192
"""From this number of rows on, a quarter of them is enough for an efficient product."""

_PARTIAL_BYTES = 1 << 24
"""Bytes of products of chunks, (n, n) each, in memory at a time."""


def require_precision(operation: str, precision: str) -> None:
    """Raise if the precision is not one of :data:`PRECISIONS`."""
    if not (isinstance(precision, str) and precision in PRECISIONS):
        raise InputError(
            f"{operation}: unknown precision.\n"
            f"  expected one of {', '.join(map(repr, PRECISIONS))}\n"
            f"  got {precision!r}"
        )


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
            product = _product(xp, x, dtype) if where == "cpu" else x @ xp.matrix_transpose(x)
    else:
        half = xp.astype(x, xp.bfloat16)
        product = xp.mm(half, xp.matrix_transpose(half), out_dtype=xp.float32)
    return product if dtype in (None, product.dtype) else xp.astype(product, dtype)


def _product(xp: Namespace, x: Any, dtype: Any) -> Any:
    """Return x xᵀ of a float32 tensor in main memory, with parts summed in this dtype."""
    n, p = x.shape
    work = n * n * p
    cuts = 1 if work < _HALVES else 4 if n >= _MANY_ROWS and work >= _QUARTERS else 2
    if cuts == 1 and (p < 2 * _CHUNK or n > _FEW_ROWS):
        return x @ x.T
    whole = p - p % _CHUNK
    if not whole:
        return _mirrored(xp, x[None], cuts, dtype)
    total: Any = None
    some = _CHUNK * max(1, _PARTIAL_BYTES // (4 * n * n))
    for start in range(0, whole, some):
        part = x[:, start : min(start + some, whole)]
        stack = part.unflatten(1, (-1, _CHUNK)).transpose(0, 1)
        product = _mirrored(xp, stack, cuts, dtype)
        total = product if total is None else total + product
    if whole < p:
        rest = x[:, whole:]
        total = total + rest @ rest.T
    return total


def _mirrored(xp: Namespace, stack: Any, cuts: int, dtype: Any) -> Any:
    """Return Σ_k s_k s_kᵀ of a stack (k, n, c) from products of blocks with later blocks.

    The blocks are concatenated and not written in place, so gradients pass through.
    """
    edges = [stack.shape[1] * i // cuts for i in range(cuts + 1)]
    rows = [(stack[:, a:b] @ stack[:, a:].mT).sum(0, dtype=dtype) for a, b in pairwise(edges)]
    if cuts == 1:
        return rows[0]
    whole = []
    for i, (a, b) in enumerate(pairwise(edges)):
        above = [rows[j][:, a - edges[j] : b - edges[j]].T for j in range(i)]
        whole.append(xp.concat([*above, rows[i]], axis=1))
    return xp.concat(whole)


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
    backends = xp.backends
    return backends.cuda.matmul if where == "cuda" else backends.mkldnn.matmul
