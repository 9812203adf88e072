"""Numbers as text: minus signs, percent, standard errors, undefined values."""

from __future__ import annotations

import numpy as np

__all__ = ["number", "ordinal", "percent", "plus_minus"]

ROUNDING = 1e-12
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """Return a number as text, with a minus sign: "−0.012"; "undefined" for NaN.

    A number that `digits` decimals would leave with fewer than two significant digits has two:
    "0.0034", "3.4 × 10⁻⁵". Below 1e-12 it is rounding and has only zeros.
    """
    if not np.isfinite(value):
        return "undefined" if np.isnan(value) else ("∞" if value > 0 else "−∞")
    size = abs(value)
    if ROUNDING <= size < 10.0 ** (1 - digits):
        text, _, power = f"{value:.2g}".partition("e")
        raised = f" × 10{str(int(power)).translate(RAISED)}" if power else ""
        return text.replace("-", "−") + raised
    text = f"{value:.{digits}f}" if size < 1000 else f"{value:,.0f}"
    # No minus sign before zeros only.
    if float(text.replace(",", "")) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """Return a share as text: "93.1%"; "undefined" for NaN."""
    return f"{value:.{digits}%}" if np.isfinite(value) else number(value)


def plus_minus(error: float | None) -> str:
    """Return a standard error as text after its value: " ± 0.012"; empty without one."""
    if error is None or not np.isfinite(error):
        return ""
    return f" ± {number(error)}" if error >= 0.0005 else " ± <0.001"


def ordinal(n: int) -> str:
    """Return "second" for 2, "third" for 3, then "4th" and so on."""
    return {2: "second", 3: "third"}.get(n, f"{n}th")
