"""Centred features, one by one, for measures that pair them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from array_api_compat import device

from repsim._errors import ArrayTypeError
from repsim._typing import Array
from repsim.arrays import array_namespace, describe, to_numpy, transformed
from repsim.measures._registry import undefined
from repsim.measures.parts._geometry import Contrasts
from repsim.measures.parts._subspace import unit_columns

__all__ = ["Columns", "centred_columns", "matched", "read", "readable", "unit_norm_columns"]

Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


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


def readable(item: Columns, products: Array) -> Numbers:
    """Return the products of features of two sides in NumPy, or raise if they are traced."""
    why = "the pairing is found on the host. backward() works"
    return read(item.operation, item.name, products, why, shown=item.features)


def matched(x: Columns, y: Columns, plan: Callable[[Numbers], Numbers]) -> Array:
    """Return Σ_ij P_ij ⟨x_i, y_j⟩ with P what `plan` makes of these products, found on the host."""
    xp = array_namespace(x.features)
    products = xp.matrix_transpose(x.features) @ y.features
    weights = xp.asarray(plan(readable(x, products)), dtype=products.dtype, device=device(products))
    out: Array = xp.sum(weights * products)
    return out


def read(operation: str, name: str, x: Array, why: str, *, shown: Array | None = None) -> Numbers:
    """Return the values of an array in NumPy, float64, or raise if they are traced.

    Parameters
    ----------
    operation, name : str
        The function and its argument, for the error.
    x : array
        What is read.
    why : str
        Why values are needed: the end of the message.
    shown : array, optional
        The array that the message describes, if it is another one.
    """
    try:
        values = None if transformed(x) else to_numpy(x)
    except TypeError:  # jax raises for a traced value
        values = None
    if values is None:
        what = describe(name, x if shown is None else shown)
        raise ArrayTypeError(
            f"{operation}: {name} must have values that can be read.\n"
            f"  {what}, still being traced or transformed\n"
            f"  Call it outside jax.jit, jax.grad, torch.compile and the transforms of torch.func: "
            f"{why}."
        )
    return values.astype(np.float64, copy=False)
