"""The samples that several models share, and their features as a measure reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from repsim._errors import InputError, warn
from repsim.analysis._extract_rows import Values
from repsim.analysis.features._keepers import SEQUENCE
from repsim.analysis.features._models import POSITION, ModelFeatures
from repsim.arrays import Indices, labelled_types, same_labels, to_numpy
from repsim.measures.pairs import Rows

__all__ = ["paired_rows", "prepared_layers"]


def paired_rows(
    operation: str, models: Mapping[str, ModelFeatures]
) -> tuple[int, dict[str, Indices | None]]:
    """Return the number of shared samples, and the rows of each model that hold them.

    Samples are matched by their ids where the models have any; the order is that of the first.
    None stands for all rows in their order.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    models : mapping of str to ModelFeatures
        The features by model.

    Warns
    -----
    RepsimWarning
        Samples that are not in all models are left out.
    """
    n, rows = _paired(operation, models)
    _check_labels(operation, models, rows)
    return n, rows


def _paired(
    operation: str, models: Mapping[str, ModelFeatures]
) -> tuple[int, dict[str, Indices | None]]:
    named = {name: each.ids for name, each in models.items() if each.ids is not None}
    if all(ids == next(iter(named.values())) for ids in named.values()):
        sizes = {name: each.n for name, each in models.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(
                f"{operation}: all models must describe the same samples.\n"
                f"  samples: {', '.join(f'{name} {n}' for name, n in sizes.items())}\n"
                f"  Give their samples ids (sample_ids=), or pair the rows before."
            )
        return next(iter(sizes.values())), dict.fromkeys(models)
    if len(named) < len(models):
        without = [name for name in models if name not in named]
        raise InputError(
            f"{operation}: samples can be matched only if all models have their ids.\n"
            f"  the ids of {', '.join(map(repr, list(named)[:4]))} differ; there are none of "
            f"{', '.join(map(repr, without[:4]))}\n"
            f"  Give all models ids (sample_ids=), or pair the rows before."
        )
    places = {name: _places(operation, name, ids) for name, ids in named.items()}
    first, *others = places.values()
    common = [each for each in first if all(each in other for other in others)]
    if not common:
        raise InputError(
            f"{operation}: the models have no sample in common.\n"
            f"  {', '.join(f'{name}: {ids[0]!r}, ...' for name, ids in list(named.items())[:4])}\n"
            f"  Were the ids written in one way for all of them?"
        )
    most = max(models[name].n for name in models)
    if len(common) < most:
        warn(
            f"{operation}: {len(common)} of up to {most} samples are in all models; the others "
            f"are left out."
        )
    rows = {
        name: np.array([place[each] for each in common], dtype=np.int64)
        for name, place in places.items()
    }
    return len(common), dict(rows)


def _check_labels(
    operation: str, models: Mapping[str, ModelFeatures], rows: Mapping[str, Indices | None]
) -> None:
    """Raise if coordinates of one name show that paired rows are of different samples.

    Where all models have ids, other coordinates may differ, such as the order of presentation. The
    ids of tokens are numbers of rows, so their inputs and positions must agree.
    """
    named = all(each.ids is not None for each in models.values())
    known: dict[str, tuple[str, Values]] = {}
    for name, each in models.items():
        for label, values in each.labels.items():
            if named and not (each.sequences is not None and label in (SEQUENCE, POSITION)):
                continue
            taken = rows[name]
            here = values if taken is None else values[taken]
            of, before = known.setdefault(label, (name, here))
            if not same_labels(before, here):
                raise _of_others(operation, label, (of, before), (name, here))


def _of_others(
    operation: str, label: str, one: tuple[str, Values], other: tuple[str, Values]
) -> InputError:
    a, b = (values.tolist() for _, values in (one, other))
    row = next(row for row, (left, right) in enumerate(zip(a, b, strict=True)) if left != right)
    by = (SEQUENCE, POSITION) if label in (SEQUENCE, POSITION) else label
    return InputError(
        f"{operation}: a row must describe the same sample in all models.\n"
        f"  {label!r} of row {row} is {a[row]!r} in models[{one[0]!r}], and {b[row]!r} in "
        f"models[{other[0]!r}]\n"
        f"  Bring them into one order before: repsim.align(x, y, by={by!r})."
    )


def _places(operation: str, name: str, ids: list[Any]) -> dict[Any, int]:
    places = {each: row for row, each in enumerate(ids)}
    if len(places) < len(ids):
        twice = next(each for row, each in enumerate(ids) if places[each] != row)
        raise InputError(
            f"{operation}: two samples of models[{name!r}] have one id.\n  {twice!r}\n"
            f"  Average repeated samples before, or give each its own id."
        )
    return places


def prepared_layers(
    operation: str,
    name: str,
    features: ModelFeatures,
    rows: Indices | None,
    fewest: tuple[int, str],
    *,
    clip: float | None,
    normalise: bool,
) -> dict[str, Rows]:
    """Return the layers of a model on the shared samples, clipped and normalised when read.

    Parameters
    ----------
    operation, name : str
        The caller and the model, for errors.
    features : ModelFeatures
        The features of the model.
    rows : array of int, optional
        Its rows that hold the shared samples; by default all.
    fewest : tuple of int and str
        The fewest samples of the measure, and what needs them.
    clip : float, optional
        The quantile of absolute values beyond which values are clipped.
    normalise : bool
        Whether each sample is divided by its norm.
    """

    def layer(label: str, x: Any) -> Rows:
        kept: list[Values] = []

        def read() -> Values:
            if kept:
                return kept[0]
            values = to_numpy(x) if hasattr(x, "detach") else np.asarray(x)
            values = values if rows is None else values[rows]
            values = _outliers_clipped(values.reshape(len(values), -1), clip, normalise)
            if not isinstance(x, labelled_types()):  # it is in memory anyway
                kept.append(values)
            return values

        return Rows.stored(operation, x, f"layer {label!r} of {name!r}", fewest, read)

    return {label: layer(label, x) for label, x in features.layers.items()}


def _outliers_clipped(values: Values, clip: float | None, normalise: bool) -> Values:
    if clip is None and not normalise:
        return values
    wide = np.float64 if values.dtype.kind in "iub" else np.promote_types(values.dtype, np.float32)
    values = values.astype(wide)
    if clip is not None and clip < 1:
        sizes = np.abs(values).reshape(-1)
        place = int(clip * sizes.size)
        limit = np.partition(sizes, place)[place]
        values = np.clip(values, -limit, limit)
    if normalise:
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        values = values / np.where(norms > 0, norms, 1)
    out: Values = values
    return out
