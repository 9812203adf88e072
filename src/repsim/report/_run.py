"""A run folder: one NetCDF file per result, written atomically."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import xarray as xr

from repsim._errors import InputError, StateError
from repsim._options import as_path
from repsim.results import UnstorableError, decode, encode
from repsim.storage import LONGEST, safe_name, write_whole

__all__ = ["load_results", "save_result"]

SUFFIX = ".nc"
UNNAMED = "value"
"""The variable of a DataArray that has no name."""


def save_result(
    folder: str | os.PathLike[str], name: str, result: xr.Dataset | xr.DataArray
) -> Path:
    """Write a result into a run folder, as ``folder/<name>.nc``.

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

    Parameters
    ----------
    folder : str or os.PathLike
        The run folder; it is created if it does not exist.
    name : str
        Name of the result, any non-empty text. Characters that a file name cannot contain are
        percent-encoded (``/`` is ``%2F``); :func:`load_results` returns the original name. A result
        of the same name is replaced and becomes the latest.
    result : xarray.Dataset or xarray.DataArray
        A result of a function of repsim. A DataArray becomes the only variable of a Dataset, under
        its name or as "value". Variables hold real numbers of 32 or 64 bits (integers up to 32 bits
        in value), booleans or text; attributes are text, numbers or lists of numbers.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        `name` is empty or too long for a file. `result` is not a result, or a part of it would come
        back changed (dates, objects, an attribute None); the message names the part.
    OSError
        The folder or the file cannot be written; earlier results are intact.

    Notes
    -----
    The file is NetCDF-3 as xarray writes it; every program that reads NetCDF can read it. One
    attribute is added, ``repsim_result_sha256``, a checksum over all bytes of the file. The file is
    written aside, synced and renamed, so a reader finds the old result or the new one, never a
    part. Cost: three times the size of the result in memory, because the file is read back and
    compared before it is written.
    """
    path = Path(as_path("save_result", "folder", folder)) / (_file_name(name) + SUFFIX)
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

    >>> import repsim.report
    >>> repsim.report.load_results("no/such/folder")
    Traceback (most recent call last):
    repsim._errors.InputError: load_results: there is no such folder.
      folder: no/such/folder
      Name the folder that save_result wrote into.

    Parameters
    ----------
    folder : str or os.PathLike
        A folder into which :func:`save_result` wrote. Its files ``*.nc`` are read; other files,
        such as the page, are ignored.

    Returns
    -------
    dict of str to xarray.Dataset
        Results in memory, by the names of their files. Results of :func:`save_result` come back
        with their values, dtypes and attributes; integers have 64 bits, text has dtype object, and
        a list of one number becomes that number. NetCDF files of other writers are read without a
        check; the time of the file counts as the time of saving.

    Raises
    ------
    InputError
        There is no such folder, or it has no results.
    StateError
        A file was changed since :func:`save_result` wrote it (its checksum does not match), or is
        not NetCDF; the message names it. A file that another program has rewritten counts as
        changed if it still has the attribute ``repsim_result_sha256``.

    Notes
    -----
    Cost: the size of all results. See :func:`save_result` for an example. NetCDF-4 files of other
    writers need h5netcdf or netCDF4.
    """
    folder = Path(as_path("load_results", "folder", folder))
    if not os.path.isdir(folder):  # unlike Path, False for a name that is too long
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
        name = unquote(path.name.removesuffix(SUFFIX), errors="surrogatepass")
        found.append((path.stat().st_mtime_ns if saved is None else saved, name, dataset))
    if not found:
        raise InputError(
            f"load_results: there is no result in the folder.\n"
            f"  folder: {folder}, without files *{SUFFIX}\n"
            "  Name the folder that save_result wrote into."
        )
    return {name: dataset for _, name, dataset in sorted(found, key=lambda each: each[:2])}


def as_dataset(operation: str, result: Any) -> xr.Dataset:
    """Return a result as a Dataset."""
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
    """`name` as a file name that is valid on any system; different names remain different."""
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"save_result: name must be a text that is not empty.\n  name: {name!r}\n"
            "  Call the result what the report should call it, such as 'ViT with CNN'."
        )
    safe = safe_name(name)
    if len(safe.encode()) > LONGEST:
        raise InputError(
            f"save_result: name is too long for a file.\n"
            f"  name: {len(safe.encode())} bytes, at most {LONGEST}\n"
            "  Shorten it; attributes of the result have room for the rest."
        )
    return safe
