"""Labelled arrays brought to the same samples in the same order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repsim._errors import ArrayTypeError, InputError
from repsim.arrays import check_same_samples, describe, labelled_types, same_labels

if TYPE_CHECKING:
    import xarray

__all__ = ["align"]


def align(
    *arrays: xarray.DataArray | Mapping[str, xarray.DataArray], by: str | Sequence[str]
) -> tuple[Any, ...]:
    """Bring labelled arrays to the samples that all of them have, in the order of the first.

    >>> import numpy as np, repsim, xarray
    >>> rng = np.random.default_rng(0)
    >>> def recording(ids):
    ...     x = rng.standard_normal((len(ids), 8))
    ...     return xarray.DataArray(x, dims=("image", "unit"), coords={"id": ("image", ids)})
    >>> x, y = recording(list("abcde")), recording(list("ecafb"))
    >>> x, y = repsim.align(x, y, by="id")
    >>> "".join(x.id.values), "".join(y.id.values)
    ('abce', 'abce')
    >>> bool(0 <= repsim.cka(x, y) <= 1)
    True

    Parameters
    ----------
    *arrays : xarray.DataArray or mapping of str to xarray.DataArray
        Activations (n, ...) of any number of samples each, which are the first dimension, or
        mappings such as :func:`pairwise` takes.
    by : str or sequence of str
        The coordinate along the first dimension whose labels say which sample a row is. The name of
        a MultiIndex, or several names, take the labels together.

    Returns
    -------
    tuple
        One entry for each argument: the array, or a dict of the arrays of the mapping. All have the
        same samples in the same order; values and dtypes are unchanged. Other coordinates along the
        samples, such as the order of presentation, are dropped where they do not agree with those
        of the arrays before.

    Raises
    ------
    ArrayTypeError
        An argument is not a labelled array or a mapping of these.
    InputError
        No arrays, no such coordinate along the first dimension, a label that is missing or that two
        samples have, no common sample, or first dimensions of different names.

    Notes
    -----
    Samples that one of the arrays does not have are left out of all, so look at the number of
    samples that remain. Samples measured several times share a label: average them first, or name
    the coordinates that tell them apart, such as ``by=("stimulus_id", "repetition")``. An array
    that already has these samples in this order is returned without a copy. Cost O(n) for the
    labels and one copy of each reordered array.

    References
    ----------
    Hoyer, Hamman 2017, "xarray: N-D labeled arrays and datasets in Python", Journal of Open
    Research Software 5. The common labels are those of its inner join.
    """
    if not isinstance(by, str | Sequence) or not all(isinstance(name, str) for name in by):
        raise InputError(
            f"align: by must be the name of a coordinate, or several names.\n  got {by!r}"
        )
    names = (by,) if isinstance(by, str) else tuple(by)
    named = dict(_each(arrays))
    if not named or not names:
        raise InputError("align: there is nothing to align.\n  Pass labelled arrays and by=.")
    labels = {name: _labels(name, x, names) for name, x in named.items()}
    (first, common), *others = labels.items()
    for name, index in others:
        shared = common[common.isin(index)]
        if not len(shared):
            raise InputError(
                f"align: {name} has no sample in common with those before.\n"
                f"  {by!r} is {common[0]!r}, … in {first}, and {index[0]!r}, … in {name}\n"
                f"  Do both sides write their labels in the same way?"
            )
        common = shared
    aligned: dict[str, Any] = {}
    for name, x in named.items():
        rows = labels[name].get_indexer(common)
        same = len(rows) == x.shape[0] and (rows[1:] > rows[:-1]).all()
        moved = x if same else x.isel({x.dims[0]: rows})
        aligned[name] = _without_conflicts(moved, list(aligned.values()), names)
    check_same_samples("align", aligned)
    return tuple(
        {key: aligned[_label(i, key)] for key in given}
        if isinstance(given, Mapping)
        else aligned[_label(i)]
        for i, given in enumerate(arrays)
    )


def _each(arrays: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """Yield every array with the name that it has in messages."""
    for i, given in enumerate(arrays):
        if isinstance(given, Mapping):
            for key in given:
                yield _label(i, key), given[key]
        else:
            yield _label(i), given


def _label(i: int, key: object = None) -> str:
    return f"arrays[{i}]" if key is None else f"arrays[{i}][{key!r}]"


def _labels(name: str, x: Any, by: tuple[str, ...]) -> Any:
    """Return the labels of the samples of one array, checked to be one for each sample."""
    if not isinstance(x, labelled_types()) or not hasattr(x, "coords") or not x.ndim:
        raise ArrayTypeError(
            f"align: {name} must be a labelled array (xarray.DataArray) of samples.\n"
            f"  {describe(name, x)}\n"
            f"  Give it labels, for example xarray.DataArray(x, dims=('sample', 'feature'), "
            f"coords={{'sample': ids}})."
        )
    along = [str(label) for label, c in x.coords.items() if c.dims == x.dims[:1]]
    for label in by:
        if label not in along:
            raise InputError(
                f"align: {name} has no coordinate {label!r} along its first dimension.\n"
                f"  {describe(name, x)}, dimensions {x.dims}; along {x.dims[0]!r}: "
                f"{', '.join(map(repr, along)) or 'none'}\n"
                f"  Samples must be the first dimension: transpose the array, or assign the "
                f"coordinate."
            )
    found = [x.coords[label].to_index() for label in by]
    index = found[0] if len(found) == 1 else _together(found)
    _require_one_each(name, index, by)
    return index


def _together(found: list[Any]) -> Any:
    import pandas  # type: ignore[import-untyped]  # which xarray has loaded

    return pandas.MultiIndex.from_arrays([list(index) for index in found])


def _require_one_each(name: str, index: Any, by: tuple[str, ...]) -> None:
    label = repr(by[0] if len(by) == 1 else by)
    levels = range(index.nlevels)
    missing = sum(index.get_level_values(level).isna() for level in levels) > 0
    if missing.any():
        raise InputError(
            f"align: every sample of {name} must have a label.\n"
            f"  {int(missing.sum())} of {len(index)} labels of {label} are missing\n"
            f"  Drop these samples first."
        )
    if not index.is_unique:
        again = index[index.duplicated()]
        raise InputError(
            f"align: a label must belong to one sample of {name}.\n"
            f"  {len(again)} of {len(index)} samples repeat a label of {label}, the first is "
            f"{again[0]!r}\n"
            f"  Average the repetitions, or pass by= all coordinates that tell them apart."
        )


def _without_conflicts(x: Any, before: list[Any], by: tuple[str, ...]) -> Any:
    """Drop coordinates along the samples that differ from those of the arrays before.

    A level of a MultiIndex cannot be dropped alone, so the index becomes plain coordinates.
    """
    axis = x.dims[0]
    conflicting = {
        label
        for label, c in x.coords.items()
        if c.dims == (axis,)
        and any(
            label in y.coords and not same_labels(c.values, y.coords[label].values) for y in before
        )
    }
    if not conflicting:
        return x
    if axis in x.xindexes and len(x.xindexes.get_all_coords(axis)) > 1:
        x = x.reset_index(axis)
    return x.drop_vars([label for label in conflicting if label in x.coords and label not in by])
