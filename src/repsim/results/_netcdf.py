"""A result as the bytes of a NetCDF-3 file and back, with a checksum over every byte.

The file is what xarray writes, and any program that reads NetCDF can read it. One attribute is
added: the time when the result was saved, and the SHA-256 of the file with zeros in place of that
digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

__all__ = ["UnstorableError", "decode", "encode"]

MARKER = "repsim_result_sha256"
FORMAT = "repsim.result/2"
VALUE = re.compile(rb"repsim\.result/2 saved (\d{20}) sha256 ([0-9a-f]{64})")

ESCAPED = "repsim.escaped:"
"""Before a text, as JSON, that has NUL or half of a surrogate pair: NetCDF has neither."""

INT32 = np.iinfo(np.int32)


class UnstorableError(ValueError):
    """A part of a result that the format cannot hold: its name, its problem, a repair."""

    def __init__(self, what: str, got: str, repair: str) -> None:
        super().__init__(f"{what}: {got}")
        self.what, self.got, self.repair = what, got, repair


def encode(dataset: xarray.Dataset, saved: int) -> bytes:
    """Return the bytes of a file from which :func:`decode` makes an identical Dataset.

    Parameters
    ----------
    dataset : xarray.Dataset
        Real numbers, booleans and text, with attributes that are text, numbers or lists of numbers.
    saved : int
        The time of saving, in nanoseconds, from :func:`time.time_ns`.

    Raises
    ------
    UnstorableError
        A variable or an attribute would come back changed, or not at all.
    """
    dataset = dataset.drop_encoding()
    dataset.attrs = {name: value for name, value in dataset.attrs.items() if name != MARKER}
    _check(dataset)
    mark = f"{FORMAT} saved {saved:020d} sha256 "
    blank = mark + 64 * "0"
    # First among the attributes, so no text of the result precedes it.
    marked = _each_text(dataset, _escaped)
    marked.attrs = {MARKER: blank, **marked.attrs}
    try:
        data = bytes(marked.to_netcdf(None, engine="scipy"))
        data = data.replace(blank.encode(), (mark + _digest(data)).encode(), 1)
        back, _ = decode(data)
    except MemoryError:
        raise
    # SciPy raises errors of many types for names and dtypes that NetCDF-3 lacks.
    except Exception as error:
        raise UnstorableError(
            "a name or a variable",
            f"refused: {error}",
            "Rename it: the format has some names of its own, such as 'mode'. Or convert it.",
        ) from error
    if unlike := _unlike(dataset, back):
        raise UnstorableError(
            unlike,
            "changed by the format",
            "Rename it: xarray acts on some names, such as 'scale_factor'. Or convert it.",
        )
    return data


def decode(data: bytes) -> tuple[xarray.Dataset, int | None]:
    """Return the Dataset in the bytes of a NetCDF file, and the time when it was saved.

    A file of another writer has no checksum. It is read without a check, and the time is ``None``.

    Raises
    ------
    ValueError
        The bytes were changed since `encode` made them, or are not a NetCDF file.
    """
    import xarray

    saved = None
    # Either trace suffices, because a change of one byte leaves the other trace.
    if MARKER.encode() in data or FORMAT.encode() in data:
        mark = VALUE.search(data)
        if mark is None or _digest(_blanked(data, mark)) != mark[2].decode():
            raise ValueError("changed since it was saved: its checksum does not fit")
        saved = int(mark[1])
    try:
        # Do not decode times: units="days since the start" is ordinary text.
        with xarray.open_dataset(
            io.BytesIO(data),
            engine="scipy" if data.startswith(b"CDF") else None,
            decode_times=False,
            decode_timedelta=False,
        ) as file:
            dataset = file.load().drop_encoding()
    except MemoryError:
        raise
    # Errors of SciPy and xarray for a damaged file, and for a file of another format.
    except Exception as error:
        raise ValueError(f"damaged, or not a NetCDF file ({error})") from error
    for _, attrs in _attributes(dataset):
        attrs.update({name: _plain(value) for name, value in attrs.items()})
    if saved is not None:
        del dataset.attrs[MARKER]
        dataset = _each_text(dataset, _unescaped)
        for name, variable in dataset.variables.items():
            if variable.dtype == np.int32:  # results have integers of 64 bits
                dataset[name] = dataset[name].astype(np.int64)
    return dataset, saved


def _each_text(dataset: xarray.Dataset, change: Callable[[str], str]) -> xarray.Dataset:
    """Return a copy with every text of variables and attributes changed."""
    dataset = dataset.copy()
    for name, variable in dataset.variables.items():
        texts = variable.values
        if variable.dtype.kind in "OU" and any(change(each) != each for each in texts.flat):
            changed = np.array([change(str(each)) for each in texts.flat], dtype=object)
            dataset[name] = (variable.dims, changed.reshape(texts.shape), variable.attrs)
    for _, attrs in _attributes(dataset):
        attrs.update({k: change(text) for k, text in attrs.items() if isinstance(text, str)})
    return dataset


def _escaped(text: str) -> str:
    odd = "\0" in text or any("\ud800" <= char <= "\udfff" for char in text)
    return ESCAPED + json.dumps(text) if odd or text.startswith(ESCAPED) else text


def _unescaped(text: str) -> str:
    return str(json.loads(text.removeprefix(ESCAPED))) if text.startswith(ESCAPED) else text


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blanked(data: bytes, mark: re.Match[bytes]) -> bytes:
    return data[: mark.start(2)] + b"0" * 64 + data[mark.end(2) :]


def _attributes(dataset: xarray.Dataset) -> list[tuple[str, dict[Any, Any]]]:
    """The attributes of a result and of each of its variables, with names for errors."""
    of = [(f" of {name!r}", variable.attrs) for name, variable in dataset.variables.items()]
    return [("", dataset.attrs), *of]


def _plain(value: Any) -> Any:
    """An attribute as a Python value, because NetCDF turns all numbers into arrays."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _check(dataset: xarray.Dataset) -> None:
    """Raise if the format cannot hold the value."""
    for name, variable in dataset.variables.items():
        if reason := _unstorable(variable.values):
            raise UnstorableError(
                f"variable {name!r}",
                reason,
                "Convert it first to real numbers of 32 or 64 bits, or to text.",
            )
    for owner, attrs in _attributes(dataset):
        for name, value in attrs.items():
            array = np.asarray(value, dtype=object if value is None else None)
            text = isinstance(value, str)
            reason = _unstorable(array)
            if (array.dtype.kind in "OUb" and not text) or array.ndim > 1:
                reason = f"a {type(value).__name__}: {value!r}"
            if reason:
                raise UnstorableError(
                    f"attribute {name!r}{owner}",
                    reason,
                    "Keep text, numbers and lists of numbers; repr(value) is text.",
                )


def _unstorable(values: Any) -> str | None:
    """Return why values cannot be stored; None if they can."""
    size = values.dtype.itemsize
    if values.dtype.kind in "iu":
        if values.size and not INT32.min <= values.min() <= values.max() <= INT32.max:
            return "integers beyond 32 bits"
    elif values.dtype.kind == "O":
        if not all(isinstance(value, str) for value in values.flat):
            return "objects that are not text"
    elif values.dtype.kind not in "bUf" or (values.dtype.kind == "f" and size not in (4, 8)):
        return f"of dtype {values.dtype}"
    return None


def _unlike(dataset: xarray.Dataset, back: xarray.Dataset) -> str | None:
    """Return the name of a part that came back changed; None if none did."""
    if set(dataset.variables) != set(back.variables) or set(dataset.coords) != set(back.coords):
        return f"one of {', '.join(map(str, dataset.variables))}"
    for name, variable in dataset.variables.items():
        if not variable.equals(back.variables[name]):  # type: ignore[no-untyped-call]
            return f"variable {name!r}"
    returned = dict(_attributes(back))
    for owner, attrs in _attributes(dataset):
        for name in {*attrs, *returned[owner]}:
            if not _same(attrs.get(name), returned[owner].get(name)):
                return f"attribute {name!r}{owner}"
    return None


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, str) or before is None or now is None:
        return type(now) is str and now == before
    # NetCDF does not distinguish a list of one number from the number.
    return np.array_equal(np.atleast_1d(before), np.atleast_1d(now), equal_nan=True)
