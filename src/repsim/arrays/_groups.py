"""Groups of samples, which are permuted, left out, held out and drawn as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from repsim._errors import InputError
from repsim.arrays._readable import to_numpy

__all__ = ["Groups", "Indices", "resolve_groups"]

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
    array = getattr(groups, "ndim", None) is not None
    if isinstance(groups, str | bytes) or not (array or hasattr(groups, "__len__")):
        raise InputError(
            f"{operation}: groups must hold one label for each sample.\n"
            f"  got {type(groups).__name__}"
        )
    if array and groups.ndim != 1:
        raise InputError(
            f"{operation}: groups must be one-dimensional.\n  got shape {tuple(groups.shape)}"
        )
    labels = to_numpy(groups).tolist() if array else list(groups)
    if len(labels) != n:
        raise InputError(
            f"{operation}: groups must hold one label for each sample.\n"
            f"  got {len(labels)} labels for n={n} samples\n"
            f"  For g images of t tokens each: numpy.repeat(numpy.arange(g), t)."
        )
    members: dict[object, list[int]] = {}
    for row, label in enumerate(labels):
        if label is None or label != label:  # NaN is not equal to itself
            raise InputError(
                f"{operation}: groups must have a label for every sample.\n"
                f"  got {label!r} in row {row}"
            )
        members.setdefault(label, []).append(row)
    if len(members) < 2:
        raise InputError(
            f"{operation}: groups must name at least two groups.\n"
            f"  all {n} samples are in group {labels[0]!r}\n"
            f"  Only the groups vary, and one group alone has no spread."
        )
    return Groups(tuple(np.asarray(rows, dtype=np.int64) for rows in members.values()))
