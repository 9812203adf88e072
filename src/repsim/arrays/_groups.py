"""Groups of samples, which are permuted, left out, held out and drawn as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim.arrays._readable import to_numpy

__all__ = ["Groups", "Indices", "one_each", "resolve_groups"]

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Groups:
    """The rows of each group, groups in the order in which they first appear.

    Parameters
    ----------
    rows : tuple of int arrays
        The rows of each group, in the order of the arrays.
    """

    rows: tuple[Indices, ...]

    @property
    def sizes(self) -> list[int]:
        """Number of samples of each group."""
        return [len(rows) for rows in self.rows]

    @property
    def labels(self) -> Indices:
        """The number of the group of each sample."""
        out = np.empty(sum(self.sizes), dtype=np.int64)
        for number, rows in enumerate(self.rows):
            out[rows] = number
        return out

    def same_size(self, operation: str) -> Indices:
        """Return the rows as a matrix (groups, samples per group); raise if group sizes differ."""
        sizes = self.sizes
        if len(set(sizes)) > 1:
            raise InputError(
                f"{operation}: all groups must have the same number of samples.\n"
                f"  {len(sizes)} groups of {min(sizes)} to {max(sizes)} samples\n"
                f"  A group takes the place of another, sample by sample: keep the same number of "
                f"each. The jackknife takes groups of any size."
            )
        return np.stack(self.rows)


def one_each(
    operation: str, argument: str, values: Any, n: int, what: str, *, hint: str = ""
) -> list[Any]:
    """Return the values of an argument that has one for each of n samples, or raise.

    Parameters
    ----------
    operation, argument : str
        The caller and its argument, for errors.
    values : sequence or one-dimensional array
        As the user passed them.
    n : int
        The number of samples.
    what : str
        What a value is, such as "label".
    hint : str
        A last line of the error for another number of values.
    """
    array = getattr(values, "ndim", None) is not None
    if isinstance(values, str | bytes) or not (array or hasattr(values, "__len__")):
        raise InputError(
            f"{operation}: {argument} must hold one {what} for each sample.\n"
            f"  got {type(values).__name__}"
        )
    if array and values.ndim != 1:
        raise InputError(
            f"{operation}: {argument} must be one-dimensional.\n  got shape {tuple(values.shape)}"
        )
    out = to_numpy(values).tolist() if array else list(values)
    if len(out) != n:
        raise InputError(
            f"{operation}: {argument} must hold one {what} for each sample.\n"
            f"  got {len(out)} {what}s for n={n} samples" + (hint and f"\n  {hint}")
        )
    return out


def resolve_groups(operation: str, groups: Any, n: int) -> Groups | None:
    """Turn one label per sample into groups of rows; return ``None`` for ``None``.

    Parameters
    ----------
    operation : str
        The caller, for errors.
    groups : sequence or one-dimensional array of n labels, or None
        Rows with equal labels form a group; they need not be adjacent.
    n : int
        The number of samples.
    """
    if groups is None:
        return None
    hint = "For g images of t tokens each: numpy.repeat(numpy.arange(g), t)."
    labels = one_each(operation, "groups", groups, n, "label", hint=hint)
    members: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        if label is None or label != label:  # NaN is not equal to itself
            raise InputError(
                f"{operation}: groups must have a label for every sample.\n"
                f"  got {label!r} in row {row}"
            )
        try:
            members.setdefault(label, []).append(row)
        except TypeError as error:
            raise InputError(
                f"{operation}: groups must hold labels that can be compared: numbers, strings or "
                f"tuples of them.\n  got {label!r} in row {row}"
            ) from error
    if len(members) < 2:
        raise InputError(
            f"{operation}: groups must name at least two groups.\n"
            f"  all {n} samples are in group {labels[0]!r}\n"
            f"  Only the groups vary, and one group alone has no spread."
        )
    return Groups(tuple(np.asarray(rows, dtype=np.int64) for rows in members.values()))
