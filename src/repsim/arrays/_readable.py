"""Reading values: whether it is possible, whether it would hide a derivative, and copies."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from array_api_compat import device, is_jax_array, is_numpy_array, is_torch_array

from repsim._typing import Array
from repsim.arrays._namespace import array_namespace, host_resident

__all__ = [
    "detached",
    "host_numbers",
    "known",
    "numbers",
    "recorded",
    "to_numpy",
    "transformed",
    "uploaded",
    "writable_numbers",
]


def known(flag: Array | bool) -> bool | None:
    """Read a truth value; return ``None`` if there is none yet.

    There is none while a function is traced (``jax.jit``, ``jax.grad``, ``torch.compile``) and none
    for a stack (``torch.vmap``). Under ``torch.func.grad`` values can be read.
    """
    if is_torch_array(flag) and _without_value(flag):
        return None
    try:
        return bool(flag)
    except TypeError:  # jax raises a subclass for a traced value
        return None


def numbers(x: Array) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Read the values of an array in main memory; return ``None`` if operations on it are recorded.

    torch's autograd, ``torch.func`` and ``torch.compile``, and the transformations of jax record or
    trace operations, and what is computed from values that were read has no derivative.
    """
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    # Inside a transform of torch.func, the memory of tensors that it leaves alone is hidden too.
    if recorded(x) or (is_torch_array(x) and transformed(x.detach())):
        return None
    try:
        return to_numpy(x)
    except TypeError:  # jax raises a subclass for a traced value
        return None


def host_numbers(x: Array) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return the values of an array in main memory, not to be changed, as :func:`numbers`.

    ``None`` also for an array on an accelerator, which is faster there than the way to the host.
    """
    return numbers(x) if host_resident(x) else None


def writable_numbers(x: Array) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Return a NumPy view of an array in main memory; a change of it changes the array.

    ``None`` if there is no such view (frameworks whose arrays never change) or if operations on the
    array are recorded.
    """
    return host_numbers(x) if is_numpy_array(x) or is_torch_array(x) else None


def recorded(x: Any) -> bool:
    """Whether torch records operations on a tensor: autograd, forward mode and transforms."""
    if not is_torch_array(x):
        return False
    return bool(x.requires_grad) or transformed(x) or _is_dual(x)


def transformed(x: Array) -> bool:
    """Whether a tensor is an argument of a transform of ``torch.func``, or torch compiles.

    The memory of such a tensor cannot be read.
    """
    if not is_torch_array(x):
        return False
    torch: Any = sys.modules["torch"]
    return bool(torch.compiler.is_compiling()) or torch.func.debug_unwrap(x, recurse=False) is not x


def detached(x: Any) -> Any:
    """Return the values without a derivative; ``x`` itself if nothing records operations on it."""
    if is_torch_array(x):
        return x.detach() if recorded(x) else x
    if is_jax_array(x):
        return sys.modules["jax"].lax.stop_gradient(x)
    return x


def to_numpy(x: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Copy an array of any framework and device into a NumPy array (waits for an accelerator)."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().resolve_neg()  # NumPy knows no lazy minus, as of x.conj().imag
    if hasattr(x, "get") and not isinstance(x, np.ndarray):  # cupy raises on implicit copies
        x = x.get()
    return np.asarray(x)


def uploaded(x: np.ndarray[Any, np.dtype[Any]], like: Any) -> Any:
    """Copy a NumPy array to the framework and device of ``like`` without waiting for the device."""
    xp = array_namespace(like)
    if is_torch_array(like):
        near = xp.asarray(x, copy=True, device="cpu")  # whatever the default device is
        return near.to(like.device, non_blocking=True)
    return xp.asarray(x, device=device(like))


def _without_value(x: Any) -> bool:
    """Whether a compiler traces, or ``x`` stands for a stack of tensors."""
    torch: Any = sys.modules["torch"]
    if torch.compiler.is_compiling():
        return True
    while (inner := torch.func.debug_unwrap(x, recurse=False)) is not x:
        if inner.ndim != x.ndim:  # the axis of vmap
            return True
        x = inner
    return False


def _is_dual(x: Any) -> bool:
    """Whether a tensor carries a tangent of ``torch.autograd.forward_ad``."""
    torch: Any = sys.modules["torch"]
    return torch.autograd.forward_ad.unpack_dual(x).tangent is not None
