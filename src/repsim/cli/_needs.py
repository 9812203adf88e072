"""Packages that only some commands need, and how to install a missing one."""

from __future__ import annotations

import importlib
from typing import Any

from repsim._missing import install_line
from repsim.cli._outcome import UsageError

__all__ = ["need"]


def need(name: str, purpose: str) -> Any:
    """Import a module, or raise an error that says why it is needed and how to install it."""
    package = name.partition(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != package:
            raise
        raise UsageError(
            f"{purpose} needs {package}, which is not installed.\n"
            f"  Install it: {install_line(package)}"
        ) from error
