"""What the attributes of a result may be, so that a NetCDF file gives them back as they were."""

from __future__ import annotations

__all__ = ["attribute"]


def attribute(value: object) -> str | int | float:
    """Return an option as text or a number: booleans, None and objects as their ``repr``.

    Examples
    --------
    >>> attribute(0.5), attribute("all"), attribute(None), attribute(2**40)
    (0.5, 'all', 'None', '1099511627776')
    """
    if (shape := getattr(value, "shape", None)) is not None:
        return f"array {tuple(shape)}"
    if isinstance(value, str | float):
        return value
    # NetCDF-3 has integers of 32 bits.
    short = isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31
    return value if short else repr(value)  # type: ignore[return-value]
