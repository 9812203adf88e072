"""Computing in the precision of the inputs inside the caller's ``torch.autocast``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

__all__ = ["active_autocast", "without_autocast"]

P = ParamSpec("P")
R = TypeVar("R")

KINDS = ("cpu", "cuda", "mps", "xpu")
"""Types of devices that have autocast."""


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """Turn autocast off while the function runs.

    Inside autocast every matrix product of torch tensors is rounded to half precision, whatever
    their dtype. CKA of features with a mean would then be NaN, 0 or another wrong number.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        torch: Any = sys.modules.get("torch")  # arrays of other frameworks need no torch
        active = [] if torch is None else active_autocast(torch)
        if not active:
            return function(*args, **kwargs)
        with ExitStack() as stack:
            for kind in active:
                stack.enter_context(torch.autocast(kind, enabled=False))
            return function(*args, **kwargs)

    return run


def active_autocast(torch: Any, kinds: Iterable[str] = KINDS) -> list[str]:
    """Return the types of devices whose autocast is on.

    Parameters
    ----------
    torch : module
        The package, which this floor does not import.
    kinds : iterable of str
        The types to ask for.

    Returns
    -------
    list of str
    """
    return [kind for kind in kinds if torch.is_autocast_enabled(kind)]
