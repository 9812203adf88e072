"""Centred features, one by one, for measures that pair them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from array_api_compat import array_namespace

from repsim._errors import ArrayTypeError
from repsim._typing import Array
from repsim.arrays import describe, to_numpy, transformed
from repsim.measures._registry import undefined
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._subspace import unit_columns

__all__ = ["Columns", "centred_columns", "readable", "unit_norm_columns"]


class Columns(NamedTuple):
    """Contrasts of features (n − 1, p), divided by ``scale`` or each scaled to norm one."""

    features: Array
    scale: Array
    defined: Array
    operation: str
    name: str


def centred_columns(operation: str, z: Contrasts, *, name: str) -> Columns:
    """Return centred features, in units of one scale."""
    finite = array_namespace(z.points).all(array_namespace(z.points).isfinite(z.points))
    return Columns(z.points, z.scale, finite, operation, name)


def unit_norm_columns(operation: str, z: Contrasts, *, name: str) -> Columns:
    """Return the centred features, each of norm one; a constant one is undefined, with a warning.

    Products of these columns are Pearson correlations.
    """
    xp = array_namespace(z.points)
    features, scale, defined, *_ = centred_columns(operation, z, name=name)
    features = unit_columns(xp, features)
    constant = ~xp.any(xp.abs(features) > 0, axis=0)
    undefined(
        operation,
        name,
        xp.any(constant),
        "has a constant feature, which has no correlation with any other",
    )
    return Columns(features, scale, defined & ~xp.any(constant), operation, name)


def readable(item: Columns, products: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the products of features of two sides in NumPy, or raise if they are traced."""
    try:
        values = None if transformed(products) else to_numpy(products)
    except TypeError:  # jax raises for a traced value
        values = None
    if values is None:
        raise ArrayTypeError(
            f"{item.operation}: {item.name} must have values that can be read.\n"
            f"  {describe(item.name, item.features)}, still being traced or transformed\n"
            f"  Call it outside jax.jit, jax.grad, torch.compile and the transforms of torch.func: "
            f"the pairing is found on the host. backward() works."
        )
    return values.astype("float64")
