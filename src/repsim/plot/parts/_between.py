"""A square map of one set of models, or of layers, as distances; and their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from repsim._errors import InputError
from repsim._options import got
from repsim.measures import MEASURES
from repsim.plot.parts._layer_map import measure_label
from repsim.plot.parts._lines import DISTINCT, MARKERS

__all__ = ["Between", "Group", "between", "groups_of"]

ROUNDING = 1e-6
"""Part of the largest value by which two mirrored entries may differ."""


class Between(NamedTuple):
    """The values between all pairs of one set."""

    names: list[str]
    values: Any
    """(m, m), symmetric, finite off the diagonal."""
    similar: bool
    """Whether larger means more alike."""
    top: float
    """The value of "the same" of a similarity."""
    label: str

    def distances(self) -> Any:
        """Return the dissimilarities, or for a similarity by how much it falls short of `top`."""
        gaps = np.maximum(self.top - self.values, 0.0) if self.similar else self.values.copy()
        np.fill_diagonal(gaps, 0.0)
        return gaps


def between(result: xr.Dataset | xr.DataArray, operation: str) -> Between:
    """Return the values between all pairs of one set, or raise if `result` has none.

    Parameters
    ----------
    result : xarray.Dataset or xarray.DataArray
        Dimensions ("model_x", "model_y"), or ("layer_x", "layer_y"), with the same names on both.
        Of a Dataset the similarity is taken: its variable "score", "cka" or of its measure, else
        the first with these dimensions.
    operation : str
        The first word of error messages.
    """
    array = _square(result, operation)
    names = [str(name) for name in array[array.dims[0]].values]
    if names != [str(name) for name in array[array.dims[1]].values] or len(names) < 2:
        raise InputError(
            f"{operation}: result must compare one set of two or more with itself.\n"
            f"  {array.dims[0]}: {len(names)} names    "
            f"{array.dims[1]}: {array.shape[1]} names, the same and in the same order\n"
            f"  repsim.pairwise(xs) and repsim.alignment(models) return such a map."
        )
    values = array.values.astype(np.float64)
    _require_values(values, names, operation)
    similar, top = _scale_of(array, values, operation)
    off = values[~np.eye(len(names), dtype=bool)]
    if not similar and off.min() < 0:
        raise InputError(
            f"{operation}: a dissimilarity must not be negative.\n  got {off.min():.6g}\n"
            f"  Is it a similarity? Then set result.attrs['kind'] = 'similarity'."
        )
    return Between(names, (values + values.T) / 2, similar, top, measure_label(array))


def _square(result: Any, operation: str) -> xr.DataArray:
    array = result
    if isinstance(result, xr.Dataset):
        square = [key for key, each in result.data_vars.items() if _is_square(each)]
        first = [name for name in ("score", "cka", result.attrs.get("measure")) if name in square]
        if not square:
            raise InputError(
                f"{operation}: result has no variable with the dimensions model_x and model_y, or "
                f"layer_x and layer_y.\n"
                f"  variables: {', '.join(map(str, result.data_vars)) or 'none'}\n"
                f"  repsim.pairwise(xs) and repsim.alignment(models) return such a map."
            )
        array = result[[*first, *square][0]]
        array = array.assign_attrs({**result.attrs, **array.attrs})
    if not isinstance(array, xr.DataArray) or not _is_square(array):
        what = tuple(map(str, array.dims)) if isinstance(array, xr.DataArray) else got(array)
        raise InputError(
            f"{operation}: result must be a map with the dimensions model_x and model_y, or "
            f"layer_x and layer_y.\n  got {what}\n"
            f"  Label a bare matrix first: xarray.DataArray(matrix, dims=('model_x', 'model_y'), "
            "coords={'model_x': names, 'model_y': names}, attrs={'kind': 'dissimilarity'})."
        )
    kind = str(array.dims[0]).removesuffix("_x").removesuffix("_y")
    return array.transpose(f"{kind}_x", f"{kind}_y")


def _is_square(array: xr.DataArray) -> bool:
    pairs = {"model_x", "model_y"}, {"layer_x", "layer_y"}
    return set(array.dims) in pairs and array.dtype.kind in "fiu"


def _require_values(values: Any, names: Sequence[str], operation: str) -> None:
    off = ~np.eye(len(names), dtype=bool)
    if not np.isfinite(values[off]).all():
        i, j = map(int, np.argwhere(off & ~np.isfinite(values))[0])
        raise InputError(
            f"{operation}: every pair needs a value.\n  got {values[i, j]} for {names[i]!r} with "
            f"{names[j]!r}\n  Leave one of them out."
        )
    gaps = np.where(off, np.abs(values - values.T), 0.0)
    if gaps.max() > ROUNDING * np.abs(values[off]).max():
        i, j = map(int, np.unravel_index(gaps.argmax(), gaps.shape))
        raise InputError(
            f"{operation}: result must be symmetric.\n  {names[i]!r} with {names[j]!r}: "
            f"{values[i, j]:.6g}    {names[j]!r} with {names[i]!r}: {values[j, i]:.6g}\n"
            f"  Average both directions: result.copy(data=(result.values + result.values.T) / 2)."
        )


def _scale_of(array: xr.DataArray, values: Any, operation: str) -> tuple[bool, float]:
    """Return whether larger means more alike, and the value of "the same" of a similarity."""
    measure = MEASURES.get(str(array.attrs.get("measure", array.name)))
    kind = array.attrs.get("kind")
    if kind is None and measure is not None:
        kind = "similarity" if measure.similarity else "dissimilarity"
    if kind not in ("similarity", "dissimilarity"):
        raise InputError(
            f"{operation}: result must say whether larger values mean more alike.\n"
            f"  got attrs['kind'] = {kind!r}\n"
            f"  Set result.attrs['kind'] to 'similarity' or 'dissimilarity'."
        )
    if kind == "dissimilarity":
        return False, 0.0
    top = array.attrs.get("greatest", 1.0 if measure is None else measure.range[1])
    if not np.isfinite(top) or (measure is None and values.max() > 1 + ROUNDING):
        raise InputError(
            f"{operation}: a similarity must have a known value of “the same”.\n"
            f"  got values up to {np.nanmax(values):.6g}, and "
            f"{'no upper bound' if measure else 'no known measure'}\n"
            f"  Pass a dissimilarity, with result.attrs['kind'] = 'dissimilarity'."
        )
    return True, top


class Group(NamedTuple):
    """Members that share a colour and a marker."""

    name: str
    colour: str
    marker: str


def groups_of(
    groups: Mapping[str, str] | Sequence[str] | None, names: Sequence[str], operation: str
) -> list[Group]:
    """Return the group of each name; all are one group without a name for ``None``."""
    if groups is None:
        return [Group("", DISTINCT[0], MARKERS[0])] * len(names)
    if isinstance(groups, Mapping):
        missing = [name for name in names if name not in groups]
        given = [] if missing else [str(groups[name]) for name in names]
    else:
        listed = isinstance(groups, Sequence) and not isinstance(groups, str)
        missing = [] if listed and len(groups) == len(names) else list(names)
        given = [] if missing else [str(group) for group in groups]
    if missing:
        raise InputError(
            f"{operation}: groups must give the group of each of the {len(names)} names.\n"
            f"  got {got(groups)}    without a group: {', '.join(map(repr, missing[:8]))}\n"
            f"  Pass a mapping of name to group, or one group for each name in their order."
        )
    distinct = list(dict.fromkeys(given))
    look = {
        name: Group(name, DISTINCT[i % len(DISTINCT)], MARKERS[i // len(DISTINCT) % len(MARKERS)])
        for i, name in enumerate(distinct)
    }
    return [look[name] for name in given]
