"""A Dataset as NetCDF-3 can hold it, and back: whatever the format lacks is written as JSON.

NetCDF-3 knows no 64-bit integers, no booleans, no lists of text and nothing nested, and xarray
reads some attributes as instructions. What a file holds besides stays in one attribute, `MARKER`:
so the text and the numbers remain readable to other programs, and everything comes back as it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from typing import Any

import numpy as np
import xarray as xr
from scipy.io import netcdf_file, netcdf_variable

__all__ = ["MARKER", "Unstorable", "pack", "unpack"]

MARKER = "repsim_result"
FORMAT = "repsim.result/1"

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
"""What may name an attribute of its own; any other goes into the JSON."""

TAKEN = {
    # What xarray does not keep but follows.
    MARKER, "missing_value", "scale_factor", "add_offset", "dtype", "units_metadata", "calendar",
    "coordinates", "grid_mapping", "bounds", "cell_measures", "ancillary_variables",
    "formula_terms", "compress",
    # Types of the format.
    "byte", "char", "short", "ushort", "int", "uint", "int64", "uint64", "float", "real", "double",
    "bool", "string",
    # What SciPy's objects keep of their own, beside the attributes of the file.
    "fp", "filename", "use_mmap", "mode", "maskandscale", "dimensions", "variables",
    "version_byte", "data", *dir(netcdf_file), *dir(netcdf_variable),
}  # fmt: skip
"""Names that an attribute cannot have in the file."""

INT32 = np.iinfo(np.int32)


class Unstorable(ValueError):  # noqa: N818
    """A part of a Dataset that cannot be written: its name, what it is, and what would help."""

    def __init__(self, what: str, got: str, repair: str) -> None:
        super().__init__(f"{what}: {got}")
        self.what, self.got, self.repair = what, got, repair


def pack(dataset: xr.Dataset, **header: Any) -> bytes:
    """Return `dataset` as the bytes of a NetCDF-3 file, with JSON values to be found in `header`.

    Raises
    ------
    Unstorable
        A variable or an attribute is of a kind that no analysis returns: dates, objects.
    """
    stored = dataset.copy()
    stored.encoding = {}
    for name in dataset.variables:
        stored[name] = _plain(dataset, name)
    attrs: dict[str, Any] = {}
    for owner, own in [("", dataset.attrs), *((str(n), v.attrs) for n, v in _items(dataset))]:
        native, attrs[owner] = _split(owner, own)
        if owner:
            stored[owner].attrs = native
        else:
            stored.attrs = native
    stored.attrs[MARKER] = json.dumps(
        {
            "format": FORMAT,
            **header,
            "dtypes": {str(name): _dtype(variable) for name, variable in _items(dataset)},
            "attrs": attrs,
            "checksum": _checksum(dataset),
        }
    )
    try:
        return bytes(stored.to_netcdf(None, engine="scipy"))
    except (ValueError, TypeError, NotImplementedError) as error:
        raise Unstorable("the result", str(error), "Rename or drop that part of it.") from error


def unpack(data: bytes) -> tuple[xr.Dataset, dict[str, Any]]:
    """Return the Dataset in the bytes of a file that `pack` made, and the file's header.

    Raises
    ------
    ValueError
        They are no such file, or not whole.
    """
    try:
        # Decoding is left off where it would follow attributes that are only text here.
        with xr.open_dataset(
            io.BytesIO(data), engine="scipy", decode_times=False, decode_timedelta=False
        ) as file:
            stored = file.load()
    # What SciPy and xarray raise for a damaged file, and for one of another format.
    except Exception as error:
        raise ValueError(f"damaged, or no NetCDF-3 file ({error})") from error
    try:
        header = json.loads(stored.attrs[MARKER])
        known = header["format"] == FORMAT
        dtypes, attrs = header["dtypes"], header["attrs"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("not written by save_result") from error
    if not known:
        raise ValueError(f"of format {header['format']!r}, expected {FORMAT!r}")
    try:
        dataset = stored.copy()
        dataset.encoding = {}
        for name, variable in stored.variables.items():
            dtype, own = np.dtype(dtypes[str(name)]), attrs[str(name)]
            dataset[name] = (variable.dims, _values(variable).astype(dtype))
            dataset[name].attrs = _joined(variable.attrs, own)
            dataset[name].encoding = {}
        dataset.attrs = _joined(stored.attrs, attrs[""])
        whole = _checksum(dataset) == header["checksum"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"damaged: {error}") from error
    if not whole:
        raise ValueError("damaged: its checksum does not fit")
    return dataset, header


def _items(dataset: xr.Dataset) -> list[tuple[Any, Any]]:
    return list(dataset.variables.items())


def _values(variable: Any) -> Any:
    values = np.asarray(variable.values)
    # As variable-length text: a fixed width would depend on the longest.
    return values.astype(object) if values.dtype.kind == "U" else values


def _dtype(variable: Any) -> str:
    values = _values(variable)
    return "O" if values.dtype.kind == "O" else values.dtype.newbyteorder("=").str


def _plain(dataset: xr.Dataset, name: Any) -> tuple[Any, Any]:
    """Dimensions and values of a variable in a dtype that the format has."""
    values = _values(dataset.variables[name])
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "O" and all(isinstance(value, str) for value in values.ravel()):
        return dataset.variables[name].dims, values
    if kind == "b":
        return dataset.variables[name].dims, values.astype(np.int8)
    if kind in "iu" and (
        values.size == 0 or (values.min() >= INT32.min and values.max() <= INT32.max)
    ):
        return dataset.variables[name].dims, values.astype(np.int32)
    if kind == "f" and size <= 8:
        return dataset.variables[name].dims, values.astype(np.float32 if size < 8 else np.float64)
    what = f"of dtype {values.dtype}" if kind not in "iu" else "integers beyond 32 bits"
    raise Unstorable(
        f"variable {name!r}", what, "Convert it first to real numbers of at most 64 bits, or text."
    )


def _split(owner: str, attrs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Attributes that the format holds as they are, and what has to be told of all of them."""
    native: dict[str, Any] = {}
    other: dict[str, Any] = {}
    for name, value in attrs.items():
        place = f"attribute {name!r}" + (f" of {owner!r}" if owner else "")
        if not isinstance(name, str):
            raise Unstorable(place, f"a name of type {type(name).__name__}", "Name it by text.")
        own = bool(NAME.fullmatch(name)) and name not in TAKEN
        if own and _is_native(value):
            native[name] = value
        else:
            other[name] = _encode(place, value)
    return native, {"order": list(attrs), "values": other}


def _is_native(value: Any) -> bool:
    if type(value) is str:
        return value != "" and value.isprintable()
    if type(value) is int:
        return INT32.min <= value <= INT32.max
    return type(value) is float


def _joined(native: Any, own: dict[str, Any]) -> dict[str, Any]:
    """All attributes, in the order and with the types that they had."""
    out = {}
    for name in own["order"]:
        if name in own["values"]:
            out[name] = _decode(own["values"][name])
        else:
            value = native[name]
            out[name] = value.item() if isinstance(value, np.ndarray | np.generic) else value
    return out


def _encode(place: str, value: Any) -> Any:
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) is list:
        return [_encode(place, item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_encode(place, item) for item in value]}
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {"dict": {key: _encode(place, item) for key, item in value.items()}}
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufU":
        values = value.tolist() if value.dtype.kind != "f" else value.astype(np.float64).tolist()
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return {kind: [value.dtype.newbyteorder("=").str, list(value.shape), values]}
    raise Unstorable(
        place,
        f"a {type(value).__name__}",
        "Keep text, numbers, booleans, None, and lists, tuples, mappings or arrays of these.",
    )


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tuple":
        return tuple(_decode(item) for item in content)
    if kind == "dict":
        return {key: _decode(item) for key, item in content.items()}
    dtype, shape, values = content
    array = np.array(values, dtype=dtype).reshape(shape)
    return array if kind == "array" else array[()]


def _checksum(dataset: xr.Dataset) -> str:
    digest = hashlib.sha256()
    for name, variable in sorted(_items(dataset), key=lambda item: str(item[0])):
        values = _values(variable)
        digest.update(f"{name}|{_dtype(variable)}|{variable.dims}|{values.shape}|".encode())
        if values.dtype.kind == "O":
            digest.update(json.dumps(values.ravel().tolist()).encode())
        else:
            digest.update(values.astype(_dtype(variable), copy=False).tobytes())
    return digest.hexdigest()
