"""What a result contains: its kinds, their variables and units, and its file."""

from repsim.results._attribute import attribute
from repsim.results._netcdf import UnstorableError, decode, encode

__all__ = ["UnstorableError", "attribute", "decode", "encode"]
