"""Errors and warnings of repsim: one hierarchy, so a caller can catch all of them.

Every message names the operation, the argument, what was expected, what was passed, and the likely
repair.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray


class RepsimError(Exception):
    """Base of every error that repsim raises on purpose."""


class InputError(RepsimError, ValueError):
    """An argument has the right type but a value that the operation cannot use."""


class ArrayTypeError(RepsimError, TypeError):
    """An argument is not an array, or the arrays mix frameworks or devices."""


class NonFiniteError(InputError):
    """NaN or infinity in an input or in a Gram matrix computed from it.

    Attributes
    ----------
    partial : xarray.Dataset or None
        The result of the batches before the offending one, if the operation has such a result.
    """

    partial: xarray.Dataset | None = None


class BandwidthError(InputError):
    """The median distance of samples is zero although they differ, so no bandwidth follows."""

    def __init__(
        self, n: int, convention: str, operation: str = "kernel bandwidth", name: str = "samples"
    ) -> None:
        self._made_of = n, convention, operation, name
        super().__init__(
            f"{operation}: the median distance of {name} is zero (median={convention!r}).\n"
            f"  n={n}, more than half of the pairs are duplicates\n"
            f"  Remove duplicated samples, or fix the bandwidth: RBF(sigma=...)."
        )

    def named(self, operation: str, name: str) -> BandwidthError:
        """Return the same error where the operation and the array are known."""
        return BandwidthError(*self._made_of[:2], operation, name)

    def __reduce__(self) -> tuple[type[BandwidthError], tuple[int, str, str, str]]:
        return BandwidthError, self._made_of


class StateError(RepsimError, ValueError):
    """Accumulator states that do not belong together, or that are not states at all."""


class CheckpointError(RepsimError, OSError):
    """A saved state or a store cannot be written or read: a full disk, a missing folder."""


class CaptureError(RepsimError, RuntimeError):
    """A layer cannot be recorded, or its output is not a batch of representations."""


class LayerNotFoundError(CaptureError, LookupError):
    """A requested layer does not exist, or it never ran in the forward pass."""


class MissingLabelError(LayerNotFoundError, KeyError):
    """There is no such label in a recorder; also a KeyError, as the Mapping protocol requires."""

    __str__ = RuntimeError.__str__  # KeyError would show the repr of its message


class RepsimWarning(UserWarning):
    """Base of every warning that repsim issues."""


class DegenerateWarning(RepsimWarning):
    """A similarity is undefined (a constant representation) and NaN was returned."""


class ChanceWarning(RepsimWarning):
    """A similarity is little above what independent data would have, because samples are few."""


_kept = threading.local()


@contextmanager
def kept_warnings() -> Iterator[list[tuple[str, type[RepsimWarning]]]]:
    """Collect the warnings of this thread instead of issuing them, to be issued where all see them.

    >>> with kept_warnings() as kept:
    ...     warn("a constant layer", DegenerateWarning)
    >>> [message for message, _ in kept]
    ['a constant layer']
    """
    before = getattr(_kept, "messages", None)
    messages: list[tuple[str, type[RepsimWarning]]] = []
    _kept.messages = messages
    try:
        yield messages
    finally:
        _kept.messages = before


def warn(message: str, category: type[RepsimWarning] = RepsimWarning) -> None:
    """Issue a warning that points at the line of the caller outside repsim.

    Frames of torch are skipped too, because torch calls the hooks and the caller calls torch. What
    lies between two frames of repsim is skipped as well: the code of a model that repsim runs.
    """
    kept = getattr(_kept, "messages", None)
    if kept is not None:
        kept.append((message, category))
        return
    found, level, frame = None, 1, sys._getframe()
    while frame.f_back is not None:
        level, frame = level + 1, frame.f_back
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package == "repsim":
            found = None  # the caller is farther out
        elif package != "torch" and found is None:
            found = level
    warnings.warn(message, category, stacklevel=found or level)
