"""Which framework an array belongs to, where it lives, and whether its values can be read."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_torch_array

from repsim._errors import ArrayTypeError
from repsim._typing import Array, Namespace

__all__ = [
    "describe",
    "device_type",
    "host_resident",
    "known",
    "namespace",
    "numbers",
    "same_home",
    "to_numpy",
]


def describe(name: str, x: object) -> str:
    """One line about an argument, for an error message."""
    shape, dtype = getattr(x, "shape", None), getattr(x, "dtype", None)
    kind = f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"
    if shape is None or dtype is None:
        return f"{name}: {kind}"
    where = f" on {device(x)}" if is_array_api_obj(x) else ""
    return f"{name}: {tuple(shape)} {kind} of {str(dtype).removeprefix('torch.')}{where}"


def namespace(operation: str, **arrays: object) -> Namespace:
    """Resolve the one array namespace of all arguments, or say which of them disagrees."""
    for name, x in arrays.items():
        if not is_array_api_obj(x):
            raise ArrayTypeError(
                f"{operation}: {name} must be an array (numpy, torch, jax, cupy or any other that "
                f"follows the array API standard).\n  {describe(name, x)}\n"
                f"  Convert it first: numpy.asarray({name}) for lists, {name}.to_numpy() for data "
                f"frames."
            )
        if (what := _unusual(x)) is not None:
            raise ArrayTypeError(
                f"{operation}: {name} must be an ordinary dense array.\n"
                f"  {describe(name, x)}, which {what}"
            )
    try:
        xp = array_namespace(*arrays.values())
    except TypeError as error:
        raise ArrayTypeError(_disagree(operation, "framework", arrays)) from error
    if len({str(device(x)) for x in arrays.values()} - {"None"}) > 1:  # None: still being traced
        raise ArrayTypeError(_disagree(operation, "device", arrays))
    for name, x in arrays.items():
        if str(device(x)) == "meta":
            raise ArrayTypeError(
                f"{operation}: {name} has a shape and no values.\n  {describe(name, x)}\n"
                f"  Run the model on a real device."
            )
    return xp


def _unusual(x: object) -> str | None:
    if isinstance(x, np.ma.MaskedArray):
        return "hides some values\n  Drop the masked rows from both arrays first."
    if str(getattr(x, "layout", "torch.strided")) != "torch.strided":
        return "is sparse\n  Convert it first: x.to_dense()."
    return None


def _disagree(operation: str, what: str, arrays: dict[str, object]) -> str:
    names = " and ".join(arrays)
    lines = "".join(f"  {describe(name, x)}\n" for name, x in arrays.items())
    move = (
        "Move one of them, for example y.to(x.device)"
        if what == "device"
        else "Convert one of them, for example numpy.asarray(y) or torch.as_tensor(y)"
    )
    return f"{operation}: {names} must belong to one {what}.\n{lines}  {move}."


def same_home(x: Array, like: Array) -> bool:
    """Whether two arrays share framework and device, so that one operation can take both."""
    return array_namespace(x) is array_namespace(like) and str(device(x)) == str(device(like))


def known(flag: Array | bool) -> bool | None:
    """Read a truth value, or ``None`` where it is still being traced (``jax.jit``, ``jax.grad``).

    A traced value has no truth yet; jax says so with a ``TypeError`` subclass.
    """
    try:
        return bool(flag)
    except TypeError:
        return None


def numbers(x: Array) -> np.ndarray[Any, np.dtype[Any]] | None:
    """Read the values of an array in main memory, or ``None`` if it is one to differentiate.

    That is: if what becomes of it is recorded or still being traced, by torch's autograd or
    ``torch.func``, by jax's transformations.
    """
    if getattr(x, "requires_grad", False):
        return None
    try:
        return to_numpy(x)
    except (TypeError, RuntimeError):  # jax's tracers, torch.func's wrappers: no values to read
        return None


def device_type(x: Array) -> str:
    """Return the kind of device that an array lives on: "cpu", "cuda", "mps", ..."""
    if isinstance(x, np.ndarray):
        return "cpu"
    where = x.device if is_torch_array(x) else device(x)
    return str(getattr(where, "type", where)).lower()


def host_resident(x: Array) -> bool:
    """Whether reading a value of ``x`` costs no synchronisation with an accelerator."""
    return "cpu" in device_type(x)


def to_numpy(x: Any) -> np.ndarray[Any, np.dtype[Any]]:
    """Copy an array of any framework and device into a NumPy array (a sync on an accelerator)."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
    if hasattr(x, "get") and not isinstance(x, np.ndarray):  # cupy refuses implicit copies
        x = x.get()
    return np.asarray(x)
