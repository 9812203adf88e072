"""Which framework an array belongs to, and where it lives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from array_api_compat import array_namespace as namespace_of_any
from array_api_compat import device, is_array_api_obj, is_dask_array, is_torch_array

from repsim._errors import ArrayTypeError
from repsim._typing import Array, Namespace
from repsim.arrays._ordinary import describe, require_ordinary, require_values

__all__ = [
    "array_namespace",
    "device_type",
    "host_resident",
    "how_to_convert",
    "namespace",
    "same_home",
]

NUMPY = (np.ndarray, np.generic)  # torch.compile cannot evaluate their union


def array_namespace(*arrays: object) -> Namespace:
    """Return the common array namespace of arrays; that of NumPy is ``numpy`` itself.

    NumPy follows the standard since version 2. The module in its place that array-api-compat makes
    for older versions would load numpy.f2py and numpy.testing, and double the time of the first
    call.
    """
    if all(isinstance(x, NUMPY) for x in arrays):
        return np
    return namespace_of_any(*arrays)


def namespace(operation: str, **arrays: object) -> Namespace:
    """Return the common array namespace of all arguments, or raise an error that lists them."""
    for name, x in arrays.items():
        require_ordinary(operation, x, name)
        if is_dask_array(x):
            raise ArrayTypeError(
                f"{operation}: {name} must be an array in memory.\n"
                f"  {describe(name, x)}, which would be computed several times\n"
                f"  Pass mappings of Dask arrays to repsim.cka_matrix or repsim.pairwise, which "
                f"leave the work to Dask, or {name}.compute() if its values fit in memory."
            )
        if not is_array_api_obj(x):
            raise ArrayTypeError(
                f"{operation}: {name} must be an array (numpy, torch, jax, cupy or any other that "
                f"follows the array API standard).\n  {describe(name, x)}\n"
                f"  {how_to_convert(name, x)}"
            )
    try:
        xp = array_namespace(*arrays.values())
    except TypeError as error:
        raise ArrayTypeError(_disagree(operation, "framework", arrays)) from error
    if len({str(device(x)) for x in arrays.values()} - {"None"}) > 1:  # None: traced by a compiler
        raise ArrayTypeError(_disagree(operation, "device", arrays))
    for name, x in arrays.items():
        require_values(operation, x, name)
    return xp


def how_to_convert(name: str, x: object) -> str:
    """Return what to do with an argument that is not an array."""
    if isinstance(x, Mapping):
        some = next((each for each in x if not str(each).startswith("_")), "name")
        return (
            f"Pass one of its arrays, such as {name}[{some!r}], or all of them to repsim.pairwise."
        )
    return (
        f"Convert it first: numpy.asarray({name}) for lists, {name}.to_numpy() for data frames, "
        f"numpy.load({name}) for files."
    )


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
    """Whether two arrays have the same framework and device, so one operation can take both."""
    return array_namespace(x) is array_namespace(like) and str(device(x)) == str(device(like))


def device_type(x: Array) -> str:
    """Return the kind of device of an array: "cpu", "cuda", "mps", ..."""
    if isinstance(x, np.ndarray):
        return "cpu"
    where = x.device if is_torch_array(x) else device(x)
    return str(getattr(where, "type", where)).lower()


def host_resident(x: Array) -> bool:
    """Whether values of ``x`` can be read without waiting for an accelerator."""
    return "cpu" in device_type(x)
