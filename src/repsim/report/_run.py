"""A run folder: one NetCDF file a result, each whole or not there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import xarray as xr

from repsim._errors import InputError, StateError
from repsim.results import UnstorableError, decode, encode
from repsim.storage import write_whole

__all__ = ["load_results", "save_result"]

SUFFIX = ".nc"
LONGEST = 200
"""Bytes of a file's name, with room for what is added while it is written."""

UNNAMED = "value"
"""The variable of a DataArray that has no name."""


def save_result(
    folder: str | os.PathLike[str], name: str, result: xr.Dataset | xr.DataArray
) -> Path:
    """Write a result into a run folder, as ``folder/<name>.nc``.

    Parameters
    ----------
    folder : str or os.PathLike
        The run folder; made where it is missing.
    name : str
        What to call the result, anything but the empty text. Characters that a file's name cannot
        have are written as in an address (``/`` is ``%2F``); :func:`load_results` gives back the
        name as it was. A result of the same name is replaced, and is then the last saved.
    result : xarray.Dataset or xarray.DataArray
        What a function of repsim returned. A DataArray becomes the one variable of a Dataset,
        under its own name, or as "value". Variables hold real numbers of 32 or 64 bits (integers
        up to 32 bits in value), booleans or text; attributes are text, numbers or lists of numbers.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        `name` is empty or too long for a file. `result` is not a result, or a part of it would
        come back changed (dates, objects, an attribute None), saying which part.
    OSError
        The folder or the file cannot be written; what had been saved before is still there.

    Notes
    -----
    The file is NetCDF-3 as xarray writes it, which every program that reads NetCDF reads. One
    attribute is added, ``repsim_result_sha256``, a checksum over all bytes of the file. The file is
    written aside, synced and renamed: a reader finds the result before or the one after, never half
    of one. Cost: three times the size of the result in memory, because the file is read back and
    compared before it is written.

    Examples
    --------
    >>> import tempfile, xarray, repsim.report
    >>> cka = xarray.DataArray(
    ...     [[1.0, 0.5]],
    ...     coords={"layer_x": ["head"], "layer_y": ["head", "stem"]},
    ...     dims=("layer_x", "layer_y"),
    ...     name="cka",
    ...     attrs={"n_samples": 512, "grid": [14, 14]},
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = repsim.report.save_result(folder, "ViT/CNN", cka)
    ...     results = repsim.report.load_results(folder)
    >>> file.name, list(results)
    ('ViT%2FCNN.nc', ['ViT/CNN'])
    >>> results["ViT/CNN"].cka.attrs
    {'n_samples': 512, 'grid': [14, 14]}
    """
    path = Path(folder) / (_file_name(name) + SUFFIX)
    dataset = as_dataset("save_result", result)
    try:
        data = encode(dataset, saved=time.time_ns())
    except UnstorableError as error:
        raise InputError(
            f"save_result: {error.what} of {name!r} cannot be kept in a NetCDF file.\n"
            f"  it is {error.got}\n"
            f"  {error.repair}"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda file: file.write(data))
    return path


def load_results(folder: str | os.PathLike[str]) -> dict[str, xr.Dataset]:
    """Read all results of a run folder, in the order in which they were saved.

    Parameters
    ----------
    folder : str or os.PathLike
        A folder into which :func:`save_result` wrote. Its files ``*.nc`` are read; others, such as
        the page, are passed over.

    Returns
    -------
    dict of str to xarray.Dataset
        By the names of their files, in memory. What :func:`save_result` wrote comes back with its
        values, dtypes and attributes; integers have 64 bits, text is of dtype object, and a list of
        one number is that number. NetCDF files of other writers are read as they are, without a
        check, and take the time of the file as the time they were saved.

    Raises
    ------
    InputError
        There is no such folder, or no result in it.
    StateError
        A file was changed since :func:`save_result` wrote it (its checksum does not fit), or is not
        NetCDF, naming it. A file that another program has rewritten counts as changed as long as it
        has the attribute ``repsim_result_sha256``.

    Notes
    -----
    Cost: the size of all results. See :func:`save_result` for an example. NetCDF-4 files of other
    writers need h5netcdf or netCDF4.

    Examples
    --------
    >>> import repsim.report
    >>> repsim.report.load_results("no/such/folder")
    Traceback (most recent call last):
    repsim._errors.InputError: load_results: there is no such folder.
      folder: no/such/folder
      Name the folder that save_result wrote into.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"load_results: there is no such folder.\n  folder: {folder}\n"
            "  Name the folder that save_result wrote into."
        )
    found: list[tuple[int, str, xr.Dataset]] = []
    for path in sorted(folder.glob("*" + SUFFIX)):
        try:
            dataset, saved = decode(path.read_bytes())
        except ValueError as error:
            raise StateError(
                f"load_results: a file of the folder cannot be read.\n"
                f"  {path} is {error}\n"
                f"  Remove it, or save that result again with save_result."
            ) from error
        name = unquote(path.name.removesuffix(SUFFIX))
        found.append((path.stat().st_mtime_ns if saved is None else saved, name, dataset))
    if not found:
        raise InputError(
            f"load_results: there is no result in the folder.\n"
            f"  folder: {folder}, without files *{SUFFIX}\n"
            "  Name the folder that save_result wrote into."
        )
    return {name: dataset for _, name, dataset in sorted(found, key=lambda each: each[:2])}


def as_dataset(operation: str, result: Any) -> xr.Dataset:
    """Return a result as a Dataset, whichever of the two it is."""
    if isinstance(result, xr.DataArray):
        return result.to_dataset(name=UNNAMED if result.name is None else result.name)
    if not isinstance(result, xr.Dataset):
        raise InputError(
            f"{operation}: result must be an xarray.Dataset or DataArray.\n"
            f"  result: {type(result).__name__}\n"
            "  Pass what a function of repsim returned."
        )
    return result


def _file_name(name: str) -> str:
    """`name` as a file may be called on any system; different names stay different."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"save_result: name must be a text that is not empty.\n  name: {name!r}\n"
            "  Call the result what the report should call it, such as 'ViT with CNN'."
        )
    safe = "".join(
        char if char.isalnum() or char in " _-+=@,()[]" or (char == "." and i) else _quoted(char)
        for i, char in enumerate(name)
    )
    if len(safe.encode()) > LONGEST:
        raise InputError(
            f"save_result: name is too long for a file.\n"
            f"  name: {len(safe.encode())} bytes, at most {LONGEST}\n"
            "  Shorten it; attributes of the result have room for the rest."
        )
    return safe


def _quoted(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode())
