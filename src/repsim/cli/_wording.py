"""The options of the command for what messages of the library say in Python."""

from __future__ import annotations

import re

__all__ = ["on_the_command_line"]

TOKENS = {
    r"\bgrid=": "--grid",
    r"\bprefix=": "--prefix",
    r"\bpatch_size=": "--patch-size",
    r"\blayers=": "--layers",
}
BATCHES = {
    r"\b(smaller|larger) batches\b": "--batch-size",
    r"\battention_mask into the batch\b": "attention_mask in the .npz of --data",
}
WORDS = {
    "attention": TOKENS | BATCHES,
    "analyse": TOKENS | BATCHES,
    "compare": {
        r"\btransform=": "--transform",
        r"\btransform_y=": "--transform-y",
        r"\blayers=": "--layers",
        r"\blayers_y=": "--layers-y",
    }
    | BATCHES,
    "measure": {r"\bestimator=": "--estimator", r"\bkernel=": "--kernel"},
}
"""By command: what a message says, and what is typed for it."""


def on_the_command_line(text: str, command: str) -> str:
    r"""Return a last line of a message with the options for the arguments in it, or nothing.

    >>> on_the_command_line("Take the real ones: transform='mean'.", "compare")
    '\n  On the command line: --transform.'

    Parameters
    ----------
    text : str
        A message of the library.
    command : str
        The command that runs; a command has its own options.
    """
    found = [typed for said, typed in WORDS.get(command, {}).items() if re.search(said, text)]
    return f"\n  On the command line: {', '.join(found)}." if found else ""
