"""Inner products of all rows of a matrix with all rows, in a stated precision."""

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
"""What the factors of a product keep of their digits; sums are in at least float32 in all."""

_SIGNIFICANT_BITS = {"tf32": 11, "bf16": 8}

_CHUNK = 2048
"""Features in one of the products that torch's threads take turns at on a processor.

Measured at 32 to 128 rows on two cores: a stack of these takes 0.7 to 0.9 of the time of one
product, whose factors both threads would pack together, and its sums lose fewer digits.
"""

_FEW_ROWS = 128
"""Beyond as many rows one product keeps all threads busy."""

_HALVES, _QUARTERS = 1 << 26, 1 << 27
"""Multiplications from which rows are cut in two and, where there are many, in four.

A product of a block of rows with a later one gives that of the later with the block: three of four
products, or ten of sixteen. Measured on two cores: 0.65 to 0.85 of the time of one product from
here on, and longer than it with less to do.
"""

_MANY_ROWS = 192
"""Rows of which a quarter is still enough for one product."""

_PARTIAL_BYTES = 1 << 24
"""Products of chunks, (n, n) each, that are there at one time."""


def require_precision(operation: str, precision: str) -> None:
    """Refuse what is not one of :data:`PRECISIONS`."""
    if not (isinstance(precision, str) and precision in PRECISIONS):
        raise InputError(
            f"{operation}: unknown precision.\n"
            f"  expected one of {', '.join(map(repr, PRECISIONS))}\n"
            f"  got {precision!r}"
        )


def row_products(xp: Namespace, x: Array, precision: str = "highest", dtype: Any = None) -> Array:
    """Return x xᵀ, the (n, n) inner products of the rows of ``x`` (n, p), float32 or float64.

    Of ``x``'s dtype, or of ``dtype``, which is then also that of sums of many features' products
    where they are made in parts anyway.

    ``"highest"`` multiplies the numbers as they are, whatever the user allows other products.
    ``"tf32"`` and ``"bf16"`` first round them to 11 and 8 significant bits, to nearest, and add up
    the products in the dtype of ``x``: on CUDA, for float32, the tensor cores do both; elsewhere
    the factors are rounded by arithmetic and the result is the same but for the order of the sums.

    On CUDA ``"bf16"`` is asked for by product. TF32 has no such argument: the setting of the
    process is changed around the one product, and is as before also after an error; a product that
    another thread starts in between runs under it.
    """
    where = _torch_device(x)
    whole = precision == "highest"
    if not whole and not _on_tensor_cores(xp, x, where, precision):
        x, whole = _rounded(x, _SIGNIFICANT_BITS[precision]), True
    if where is None or x.dtype != xp.float32:
        # On accelerators jax's default is less.
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
    """Return x xᵀ of a float32 tensor in main memory, its parts added up in this dtype."""
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
    """Return Σ_k s_k s_kᵀ of a stack (k, n, c), of blocks of rows with themselves and later ones.

    Put together, not written in place: gradients pass through.
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
    """Round to so many significant bits, to nearest (Veltkamp's splitting).

    Arithmetic alone, so that it is the same in every framework. Beyond 2^(127 − 24 + bits) it
    overflows, where the Gram of float32 features has long done so.
    """
    digits = 53 if "64" in str(x.dtype) else 24
    wide = x * float(2 ** (digits - bits) + 1)
    return wide - (wide - x)


def _torch_device(x: Array) -> str | None:
    return device_type(x) if is_torch_array(x) else None


def _on_tensor_cores(xp: Namespace, x: Array, where: str | None, precision: str) -> bool:
    if where != "cuda" or x.dtype != xp.float32:
        return False
    # A float32 result of bfloat16 factors came with torch 2.8; rounding it would lose what counts.
    return precision != "bf16" or "dtype" in xp.ops.aten.mm.overloads()


@contextmanager
def _float32_products(xp: Namespace, where: str, wanted: str) -> Iterator[None]:
    """Let torch's float32 products be of this precision, and leave its settings as they were."""
    setting = _float32_setting(xp, where)
    if hasattr(setting, "fp32_precision"):
        now = setting.fp32_precision
        setting.fp32_precision = wanted
        try:
            yield
        finally:
            setting.fp32_precision = "none"
            if setting.fp32_precision != now:  # else it is what a setting above this one says
                setting.fp32_precision = now
        return
    before = setting.allow_tf32
    setting.allow_tf32 = wanted == "tf32"
    try:
        yield
    finally:
        setting.allow_tf32 = before


def _is_set(xp: Namespace, where: str, wanted: str) -> bool:
    """Whether torch's float32 products are of this precision without being told."""
    setting = _float32_setting(xp, where)
    if hasattr(setting, "fp32_precision"):
        now = setting.fp32_precision
        return bool(now == wanted or (now == "none" and wanted == "ieee"))
    return where != "cuda" or setting.allow_tf32 == (wanted == "tf32")  # before torch 2.9


def _float32_setting(xp: Namespace, where: str) -> Any:
    backends = xp.backends
    return backends.cuda.matmul if where == "cuda" else backends.mkldnn.matmul
