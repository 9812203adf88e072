"""Text from outside, as it is shown: names of layers and of files may hold any characters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable

__all__ = ["did_you_mean", "shortened", "shown", "shown_lines"]

HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: a terminal obeys them
    "\u2028\u2029"  # line breaks
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # directions of writing, which reorder a line
    "\ud800-\udfff\ufeff]"  # bytes that are not UTF-8, and no character at all
)


SYNONYMS = (
    {"correlation", "pearson", "corr"},
    {"euclidean", "l2"},
    {"kendall", "tau", "tau-b", "tau_b"},
    {"kendall_a", "tau-a", "tau_a"},
    {"whitened", "corr_cov", "cosine_cov"},
    {"mean", "avg", "average"},
    {"unbiased", "debiased"},
    {"rbf", "gaussian"},
)
"""Names of one thing: ours, and those of other packages and papers."""


def shown(text: str) -> str:
    r"""Return a text in one line, with each character escaped that would not be seen.

    >>> print(shown("\x1b[31mred\n"), shown("caf\u00e9"))
    \x1b[31mred\n café
    """
    return HIDDEN.sub(_escape, text)


def shown_lines(text: str) -> str:
    r"""Return a message in its lines; every line after the first is indented by two spaces.

    >>> print(shown_lines("cka: one.\n  got a\nb"))
    cka: one.
      got a\nb

    A line break without the two spaces belongs to a name in the message, and is escaped.
    """
    return "\n".join(map(shown, re.split("\n(?=  )", text)))


def shortened(text: str, longest: int) -> str:
    """Return a text, or its beginning and three dots if it has more than ``longest`` characters.

    >>> shortened("resnet50", 8), shortened("resnet101", 8)
    ('resnet50', 'resne...')
    """
    return text if len(text) <= longest else text[: longest - 3] + "..."


def did_you_mean(
    name: object,
    names: Iterable[str],
    *,
    show: Callable[[str], str] = repr,
    most: int = 3,
    likeness: float = 0.6,
) -> str:
    r"""Return a last line of a message that suggests similar names, or nothing.

    >>> did_you_mean("CKNN", ["cka", "cknna", "rsa"])
    "\n  Did you mean 'cknna'?"
    >>> did_you_mean("pearson", ["euclidean", "correlation"])
    "\n  Did you mean 'correlation'?"

    Parameters
    ----------
    name : object
        What was passed; if it is no string, nothing is similar to it.
    names : iterable of str
        The names that exist.
    show : callable, default repr
        How a name is written.
    most : int, default 3
        The largest number of names.
    likeness : float, default 0.6
        The least likeness, from 0 to 1. Capitals do not matter.
    """
    if not isinstance(name, str):
        return ""
    folded: dict[str, list[str]] = {}
    for each in names:
        folded.setdefault(each.lower(), []).append(each)
    close = [key for same in SYNONYMS if name.lower() in same for key in folded if key in same]
    close += difflib.get_close_matches(name.lower(), list(folded), n=most, cutoff=likeness)
    found = [each for key in dict.fromkeys(close) for each in folded[key]][:most]
    return f"\n  Did you mean {' or '.join(map(show, found))}?" if found else ""


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
