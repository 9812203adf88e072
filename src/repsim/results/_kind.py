"""A kind of result: its variables with dimensions and units, and how it is recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim._errors import InputError
from repsim.results._findings import Finding, Table
from repsim.results._reading import unit_of

if TYPE_CHECKING:
    import xarray

__all__ = ["Kind", "Variable"]


@dataclass(frozen=True)
class Variable:
    """One variable or coordinate of a result."""

    dims: tuple[str, ...]
    long_name: str = ""
    """Its meaning, as a phrase for a label; if empty, it has no attributes."""
    description: str = ""
    units: str = "1"
    is_text: bool = False
    low: float | None = None
    """The ends of its colour scale in a map; None: those of the data."""
    high: float | None = None

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes of the variable in a Dataset."""
        if not self.long_name:
            return {}
        said = {"description": self.description} if self.description else {}
        unit = {} if self.is_text else {"units": self.units}
        return {"long_name": self.long_name, **said, **unit}

    def suits(self, array: xarray.DataArray) -> bool:
        """Whether an array has these dimensions and this type, and is not empty."""
        kinds = "OU" if self.is_text else "fiu"
        return set(array.dims) == set(self.dims) and array.size > 0 and array.dtype.kind in kinds


@dataclass(frozen=True, eq=False)
class Kind:
    """The contents of the results of one function of repsim.

    Analyses build their Dataset from it, and plots check their arguments with it. The report and
    the command use it to recognise a result and to show its headline numbers.
    """

    function: str
    """The function whose result it is."""
    title: str
    """Its title on a page."""
    variables: Mapping[str, Variable]
    """Variables and coordinates by name; dimensions without attributes need no entry."""
    required: tuple[str, ...]
    """The variables by which a Dataset is recognised as of this kind."""
    findings: Callable[[xarray.Dataset], list[Finding]]
    """The headline numbers of a result."""
    table: Callable[[xarray.Dataset], Table]
    """The numbers of a result for a terminal."""

    def labelled(self, name: str, values: Any) -> tuple[tuple[str, ...], Any, dict[str, str]]:
        """Return dimensions, values and attributes of a variable for xarray."""
        variable = self.variables[name]
        return variable.dims, values, variable.attrs

    def dataset(
        self, variables: Mapping[str, Any], coords: Mapping[str, Any] | None = None
    ) -> xarray.Dataset:
        """Return a Dataset of this kind.

        Parameters
        ----------
        variables : mapping of str to array
            Values by name, with dimensions as described.
        coords : mapping of str to array, optional
            Further coordinates, and names along dimensions.
        """
        import xarray

        return xarray.Dataset(self._described(variables), self._described(coords or {}))

    def _described(self, named: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: self.labelled(name, values) if name in self.variables else values
            for name, values in named.items()
        }

    def label(self, result: xarray.Dataset, name: str) -> str:
        """Return a variable's name and unit for an axis: "mean attention distance (pixels)"."""
        variable = self.variables[name]
        unit = unit_of(result[name], variable.units)
        return variable.long_name if unit == "1" else f"{variable.long_name} ({unit})"

    def fits(self, result: xarray.Dataset) -> bool:
        """Whether `result` is of this kind."""
        return all(
            name in result.variables and self.variables[name].suits(result[name])
            for name in self.required
        )

    def require(
        self, result: Any, operation: str, *names: str, optional: tuple[str, ...] = ()
    ) -> xarray.Dataset:
        """Return a copy of `result` with the named variables as float64, dimensions in order.

        Parameters
        ----------
        result : xarray.Dataset
            The result of the function, or a selection of it.
        operation : str
            The caller's name, the first word of error messages.
        *names : str
            Variables that the caller needs.
        optional : tuple of str
            Variables that are checked and converted like these if the result has them; an empty one
            is left out.

        Raises
        ------
        InputError
            `result` is not a Dataset, or a variable is missing, empty, not numeric or has other
            dimensions.
        """
        import xarray

        if not isinstance(result, xarray.Dataset):
            raise InputError(
                f"{operation}: result must be an xarray.Dataset, as repsim.{self.function} returns "
                f"it.\n  result: {type(result).__name__}\n"
                f"  Pass the whole result, not one of its variables."
            )
        out = result.copy()
        # A result without controls may have the dimension of the controls with no entries.
        empty = [name for name in optional if name in result and not result[name].size]
        out = out.drop_vars(empty)
        found = [name for name in optional if name in result.data_vars and name not in empty]
        for name in (*names, *found):
            dims = self.variables[name].dims
            if name not in result.data_vars:
                raise InputError(
                    f"{operation}: result has no variable {name!r}.\n"
                    f"  variables: {', '.join(map(str, result.data_vars)) or 'none'}\n"
                    f"  Pass what repsim.{self.function} returned."
                )
            _check(result[name], operation, name, dims)
            out[name] = result[name].transpose(*dims).astype(np.float64)
        return out


def _check(array: xarray.DataArray, operation: str, name: str, dims: tuple[str, ...]) -> None:
    if set(array.dims) != set(dims):
        raise InputError(
            f"{operation}: {name} must have exactly the dimensions {', '.join(dims)}.\n"
            f"  {name}: {tuple(map(str, array.dims))} → {array.shape}\n"
            f"  Select with a list, as in result.sel({dims[0]}=[name]), to keep a dimension."
        )
    if array.size == 0:
        raise InputError(
            f"{operation}: {name} must not be empty.\n"
            f"  {name}: {tuple(map(str, array.dims))} → {array.shape}\n"
            f"  Did the selection match nothing?"
        )
    if array.dtype.kind not in "fiu":
        raise InputError(
            f"{operation}: {name} must hold real numbers.\n"
            f"  {name}: dtype {array.dtype}\n"
            f"  Was the result read from a file without its types?"
        )
