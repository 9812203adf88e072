"""Attributes of a result in a form that NetCDF files preserve."""

from __future__ import annotations

import numpy as np

__all__ = ["attribute"]


def attribute(value: object) -> str | int | float:
    """Return an option as text or a number; booleans, None and objects become their ``repr``.

    >>> attribute(0.5), attribute("all"), attribute(None), attribute(2**40)
    (0.5, 'all', 'None', '1099511627776')
    """
    if isinstance(value, np.generic):  # a number of NumPy has a shape, as an array has
        value = value.item()
    if (shape := getattr(value, "shape", None)) is not None:
        return f"array {tuple(shape)}"
    if isinstance(value, str | float):
        return value
    # Integers of NetCDF-3 have 32 bits.
    short = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return value if short else repr(value)  # type: ignore[return-value]
