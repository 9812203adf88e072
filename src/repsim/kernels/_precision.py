"""How many digits of the features a kernel multiplies: an option that kernels share."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeAlias

from repsim._array import require_precision
from repsim._errors import InputError

__all__ = ["Precision", "repr_of", "with_precision"]

Precision: TypeAlias = Literal["highest", "tf32", "bf16"]
"""The factors whole, or rounded to 11 or 8 significant bits; see docs/precision.md."""


def repr_of(kernel: Any) -> str:
    """Write a kernel as it is made; its precision only where it is not the default."""
    shown = [
        f"{field.name}={getattr(kernel, field.name)!r}"
        for field in fields(kernel)
        if field.name != "precision" or kernel.precision != "highest"
    ]
    return f"{type(kernel).__name__}({', '.join(shown)})"


def with_precision(operation: str, kernel: Any, precision: str) -> Any:
    """Return the kernel at this precision, or say that it has no choice of it.

    Parameters
    ----------
    operation : str
        The caller's name, for errors.
    kernel : Kernel
        Any kernel.
    precision : {"highest", "tf32", "bf16"}
        As in :class:`Linear`.

    Returns
    -------
    Kernel
        The kernel itself if it has this precision.

    Raises
    ------
    InputError
        There is no such precision, or the kernel has no choice of it.
    """
    require_precision(operation, precision)
    if getattr(kernel, "precision", None) == precision:
        return kernel
    names = {field.name for field in fields(kernel)} if is_dataclass(kernel) else set()
    if "precision" not in names:
        raise InputError(
            f"{operation}: this kernel has no choice of precision.\n"
            f"  precision={precision!r}    kernel: {kernel!r}\n"
            f"  Linear, RBF and Laplacian have one, for they do not depend on the mean of the "
            f"features; leave precision out for others."
        )
    return replace(kernel, precision=precision)
