"""How many rows of an output are of one sample, if that differs from batch to batch."""

from __future__ import annotations

from typing import TypeAlias

__all__ = ["Shapes", "may_be_rows"]

Shapes: TypeAlias = tuple[tuple[float, ...], ...]
"""The shapes of the inputs of a model; on axis 0, the rows of a sample."""


def may_be_rows(rows: int, shapes: Shapes, before: int, shapes_before: Shapes) -> bool:
    """Whether `rows` per sample fit these inputs, given the rows and inputs of an earlier batch.

    Images of another size are padded to whole windows, so any number may be right. Where texts of
    another length come with packed images of the same size, the rows are those of the images.

    >>> [may_be_rows(rows, ((1, 30),), 2, ((1, 20),)) for rows in (2, 3, 4)]  # texts
    [False, True, False]
    >>> may_be_rows(4, ((1, 3, 64, 64),), 3, ((1, 3, 48, 48),))  # images
    True
    >>> [may_be_rows(rows, ((6, 12),), 4, ((4, 12),)) for rows in (4, 6)]  # packed patches
    [False, True]
    >>> [may_be_rows(rows, ((4, 12), (1, 30)), 2, ((4, 12), (1, 20))) for rows in (2, 4, 3)]
    [True, False, True]
    """
    pairs = list(zip(shapes, shapes_before, strict=False))
    changed = [(now, old) for now, old in pairs if now != old]
    packed = [now[0] for now, old in pairs if now == old and now[0] > 1]
    if not changed or any(each % rows == 0 for each in packed):
        return rows == before
    return any(
        len(now) != len(old)
        or len(now) > 3
        or any(now[a] != old[a] and abs(rows * old[a] - before * now[a]) < old[a] for a in range(2))
        for now, old in changed
    )
