"""The error about a package that is not installed, with the line that installs it."""

from __future__ import annotations

import re

__all__ = ["install_line", "missing_package"]

OPTIONAL = {
    "PIL", "dask", "jinja2", "markupsafe", "matplotlib", "ot", "rich", "scipy", "sklearn", "torch",
    "typer", "xarray", "zarr",
}  # fmt: skip
"""The modules that repsim imports when they are needed."""

DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "ot": "pot", "markupsafe": "jinja2"}
"""The name for pip, where it is not that of the module."""


def missing_package(what: str, error: ModuleNotFoundError) -> ModuleNotFoundError | None:
    """Return the error that says what needs a package; None if repsim does not know it.

    Parameters
    ----------
    what : str
        What needs it: "repsim.compare", "write_report".
    error : ModuleNotFoundError
        What the import raised.
    """
    name = str(error.name).partition(".")[0]
    if name not in OPTIONAL:
        return None
    return ModuleNotFoundError(
        f"{what} needs {name}, which is not installed.\n  Install it: {install_line(name)}",
        name=error.name,
    )


def install_line(name: str) -> str:
    """Return the command that installs a package, in the versions that repsim takes."""
    return f"pip install '{_requirement(DISTRIBUTIONS.get(name, name))}'"


def _requirement(distribution: str) -> str:
    """Return a requirement of repsim without its marker, such as 'torch>=2.7'."""
    from importlib import metadata  # on call: it costs a third of NumPy's own import

    # The extras of a wheel cannot be named where no index has it, but what they list can.
    try:
        lines = metadata.requires("repsim") or []
    except metadata.PackageNotFoundError:  # run from a folder of sources
        return distribution
    for line in lines:
        requirement = line.partition(";")[0].strip()
        if re.split(r"[\s\[<>=!~(]", requirement, maxsplit=1)[0].lower() == distribution.lower():
            return requirement
    return distribution
