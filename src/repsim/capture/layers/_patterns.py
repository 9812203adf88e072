"""Options by name or glob of layers: which of them is meant."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase

__all__ = ["matching"]


def matching(labels: Collection[str], patterns: Collection[str]) -> list[str]:
    """Return the patterns that match a layer of these labels; the first of them is meant.

    An exact label takes precedence over a glob, an earlier glob over a later one.

    >>> matching(["blocks.0"], ["blocks.*", "*.0", "head", "blocks.0"])
    ['blocks.0', 'blocks.*', '*.0']

    Parameters
    ----------
    labels : collection of str
        The labels of one layer, the most exact first.
    patterns : collection of str
        Names and globs.
    """
    exact = [label for label in labels if label in patterns]
    globs = [p for p in patterns if any(fnmatchcase(label, p) for label in labels)]
    return list(dict.fromkeys(exact + globs))
