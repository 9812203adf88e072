"""Text from outside in a picture."""

from __future__ import annotations

from repsim._shown import shown

__all__ = ["plain"]


def plain(text: str) -> str:
    """Return a text that matplotlib draws as it is.

    A dollar sign starts no formula, and characters that no font has are escaped.
    """
    return "\n".join(map(shown, text.split("\n"))).replace("$", r"\$")
