"""Dask arrays: which argument is one, alone or inside a labelled array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from array_api_compat import is_dask_array

from repsim._errors import RepsimError, StateError
from repsim.arrays._labelled import labelled_types

__all__ = ["dask_array", "dask_package", "dask_values"]


def dask_array(x: Any) -> Any:
    """Return the Dask array that ``x`` is or labels; None for every other argument.

    Nothing is computed, and Dask is not imported: only a caller who has it can have such an array.
    """
    if isinstance(x, labelled_types()):
        if getattr(x, "chunks", None) is None:  # reading .data would load a stored array
            return None
        x = x.data
    return x if is_dask_array(x) else None


def dask_package() -> Any:
    """Return Dask, which who has a Dask array has."""
    import dask

    package: Any = dask
    return package


def dask_values(operation: str, delayed: Sequence[Any]) -> list[Any]:
    """Compute delayed values together, with the scheduler that the caller has chosen.

    Raises
    ------
    RepsimError
        As a task raised it.
    StateError
        A task failed otherwise, or a worker died.
    """
    try:
        return list(dask_package().compute(*delayed))
    except RepsimError:
        raise
    except Exception as error:  # of the scheduler, or of what the caller's arrays are made with
        first = (str(error).splitlines() or [""])[0]
        raise StateError(
            f"{operation}: Dask could not compute the layers.\n"
            f"  {type(error).__name__}: {first}\n"
            f"  Look at the logs of its workers; all need repsim and the files of the arrays."
        ) from error
