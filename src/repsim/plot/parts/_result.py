"""The choice of a caller: which layers to draw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import xarray as xr

from repsim._errors import InputError
from repsim._options import got
from repsim.results import names_of

__all__ = ["select_layers"]


def select_layers(
    result: xr.Dataset, operation: str, layers: Sequence[str] | str | None, dim: str = "layer"
) -> xr.Dataset:
    """Return the part of `result` for `layers`, in the order of the result; all for ``None``."""
    if layers is None:
        return result
    if not isinstance(layers, str) and not isinstance(layers, Iterable):
        raise InputError(
            f"{operation}: layers must be names of layers, or None for all.\n  got {got(layers)}"
        )
    wanted = [layers] if isinstance(layers, str) else [str(name) for name in layers]
    present = names_of(result, dim)
    unknown = [name for name in wanted if name not in present]
    if unknown or not wanted:
        raise InputError(
            f"{operation}: layers must name layers of the result.\n"
            f"  layers: {', '.join(unknown) or 'none'}    {dim}: {', '.join(present)}\n"
            f"  Take names from result[{dim!r}].values."
        )
    return result.isel({dim: [i for i, name in enumerate(present) if name in wanted]})
