"""The option ``precision`` of kernels: how many digits of the features they multiply."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeAlias

from repsim._errors import InputError
from repsim.arrays import require_precision

__all__ = ["Precision", "repr_of", "with_precision"]

Precision: TypeAlias = Literal["highest", "tf32", "bf16"]
"""All digits of the factors, or 11 or 8 significant bits; see docs/precision.md."""


def repr_of(kernel: Any) -> str:
    """Return the expression that makes the kernel; omit the precision if it is the default."""
    shown = [
        f"{field.name}={getattr(kernel, field.name)!r}"
        for field in fields(kernel)
        if field.name != "precision" or kernel.precision != "highest"
    ]
    return f"{type(kernel).__name__}({', '.join(shown)})"


def with_precision(operation: str, kernel: Any, precision: str) -> Any:
    """Return the kernel with this precision; raise if it takes no precision.

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
        There is no such precision, or the kernel takes none.
    """
    require_precision(operation, precision)
    if getattr(kernel, "precision", None) == precision:
        return kernel
    names = {field.name for field in fields(kernel)} if is_dataclass(kernel) else set()
    if "precision" not in names:
        raise InputError(
            f"{operation}: this kernel takes no precision.\n"
            f"  precision={precision!r}    kernel: {kernel!r}\n"
            f"  Linear, RBF and Laplacian take one because they do not depend on the mean of the "
            f"features. Leave precision out for other kernels."
        )
    return replace(kernel, precision=precision)
