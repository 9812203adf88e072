"""Any text as the name of a file or folder, on any system."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

__all__ = ["LONGEST", "folders_of", "safe_name"]

LONGEST = 200
"""The most bytes of a name, with room for the suffix used while writing."""

RESERVED = ("zarr.json", "con", "prn", "aux", "nul")
"""Names that Zarr or Windows keep for themselves."""


def safe_name(name: str) -> str:
    r"""Return `name` with all characters percent-encoded that a file name cannot contain.

    Different names remain different; :func:`urllib.parse.unquote` returns the original.

    >>> safe_name("ViT/CNN"), safe_name(".."), safe_name("a\n")
    ('ViT%2FCNN', '%2E.', 'a%0A')
    """
    return "".join(
        char if char.isalnum() or char in " _-+=@,()[]" or (char == "." and i) else _quoted(char)
        for i, char in enumerate(name)
    )


def folders_of(names: Iterable[str]) -> dict[str, str]:
    """Return a folder for each name: distinct folders, on any file system.

    >>> folders_of(["blocks.0", "Blocks.0", "a/b", "zarr.json"])
    {'blocks.0': 'blocks.0', 'Blocks.0': 'Blocks.0%1', 'a/b': 'a%2Fb', 'zarr.json': '%7Aarr.json'}
    >>> folders_of(["__init__", "end.", ""])
    {'__init__': '%5F_init__', 'end.': 'end%2E', '': '%'}

    The same names in the same order have the same folders. A long name is cut and ends in a digest.
    Of two names that differ only in case, the second has a suffix that no other name has.
    """
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        folder = _folder(name)
        number = 0
        while (each := f"{folder}%{number}" if number else folder).casefold() in taken:
            number += 1
        taken.add(each.casefold())
        folders[name] = each
    return folders


def _folder(name: str) -> str:
    # ASCII alone, because some systems normalise other letters.
    safe = "".join(char if char.isascii() else _quoted(char) for char in safe_name(name))
    if not safe:
        return "%"
    if safe.partition(".")[0].casefold() in RESERVED or safe.casefold() in RESERVED:
        safe = _quoted(safe[0]) + safe[1:]
    if safe.startswith("__"):  # reserved by Zarr
        safe = _quoted("_") + safe[1:]
    if safe.endswith((" ", ".")):  # dropped by Windows
        safe = safe[:-1] + _quoted(safe[-1])
    if len(safe) > LONGEST:
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        safe = f"{safe[: LONGEST - 33]}%{digest}"
    return safe


def _quoted(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
